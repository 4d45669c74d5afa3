//! The mirror: a copy of the primary's log on the other bus, made and compared by one worker at a time. See the
//! [crate](crate)'s documentation for what it promises.
//!
//! A worker takes the lead by a swap of the mirror's register, and each of its swaps expects the version of its last one:
//! whoever was overtaken notices with the next. It goes topic by topic, a window of records at a time:
//!
//! 1. once, from the stored cuts on: read the mirror's log to its head, for what a former worker has copied already;
//! 2. read the next records of the primary's log;
//! 3. publish those that are not there, in order, each only under a valid lease;
//! 4. read them back from the mirror's log and compare;
//! 5. store how far both logs agree.
//!
//! After anything that fails, step 1 comes first again.

mod compare;
mod doc;
mod follow;
mod worker;

pub use compare::Comparison;
pub(crate) use compare::compare;
pub use doc::{Finding, FindingKind, MirrorState, TopicMirror};
pub(crate) use follow::source_heads;
pub(crate) use worker::{rests_for, run};

use std::time::Duration;

use tokio::time::Instant;

use crate::shared::Shared;

/// Waits until no worker has a copy under way, for `patience` at the most.
pub(crate) async fn rested(shared: &Shared, patience: Duration) {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        match shared.mirror.load().await {
            Ok(Some((_, mirror))) if mirror.leader.is_some() => {}
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "the mirror's progress cannot be read"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tracing::warn!("the mirror's worker has not come to rest; a copy may land late");
}
