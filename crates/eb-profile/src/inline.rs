//! Lets a lone publisher commit on its own thread where tokio allows blocking there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use eb_file::InlineCommit;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Commits inline on tokio's multi-thread runtime, and nowhere else.
///
/// The runtime's flavour does not tell whether a thread runs a `LocalSet`, where `block_in_place` panics before it runs anything. So the first
/// such panic is caught and ends inline commits for this bus: the writer's thread does the work from then on.
pub(crate) fn on_tokio() -> InlineCommit {
    let refused = AtomicBool::new(false);
    InlineCommit::new(move |work| {
        let multi_thread =
            Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
        if !multi_thread || refused.load(Ordering::Relaxed) {
            return;
        }
        let mut began = false;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            block_in_place(|| {
                began = true;
                work();
            });
        }));
        if let Err(panic) = ran {
            if began {
                // The work's own panic is not ours to hide.
                std::panic::resume_unwind(panic);
            }
            refused.store(true, Ordering::Relaxed);
        }
    })
}
