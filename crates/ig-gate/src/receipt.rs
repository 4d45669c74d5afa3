//! What the gate answers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use canonical_envelope::{DedupeKey, Envelope, Field, PayloadHash, Salvaged};
use eb_contract::stores::PolicyRev;
use eb_contract::{EbRef, PartitionKey, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::policy::Class;
use crate::reason::ReasonCode;

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Decision {
    /// The event is in the log, durable, and this call put it there.
    Admit,
    /// The event was in the log already.
    Duplicate,
    /// The event was set aside with durable evidence; it is not in the log.
    Quarantine,
}

impl Decision {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "ADMIT",
            Self::Duplicate => "DUPLICATE",
            Self::Quarantine => "QUARANTINE",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The name of a receipt: 32 lower-case hexadecimal digits, the first half of a SHA-256 over
///
/// - ADMIT and DUPLICATE: `"ig.receipt.v1" ‖ 0 ‖ decision ‖ 0 ‖ dedupe key (32 bytes) ‖ payload hash (32 bytes)`;
/// - QUARANTINE: `"ig.receipt.v1" ‖ 0 ‖ "QUARANTINE" ‖ 0 ‖ SHA-256 of the input's bytes ‖ each reason code followed
///   by 0`.
///
/// So the same event gives the same receipt id again, and two inputs that differ never share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiptId([u8; 16]);

/// Text that is not 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a receipt id is written as 32 lower-case hexadecimal digits")]
pub struct InvalidReceiptId;

impl ReceiptId {
    /// The id of the receipt for an admitted event, or for a duplicate of it.
    #[must_use]
    pub fn of_event(decision: Decision, dedupe_key: &DedupeKey, payload_hash: &PayloadHash) -> Self {
        let mut digest = Self::start(decision);
        digest.update(dedupe_key.as_bytes());
        digest.update(payload_hash.as_bytes());
        Self::finish(digest)
    }

    /// The id of the receipt for a quarantined input.
    #[must_use]
    pub fn of_input(input_sha256: &[u8; 32], reasons: &[ReasonCode]) -> Self {
        let mut digest = Self::start(Decision::Quarantine);
        digest.update(input_sha256);
        for reason in reasons {
            digest.update(reason.as_str());
            digest.update([0]);
        }
        Self::finish(digest)
    }

    fn start(decision: Decision) -> Sha256 {
        let mut digest = Sha256::new();
        digest.update(b"ig.receipt.v1\0");
        digest.update(decision.as_str());
        digest.update([0]);
        digest
    }

    fn finish(digest: Sha256) -> Self {
        let full: [u8; 32] = digest.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&full[..16]);
        Self(half)
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ReceiptId {
    type Err = InvalidReceiptId;
    fn from_str(text: &str) -> Result<Self, InvalidReceiptId> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidReceiptId);
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| InvalidReceiptId)?;
        Ok(Self(value.to_be_bytes()))
    }
}

impl Serialize for ReceiptId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReceiptId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The payload's digest with the name of its algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadDigest {
    /// Always SHA-256.
    pub algo: DigestAlgo,
    /// The digest.
    pub hex: PayloadHash,
}

/// How a digest was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestAlgo {
    /// SHA-256.
    Sha256,
}

/// Where the evidence for a quarantine lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRef {
    /// What is referred to.
    pub kind: EvidenceKind,
    /// `quarantine_record`: `<topic>/<partition>@<offset>` in the quarantine's own log. `receipt_ref`: the receipt
    /// id of the event that was admitted first under the same identity.
    #[serde(rename = "ref")]
    pub reference: String,
    /// SHA-256 hex. `quarantine_record`: over the record's bytes. `receipt_ref`: the payload hash of that event.
    pub digest: String,
}

/// What an [`EvidenceRef`] refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// A record of the quarantine store.
    QuarantineRecord,
    /// Another receipt.
    ReceiptRef,
}

/// The longest value of a pin that a QUARANTINE receipt repeats.
const MAX_QUARANTINED_PIN_BYTES: usize = 512;

/// The pins of an event: those fields that its class requires, with their values as written.
#[derive(Clone, PartialEq, Eq)]
pub struct Pins(String);

impl Pins {
    pub(crate) fn of(class: &Class, envelope: &Envelope<'_>) -> Self {
        let mut text = String::with_capacity(288);
        text.push('{');
        for pin in class.required_pins() {
            if let Some(raw) = envelope.raw(*pin) {
                if text.len() > 1 {
                    text.push(',');
                }
                text.push('"');
                text.push_str(pin.name());
                text.push_str("\":");
                text.push_str(raw);
            }
        }
        text.push('}');
        Self(text)
    }

    /// Without those whose values are long: a receipt of evidence lies beside the input, and must fit there.
    fn short_ones(self) -> Self {
        if self.0.len() <= MAX_QUARANTINED_PIN_BYTES {
            return self;
        }
        let Ok(mut pins) = serde_json::from_str::<BTreeMap<&str, &RawValue>>(&self.0) else {
            return Self("{}".to_owned());
        };
        pins.retain(|_, value| value.get().len() <= MAX_QUARANTINED_PIN_BYTES);
        let members: Vec<_> = pins.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Self(format!("{{{}}}", members.join(",")))
    }

    /// One JSON object.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Pins {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Pins {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(d)?;
        if !raw.get().starts_with('{') {
            return Err(serde::de::Error::custom("pins must be an object"));
        }
        Ok(Self(Box::<str>::from(raw).into_string()))
    }
}

/// What the gate answers for one input. JSON: `config/schemas/ingestion_receipt.schema.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Its name.
    pub receipt_id: ReceiptId,
    /// What was decided.
    pub decision: Decision,
    /// From the envelope; `None` where the input had none that is valid.
    pub event_id: Option<String>,
    /// From the envelope; `None` where the input had none that is valid.
    pub event_type: Option<String>,
    /// From the envelope; `None` where the input had none that is valid.
    pub ts_utc: Option<String>,
    /// From the envelope; `None` where the input had none that is valid.
    pub manifest_fingerprint: Option<String>,
    /// The policy that was decided by.
    #[serde(with = "shared")]
    pub policy_rev: Arc<PolicyRev>,
    /// Where the event lies; for a duplicate, where the first one lies. Not for QUARANTINE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eb_ref: Option<EbRef>,
    /// The profile that chose stream and key. Not for QUARANTINE, nor for a duplicate whose first lies on a stream that
    /// no profile of the policy publishes to any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitioning_profile_id: Option<String>,
    /// The key that it chose. Not for QUARANTINE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_key: Option<PartitionKey>,
    /// What makes the event the same event. Not for QUARANTINE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<DedupeKey>,
    /// What makes it say the same. Not for QUARANTINE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_hash: Option<PayloadDigest>,
    /// The record's `published_at_utc`. Not for QUARANTINE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted_at_utc: Option<Timestamp>,
    /// QUARANTINE: at least one. DUPLICATE: [`ReasonCode::Duplicate`]. ADMIT: none.
    pub reason_codes: Vec<ReasonCode>,
    /// QUARANTINE: at least one, durable before the receipt was given. Otherwise left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence_refs: Vec<EvidenceRef>,
    /// From the envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
    /// From the envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// The event's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The pins that the class requires, as far as the envelope has them. QUARANTINE: without those whose values have
    /// more than 512 bytes; the evidence has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<Pins>,
}

mod shared {
    use super::{Arc, Deserialize, Deserializer, PolicyRev, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(rev: &Arc<PolicyRev>, s: S) -> Result<S::Ok, S::Error> {
        rev.as_ref().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Arc<PolicyRev>, D::Error> {
        PolicyRev::deserialize(d).map(Arc::new)
    }
}

/// What a receipt says of its event, before anything is decided.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventFacts {
    pub(crate) event_id: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) ts_utc: Option<String>,
    pub(crate) manifest_fingerprint: Option<String>,
    pub(crate) schema_version: Option<String>,
    pub(crate) producer: Option<String>,
    pub(crate) class: Option<String>,
    pub(crate) pins: Option<Pins>,
}

impl EventFacts {
    pub(crate) fn of(envelope: &Envelope<'_>, class: &Class) -> Self {
        let own = |field| envelope.text(field).map(str::to_owned);
        Self {
            event_id: own(Field::EventId),
            event_type: own(Field::EventType),
            ts_utc: own(Field::TsUtc),
            manifest_fingerprint: own(Field::ManifestFingerprint),
            schema_version: own(Field::SchemaVersion),
            producer: own(Field::Producer),
            class: Some(class.name().to_owned()),
            pins: Some(Pins::of(class, envelope)),
        }
    }

    pub(crate) fn salvaged(salvaged: Salvaged) -> Self {
        let Salvaged { event_id, event_type, ts_utc, manifest_fingerprint } = salvaged;
        Self { event_id, event_type, ts_utc, manifest_fingerprint, ..Self::default() }
    }
}

/// What an ADMIT or DUPLICATE receipt says of its admission.
#[derive(Debug, Clone)]
pub(crate) struct AdmissionFacts {
    pub(crate) profile_id: String,
    pub(crate) partition_key: PartitionKey,
    pub(crate) dedupe_key: DedupeKey,
    pub(crate) payload_hash: PayloadHash,
}

impl Receipt {
    pub(crate) fn admitted(
        decision: Decision,
        event: EventFacts,
        admission: AdmissionFacts,
        eb_ref: EbRef,
        policy_rev: Arc<PolicyRev>,
    ) -> Self {
        let AdmissionFacts { profile_id, partition_key, dedupe_key, payload_hash } = admission;
        let reason_codes =
            if decision == Decision::Duplicate { vec![ReasonCode::Duplicate] } else { Vec::new() };
        Self {
            partitioning_profile_id: Some(profile_id),
            partition_key: Some(partition_key),
            dedupe_key: Some(dedupe_key),
            payload_hash: Some(PayloadDigest { algo: DigestAlgo::Sha256, hex: payload_hash }),
            admitted_at_utc: Some(eb_ref.published_at_utc),
            eb_ref: Some(eb_ref),
            reason_codes,
            ..Self::bare(
                ReceiptId::of_event(decision, &dedupe_key, &payload_hash),
                decision,
                event,
                policy_rev,
            )
        }
    }

    pub(crate) fn quarantined(
        input_sha256: &[u8; 32],
        reason: ReasonCode,
        event: EventFacts,
        policy_rev: Arc<PolicyRev>,
    ) -> Self {
        let reason_codes = vec![reason];
        let id = ReceiptId::of_input(input_sha256, &reason_codes);
        let event = EventFacts { pins: event.pins.map(Pins::short_ones), ..event };
        Self { reason_codes, ..Self::bare(id, Decision::Quarantine, event, policy_rev) }
    }

    fn bare(
        receipt_id: ReceiptId,
        decision: Decision,
        event: EventFacts,
        policy_rev: Arc<PolicyRev>,
    ) -> Self {
        Self {
            receipt_id,
            decision,
            event_id: event.event_id,
            event_type: event.event_type,
            ts_utc: event.ts_utc,
            manifest_fingerprint: event.manifest_fingerprint,
            policy_rev,
            eb_ref: None,
            partitioning_profile_id: None,
            partition_key: None,
            dedupe_key: None,
            payload_hash: None,
            admitted_at_utc: None,
            reason_codes: Vec::new(),
            evidence_refs: Vec::new(),
            schema_version: event.schema_version,
            producer: event.producer,
            class: event.class,
            pins: event.pins,
        }
    }
}
