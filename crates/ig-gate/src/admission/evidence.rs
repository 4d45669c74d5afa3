//! From a refusal to its receipt: evidence first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use canonical_envelope::{DedupeKey, PayloadHash};
use eb_contract::{Error, ErrorKind, Retry, Timestamp};
use sha2::{Digest as _, Sha256};
use tokio::task::{JoinError, JoinHandle};

use super::Refusal;
use crate::core::Core;
use crate::error::{GateError, GateErrorCode};
use crate::metrics::since;
use crate::policy::hex;
use crate::quarantine::QuarantineRecord;
use crate::receipt::{Decision, EvidenceKind, EvidenceRef, Receipt, ReceiptId};
use crate::room::Held;

/// How much is hashed before others get a turn.
const HASH_STEP: usize = 1 << 20;

/// Keeps the evidence in a task, whether or not the caller waits for it.
///
/// # Errors
/// `EB_THROTTLED` when too many are under way.
pub(crate) fn keep(
    core: &Arc<Core>,
    refusal: Box<Refusal>,
) -> Result<JoinHandle<Result<Receipt, GateError>>, GateError> {
    let Some(room) = core.evidence_room.hold(refusal.input.len()) else {
        return Err(core.too_busy());
    };
    let pending = Pending { core: Arc::clone(core), _room: room };
    if core.evidence_pending.fetch_add(1, Ordering::SeqCst) >= core.config.max_waiting {
        return Err(core.too_busy());
    }
    let received_at = Timestamp::now();
    Ok(core.runtime.spawn(async move {
        let core = &pending.core;
        let started = Instant::now();
        let kept = put(core, *refusal, received_at).await;
        since(&core.metrics.evidence, started);
        kept
    }))
}

async fn put(core: &Arc<Core>, refusal: Refusal, received_at: Timestamp) -> Result<Receipt, GateError> {
    let Refusal { reason, details, event, input, first } = refusal;
    let mut hash = Sha256::new();
    for step in input.chunks(HASH_STEP) {
        hash.update(step);
        if step.len() == HASH_STEP {
            tokio::task::yield_now().await;
        }
    }
    let input_sha256 = hash.finalize().into();
    let mut receipt = Receipt::quarantined(&input_sha256, reason, event, Arc::clone(&core.rev));
    if let Some(first) = first {
        let (dedupe, payload) =
            (DedupeKey::from_bytes(first.key.dedupe), PayloadHash::from_bytes(first.payload_hash));
        receipt.evidence_refs.push(EvidenceRef {
            kind: EvidenceKind::ReceiptRef,
            reference: ReceiptId::of_event(Decision::Admit, &dedupe, &payload).to_string(),
            digest: hex(&first.payload_hash),
        });
    }
    let record = QuarantineRecord { received_at, input, input_sha256, details, receipt: receipt.clone() };
    match core.quarantine.put(record).await {
        Ok(evidence) => {
            receipt.evidence_refs.insert(0, evidence);
            Ok(receipt)
        }
        Err(error) => {
            core.note(&error);
            tracing::warn!(%error, "evidence could not be stored");
            Err(GateError::evidence(error))
        }
    }
}

/// The task did not come to its end.
pub(crate) fn task_ended(error: &JoinError) -> GateError {
    let ended = Error::new(ErrorKind::Unavailable, "quarantine", error.to_string());
    if error.is_cancelled() {
        return GateError::new(
            GateErrorCode::EvidenceUnavailable,
            Retry::AfterReopen,
            "the runtime ended before the evidence was stored",
        );
    }
    GateError::evidence(ended)
}

/// Counts one evidence under way, for as long as it lives.
struct Pending {
    core: Arc<Core>,
    _room: Held,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.core.evidence_pending.fetch_sub(1, Ordering::SeqCst);
        self.core.evidence_settled.notify_waiters();
    }
}
