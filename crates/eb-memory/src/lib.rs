//! In-process reference backend of the event bus.
