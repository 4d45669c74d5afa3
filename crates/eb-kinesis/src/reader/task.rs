//! Work that goes on whether its caller polls for it or not.
//!
//! Calls of one bus wait for each other's questions about a stream, so that many ask once. A caller may leave a future
//! alone after its first poll, as a buffered stream does while its consumer waits for something else; it must not hold up
//! the others, nor the very thing that its consumer waits for.

use eb_contract::{Error, ErrorKind, Result};
use tokio::task::JoinHandle;

/// A call in a task of its own, on the runtime on which it was begun. Dropping it ends the task.
pub(crate) struct Task<T>(JoinHandle<Result<T>>);

impl<T: Send + 'static> Task<T> {
    /// Must be called on a runtime.
    pub(crate) fn start(call: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(tokio::spawn(call))
    }

    /// What came of it. Dropping the future leaves the task as it is; once it has answered it must not be asked again.
    ///
    /// # Errors
    /// As the call. `Unavailable` if its runtime has ended meanwhile, or it has panicked: nothing has been changed.
    pub(crate) async fn answer(&mut self, op: &'static str) -> Result<T> {
        (&mut self.0).await.unwrap_or_else(|e| {
            Err(Error::new(
                ErrorKind::Unavailable,
                op,
                format!("the call's task ended without an answer: {e}"),
            ))
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
