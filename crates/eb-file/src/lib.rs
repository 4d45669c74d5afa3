//! Durable JSON-lines file log backend of the event bus.
