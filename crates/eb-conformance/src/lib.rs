//! The one suite that every event bus backend and store passes.
