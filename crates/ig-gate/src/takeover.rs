//! Another gate's reservation whose lease has ended: what became of it, by the log.

use std::collections::BTreeMap;

use eb_contract::stores::{AdmissionEntry, OpenReservation};
use eb_contract::{Result, Timestamp};

use crate::core::Core;
use crate::inflight::Flight;
use crate::scan::TopicScan;

/// What became of a reservation.
pub(crate) enum Takeover {
    /// The event lies in the log.
    Found(AdmissionEntry),
    /// It does not, and will not by that gate; the key can be reserved again.
    Released,
    /// It does not yet, and still may.
    Undecided,
}

/// Settles the reservation of a flight's key, by reading the log from the reservation's cuts.
pub(crate) async fn settle(core: &Core, flight: &Flight) -> Result<Takeover> {
    let open = core.index.open_reservations().await?;
    let Some(open) = open.into_iter().find(|r| r.request.key == flight.key) else {
        // Settled meanwhile: asking again will tell.
        return Ok(Takeover::Released);
    };
    let OpenReservation { reservation, request, reserved_at, .. } = open;
    // Looked at before the log is read: a deadline that passes during the read proves nothing.
    let too_late = Timestamp::now().saturating_since(reserved_at) >= core.config.unknown_deadline;
    let from: BTreeMap<_, _> = request.start.into_iter().collect();
    let mut scan = TopicScan::open(core.reader.as_ref(), &request.topic, from).await?;
    while let Some(scanned) = scan.next().await? {
        if let Some(entry) = scanned.entries.into_iter().find(|e| e.key == flight.key) {
            core.index.apply(vec![entry.clone()]).await?;
            return Ok(Takeover::Found(entry));
        }
    }
    if too_late {
        core.index.release(vec![reservation]).await?;
        return Ok(Takeover::Released);
    }
    Ok(Takeover::Undecided)
}
