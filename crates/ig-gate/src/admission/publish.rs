//! From a reserved key to the index: publish, confirm, or give back.

use std::sync::Arc;
use std::time::Instant;

use eb_contract::stores::{AdmissionEntry, Confirmation, ReservationId};
use eb_contract::{BoxFuture, Effect, PublishRecord};

use crate::core::Core;
use crate::inflight::{Driven, Flight, Outcome};
use crate::metrics::since;

/// Calls publish, which fixes the event's place among this gate's, and gives the rest as a future. `started` is now.
///
/// What the index is told is also what the answer says: where another gate has taken the key over while the publish was
/// under way, its entry stands, and what was published here is a copy.
pub(crate) fn publish(
    core: &Arc<Core>,
    flight: &Flight,
    record: PublishRecord,
    reservation: ReservationId,
    started: Instant,
) -> BoxFuture<'static, Driven> {
    let (partition_key, envelope) = (record.partition_key.clone(), record.envelope.clone());
    flight.starts_publishing();
    let publish = core.publisher.publish(&flight.topic, record);
    let core = Arc::clone(core);
    let (key, payload_hash) = (flight.key, flight.payload_hash);
    Box::pin(async move {
        let published = publish.await;
        let acked = Instant::now();
        core.metrics.publish.record(acked.duration_since(started).as_secs_f64());
        let eb_ref = match published {
            Ok(eb_ref) => eb_ref,
            Err(error) if error.effect() == Effect::Unknown => {
                return Driven::Unknown(core.publish_failed(error));
            }
            Err(error) => {
                // Should the index not hear of it, the reservation's lease ends it.
                if let Err(error) = core.index.release(vec![reservation]).await {
                    core.note(&error);
                    tracing::warn!(%error, "a reservation could not be given back");
                }
                return Driven::Settled(Outcome::Failed(core.publish_failed(error)));
            }
        };
        core.acked(&eb_ref, &partition_key, &envelope);
        let entry = AdmissionEntry { key, payload_hash, eb_ref };
        let confirmation = Confirmation { reservation, entry: entry.clone() };
        let confirmed = core.index.confirm(vec![confirmation]).await;
        since(&core.metrics.index, acked);
        match confirmed {
            Ok(standing) => match standing.into_iter().find(|e| e.key == key) {
                None => Driven::Settled(Outcome::Admitted(entry)),
                Some(first) => {
                    tracing::warn!(
                        copy = %entry.eb_ref, eb_ref = %first.eb_ref,
                        "the publish took so long that another gate has admitted the event; the log holds a copy"
                    );
                    Driven::Settled(Outcome::Before(first))
                }
            },
            Err(error) => {
                core.note(&error);
                tracing::warn!(%error, eb_ref = %entry.eb_ref, "admitted, but the index did not take it; trying again");
                Driven::Unindexed(entry)
            }
        }
    })
}
