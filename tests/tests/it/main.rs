//! Whole-system tests: real processes that are killed, and a disk that fails.

mod fault;
mod process;

/// Runs a future to its end on a runtime of its own.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}
