//! The ingestion gate: the only way for an event into the bus.
