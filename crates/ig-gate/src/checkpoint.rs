//! The index's checkpoint: cuts of the log before which the index has everything.
//!
//! # The rule
//! A candidate is, for each partition, the cut right past the furthest record that was ACKed. It may be committed once
//! every flight that was in the table *after* the candidate was taken has settled:
//!
//! - a record before the candidate was published by a flight that was in the table when it was called, and that has
//!   left since (then the index has it), or that is seen and awaited;
//! - a flight that is not seen was put into the table after the candidate was taken, so its publish was called after
//!   every record before the candidate was ACKed, and lies behind it.
//!
//! That holds for sparse offsets as for dense ones. A flight whose publish has not been called yet need not be awaited:
//! its record will lie behind the candidate. A key that is blocked (unknown outcome, or the index did not take it) holds
//! the candidate up until it is settled; the gate stops admitting before the checkpoint is further behind than the
//! index's `max_lag`.
//!
//! A shared index needs no waiting at all. Whatever it lacks has an open reservation, whose start cuts an opening gate
//! reads from, wherever the checkpoint stands: own events as well as those of other gates, whose records lie among ours.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::Result;

use crate::core::Core;

/// How long a failed commit rests, however many wake the checkpointer.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How often the gauges are brought up to date.
const SHOW: Duration = Duration::from_secs(1);

/// Commits checkpoints from time to time, and shows how far all is, until the gate is gone.
pub(crate) async fn run(core: Arc<Core>) {
    // A commit may wait for a blocked key for long; just then the gauges are wanted.
    tokio::join!(commit_from_time_to_time(&core), show_from_time_to_time(&core));
}

async fn commit_from_time_to_time(core: &Arc<Core>) {
    loop {
        tokio::select! {
            () = core.wake_checkpointer.notified() => {}
            () = tokio::time::sleep(core.config.checkpoint_interval) => {}
        }
        if core.progress.lag() == 0 {
            continue;
        }
        if let Err(error) = commit(core).await {
            core.note(&error);
            tracing::warn!(%error, "the index's checkpoint could not be committed; trying again");
            // Every event that is refused meanwhile asks for a checkpoint.
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

async fn show_from_time_to_time(core: &Core) {
    loop {
        show(core);
        tokio::time::sleep(SHOW).await;
    }
}

/// Takes a candidate, waits until it may be committed, and commits it; one at a time, so that of two the newer stays.
///
/// # Errors
/// When the index could not store it; the former one stays.
pub(crate) async fn commit(core: &Arc<Core>) -> Result<()> {
    let _one_at_a_time = core.committing.lock().await;
    let (candidate, acked) = core.progress.candidate();
    if !core.index.is_shared() {
        let mut in_flight = core.flights.all();
        in_flight.retain(|flight| flight.is_publishing());
        for flight in &in_flight {
            flight.detach(core);
        }
        for flight in in_flight {
            flight.settled().await;
        }
    }
    core.index.commit_checkpoint(candidate.clone()).await?;
    tracing::debug!(records = acked, "index checkpoint committed");
    core.progress.committed(candidate, acked);
    Ok(())
}

fn show(core: &Core) {
    core.metrics.in_flight.set(core.flights.len() as f64);
    core.metrics.lag.set(core.progress.lag() as f64);
    for (topic, partition, offset) in core.progress.heads() {
        if let Some(offset) = offset.as_u64() {
            metrics::gauge!(
                "ig_gate_head_offset",
                "topic" => topic.as_str().to_owned(),
                "partition" => partition.to_string()
            )
            .set(offset as f64);
        }
    }
}
