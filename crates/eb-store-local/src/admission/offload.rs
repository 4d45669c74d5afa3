//! Work that may wait for the disk for long, off the caller's thread.

use eb_contract::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, oneshot};

/// Audits and look-ups without a key come rarely; more than these at once wait for each other.
static PLACES: Semaphore = Semaphore::const_new(4);

/// Runs `work` on a thread of its own, which costs some 50 µs. Dropping the future does not stop work that has begun.
///
/// # Errors
/// The work's own; `Unavailable` when no thread can be started or the work panicked.
pub(crate) async fn offload<T, F>(op: &'static str, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let unavailable = |what: &str| Error::new(ErrorKind::Unavailable, op, what);
    let place = PLACES.acquire().await.map_err(|_| unavailable("the places for blocking work are gone"))?;
    let (answer, answered) = oneshot::channel();
    std::thread::Builder::new()
        .name("eb-index io".to_owned())
        .spawn(move || {
            // Nobody may be waiting any more; the work is done all the same.
            let _ = answer.send(work());
            drop(place);
        })
        .map_err(|e| unavailable("no thread could be started").with_source(e))?;
    answered.await.map_err(|_| unavailable("the work panicked"))?
}
