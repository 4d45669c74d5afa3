//! A duplicate whose first lies on a stream that the present policy would not choose for it: the class map has changed
//! since.
//!
//! Its receipt names that first one, so stream, partition key and profile are that one's too, and the key is what
//! the log holds there. The profile is the one that publishes to that stream today; where none does, it is left out.

use std::sync::Arc;

use eb_contract::stores::AdmissionEntry;

use super::Candidate;
use crate::core::Core;
use crate::error::GateError;
use crate::lookup;
use crate::receipt::{Decision, Receipt};
use crate::scan::own_key;

/// The receipt, once the log has been asked.
///
/// # Errors
/// `EB_UNAVAILABLE` when the log cannot tell.
pub(super) async fn receipt(
    core: Arc<Core>,
    candidate: Candidate,
    first: AdmissionEntry,
) -> Result<Receipt, GateError> {
    let record = match lookup::record_at(&core, &first.eb_ref).await {
        Ok(record) => record,
        Err(error) => {
            core.note(&error);
            return Err(GateError::log(error));
        }
    };
    let Candidate { event, mut admission, .. } = candidate;
    let profile = core.policy.partitioning().for_stream(&first.eb_ref.topic);
    if let Some(key) = own_key(&record) {
        admission.partition_key = key;
    }
    let mut receipt =
        Receipt::admitted(Decision::Duplicate, event, admission, first.eb_ref, Arc::clone(&core.rev));
    receipt.partitioning_profile_id = profile.map(|profile| profile.id().to_owned());
    Ok(receipt)
}
