//! Leases of reservations whose publishes take long.
//!
//! A publish may be under way for longer than its reservation's lease: a topic whose shards are throttled keeps events
//! queued for as long as its publisher is patient. Another gate that is asked for the same event would then read the log,
//! find nothing, and at last publish it too. Two receipts could not come of that (the index names one place), but a
//! copy in the log would. So a gate renews what it is at work on, all of it by one call, five times in a lease; what was
//! reserved since the last time needs none yet.
//!
//! | what | then |
//! |---|---|
//! | a renewal fails | the next comes a fifth of a lease later; two more, at the least, fit before the lease ends |
//! | the index cannot be reached for longer than that | the lease ends, and the reservation may be taken over: `confirm` tells what stands |
//! | the publish ends with an unknown outcome | not renewed any more: whoever wants the event may look for it |
//! | the gate dies | the same, from its last renewal on |

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::ReservationId;

use crate::core::Core;

/// Renewals in a lease.
const TIMES: u32 = 5;
/// The shortest rest between two, however short the lease.
const REST: Duration = Duration::from_millis(1);

/// Renews what is under way, until the gate is gone.
pub(crate) async fn run(core: Arc<Core>) {
    let Some(lease) = core.index.lease() else { return };
    let every = (lease / TIMES).max(REST);
    let mut before: HashSet<ReservationId> = HashSet::new();
    loop {
        tokio::time::sleep(every).await;
        let pending: HashSet<_> =
            core.flights.all().iter().filter_map(|flight| flight.pending_reservation()).collect();
        let due: Vec<_> = pending.intersection(&before).copied().collect();
        before = pending;
        if due.is_empty() {
            continue;
        }
        let count = due.len();
        match core.index.renew(due).await {
            Ok(()) => tracing::debug!(reservations = count, "renewed: their publishes are still under way"),
            Err(error) => {
                core.note(&error);
                tracing::warn!(%error, reservations = count, "reservations could not be renewed; trying again");
            }
        }
    }
}
