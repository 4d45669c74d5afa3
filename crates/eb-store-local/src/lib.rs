//! Embedded stores of the event bus: the admission index.
