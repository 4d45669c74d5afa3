//! Types, errors and traits that every event bus backend and store implements.
