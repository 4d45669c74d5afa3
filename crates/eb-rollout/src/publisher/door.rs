//! The task that keeps the door: opens it, lets the line in, shuts it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eb_contract::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use super::line::{expire, let_in};
use super::{Core, Door};
use crate::hold::Undecided;
use crate::shared::Lease;
use crate::slot::Use;

/// How long the task rests after the primary's publisher could not be opened.
const OPEN_AGAIN: Duration = Duration::from_millis(50);

/// The task of a publisher.
pub(super) async fn keep_door(core: Arc<Core>) {
    let mut changes = core.shared.listen();
    let mut again = None;
    loop {
        let lease = changes.borrow_and_update().clone();
        core.holds.forget_settled(&lease.state);
        match renew_door(&core, &lease, &mut changes).await {
            Ok(()) => {}
            Err(NoDoor::Failed(error)) => {
                tracing::warn!(%error, "the primary's publisher could not be opened; trying again");
                core.line.lock().why = Some(error);
                again = Some(Instant::now() + OPEN_AGAIN);
            }
            Err(NoDoor::Changed) => continue,
        }
        let door = core.door.read().clone();
        if let Some(door) = door {
            let_in(&core, &door).await;
        }
        let oldest = expire(&core);
        if oldest.is_none() && core.closed.load(Ordering::Acquire) {
            break;
        }
        let next = [oldest.map(|since| since + core.shared.config.max_wait), again.take()];
        let next = next.into_iter().flatten().min();
        tokio::select! {
            // The process shares the lease for as long as any handle of it is there.
            _ = changes.changed() => {}
            () = core.wake.notified() => {}
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
    let door = core.door.write().take();
    let closed = match door {
        Some(door) => core.shared.side(door.side).slot.release(Use::Callers).await,
        None => Ok(()),
    };
    core.done.send_replace(Some(closed));
}

/// Why there is no door.
enum NoDoor {
    Failed(Error),
    /// The register says something else now: what was being opened is of no use any more.
    Changed,
}

/// Sees to it that the door belongs to what the register says. A bus that takes long to be opened holds up neither a switch away from it nor
/// the answers to those who have waited long enough.
async fn renew_door(
    core: &Arc<Core>,
    lease: &Arc<Lease>,
    changes: &mut watch::Receiver<Arc<Lease>>,
) -> Result<(), NoDoor> {
    let door = core.door.read().clone();
    if let Some(door) = door {
        if door.lease.version == lease.version {
            return Ok(());
        }
        if door.lease.state.epoch == lease.state.epoch {
            // A topic was made, a phase has changed: the same publisher goes on. While a switch is under way nothing does.
            if lease.state.is_active() {
                let renewed = Door {
                    lease: lease.clone(),
                    side: door.side,
                    publisher: door.publisher.clone(),
                    undecided: door.undecided.clone(),
                };
                *core.door.write() = Some(Arc::new(renewed));
            }
            return Ok(());
        }
        *core.door.write() = None;
        core.holds.leave(door.undecided.clone());
        let (shared, side) = (core.shared.clone(), door.side);
        // What is under way there may take long; the next epoch need not wait for it.
        tokio::spawn(async move {
            if let Err(error) = shared.side(side).slot.release(Use::Callers).await {
                tracing::warn!(%error, %side, "the publisher of the bus that was left could not be closed in order");
            }
        });
    }
    if lease.version == 0 || !lease.state.is_active() {
        return Ok(());
    }
    let side = lease.state.primary();
    let mut opening = std::pin::pin!(core.shared.side(side).slot.acquire(Use::Callers));
    let publisher = loop {
        let oldest = expire(core);
        let expires = oldest.map(|since| since + core.shared.config.max_wait);
        tokio::select! {
            opened = &mut opening => break opened.map_err(NoDoor::Failed)?,
            changed = changes.changed() => {
                if changed.is_err() || changes.borrow().version != lease.version {
                    return Err(NoDoor::Changed);
                }
                changes.mark_unchanged();
            }
            () = core.wake.notified() => {
                if oldest.is_none() && core.closed.load(Ordering::Acquire) {
                    return Ok(());
                }
            }
            () = tokio::time::sleep_until(expires.unwrap_or_else(Instant::now)), if expires.is_some() => {}
        }
    };
    let undecided = Undecided::new(lease.state.epoch);
    *core.door.write() = Some(Arc::new(Door { lease: lease.clone(), side, publisher, undecided }));
    Ok(())
}
