//! From bytes to a decision, as far as it can be made without asking anybody: a few microseconds of pure work.

use std::cell::RefCell;

use bytes::Bytes;
use canonical_envelope::{Envelope, InvalidEnvelope, PayloadHash, Reason};
use eb_contract::stores::{AdmissionEntry, AdmissionKey};
use eb_contract::{EbRef, EnvelopeError, EnvelopeLimits, EnvelopeRef, Topic};
use sha2::{Digest as _, Sha256};

use crate::policy::Policy;
use crate::reason::{Detail, ReasonCode};
use crate::receipt::{AdmissionFacts, EventFacts};

/// What an event may measure: what the gate reads, and what the bus takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) input: canonical_envelope::Limits,
    pub(crate) envelope: EnvelopeLimits,
}

/// An event that may be admitted, unless it was before.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) key: AdmissionKey,
    pub(crate) payload_hash: [u8; 32],
    pub(crate) topic: Topic,
    pub(crate) envelope: EnvelopeRef,
    pub(crate) event: EventFacts,
    pub(crate) admission: AdmissionFacts,
    /// The input as it came, for the evidence should its payload contradict an earlier one.
    pub(crate) input: Bytes,
}

impl Candidate {
    /// The bytes that it keeps in memory: the input, and the canonical form where that is another text.
    pub(crate) fn held_bytes(&self) -> usize {
        let (input, canonical) = (self.input.as_ptr_range(), self.envelope.as_bytes().as_ptr_range());
        let shared = input.start <= canonical.start && canonical.end <= input.end;
        self.input.len() + if shared { 0 } else { self.envelope.len() }
    }
}

/// An input that is to be quarantined.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: ReasonCode,
    pub(crate) details: Vec<Detail>,
    pub(crate) event: EventFacts,
    pub(crate) input: Bytes,
    /// For a contradicted event: the receipt of the one that was admitted, and its payload hash.
    pub(crate) first: Option<AdmissionEntry>,
}

thread_local! {
    /// Working memory of the payload hash, kept from one event to the next.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How much working memory a thread keeps.
const KEPT_SCRATCH: usize = 64 << 10;

/// Decides what can be decided from the input alone, in the order of the design: envelope and its schema, class and
/// pins, payload schema policy, keys, canonical form.
pub(crate) fn decide(policy: &Policy, bounds: Bounds, input: &Bytes) -> Result<Candidate, Box<Refusal>> {
    let envelope = match Envelope::parse_with(input, bounds.input) {
        Ok(envelope) => envelope,
        Err(invalid) => return Err(refuse_invalid(invalid, input)),
    };
    let (class, profile) = policy.route(envelope.event_type());
    let event = EventFacts::of(&envelope, class);
    let refuse = |reason, details, event| {
        Err(Box::new(Refusal { reason, details, event, input: input.clone(), first: None }))
    };
    let mut missing = class.missing_pins(&envelope).peekable();
    if missing.peek().is_some() {
        let problem = format!("is required for class {}", class.name());
        let details = missing.map(|pin| Detail::new(pin.name(), problem.as_str())).collect();
        return refuse(ReasonCode::PinsMissing, details, event);
    }
    drop(missing);
    if let Err((reason, details)) = policy.schema_policy().check(&envelope) {
        return refuse(reason, details, event);
    }
    let Some(partition_key) = profile.partition_key(&envelope) else {
        let paths: Vec<_> =
            profile.key_precedence().iter().map(canonical_envelope::KeyPath::as_str).collect();
        let detail = Detail::new("$", format!("none of {} holds a value", paths.join(", ")));
        return refuse(ReasonCode::PartitionKeyMissing, vec![detail], event);
    };
    let canonical = match canonical_bytes(&envelope, input, bounds.envelope) {
        Ok(canonical) => canonical,
        Err(EnvelopeError::TooLarge { bytes, limit }) => {
            let detail =
                Detail::new("$", format!("{bytes} bytes in canonical form, the bus takes at most {limit}"));
            return refuse(ReasonCode::PayloadTooLarge, vec![detail], event);
        }
        Err(other) => {
            let detail = Detail::new("$", other.to_string());
            return refuse(ReasonCode::EnvelopeInvalid, vec![detail], event);
        }
    };
    let (key, payload_hash) = identify(&envelope);
    let admission = AdmissionFacts {
        profile_id: profile.id().to_owned(),
        partition_key,
        dedupe_key: canonical_envelope::DedupeKey::from_bytes(key.dedupe),
        payload_hash,
    };
    Ok(Candidate {
        key,
        payload_hash: *payload_hash.as_bytes(),
        topic: profile.stream().clone(),
        envelope: canonical,
        event,
        admission,
        input: input.clone(),
    })
}

/// What the index knows an event by, and its payload hash.
pub(crate) fn identify(envelope: &Envelope<'_>) -> (AdmissionKey, PayloadHash) {
    let payload_hash = SCRATCH.with_borrow_mut(|scratch| {
        let hash = envelope.payload_hash(scratch);
        if scratch.capacity() > KEPT_SCRATCH {
            *scratch = Vec::new();
        }
        hash
    });
    let key =
        AdmissionKey { event: event_prefix(envelope.event_id()), dedupe: *envelope.dedupe_key().as_bytes() };
    (key, payload_hash)
}

/// The entry that a record of the log stands for.
pub(crate) fn entry_of(envelope: &Envelope<'_>, eb_ref: EbRef) -> AdmissionEntry {
    let (key, payload_hash) = identify(envelope);
    AdmissionEntry { key, payload_hash: *payload_hash.as_bytes(), eb_ref }
}

/// What an event id is found by.
pub(crate) fn event_prefix(event_id: &str) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::digest(event_id.as_bytes()).into();
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&digest[..8]);
    prefix
}

/// The canonical form: the input itself where it is canonical already.
fn canonical_bytes(
    envelope: &Envelope<'_>,
    input: &Bytes,
    limits: EnvelopeLimits,
) -> Result<EnvelopeRef, EnvelopeError> {
    let bytes = if envelope.is_canonical() {
        input.slice_ref(envelope.as_written().as_bytes())
    } else {
        let mut canonical = Vec::with_capacity(input.len());
        envelope.write_canonical(&mut canonical);
        Bytes::from(canonical)
    };
    // The parser has just proven what the constructor would check once more.
    EnvelopeRef::from_canonical(bytes, limits)
}

fn refuse_invalid(invalid: InvalidEnvelope, input: &Bytes) -> Box<Refusal> {
    let (why, salvaged) = invalid.into_parts();
    let reason = match why {
        Reason::TooLarge { .. } => ReasonCode::PayloadTooLarge,
        _ => ReasonCode::EnvelopeInvalid,
    };
    let details = match &why {
        Reason::Violations(violations) => {
            violations.iter().map(|v| Detail::new(v.path(), v.fault().to_string())).collect()
        }
        other => vec![Detail::new("$", other.to_string())],
    };
    Box::new(Refusal {
        reason,
        details,
        event: EventFacts::salvaged(salvaged),
        input: input.clone(),
        first: None,
    })
}
