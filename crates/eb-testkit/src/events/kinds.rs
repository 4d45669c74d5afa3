//! Which events there are.

use crate::Rng;

/// The class of an event, which decides its stream, its partition key and the pins that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Needs `manifest_fingerprint`, `parameter_hash`, `seed`, `scenario_id`, `run_id`. Key: `payload.merchant_id`,
    /// then `event_id`.
    Traffic,
    /// Needs `manifest_fingerprint`, `run_id`. Key: `run_id`.
    Control,
    /// Needs `manifest_fingerprint`. Key: `event_id`.
    Audit,
}

impl Class {
    /// As configurations write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Control => "control",
            Self::Audit => "audit",
        }
    }

    /// The pins that an event of this class must have, by the default configuration.
    #[must_use]
    pub fn required_pins(self) -> &'static [&'static str] {
        match self {
            Self::Traffic => &["manifest_fingerprint", "parameter_hash", "seed", "scenario_id", "run_id"],
            Self::Control => &["manifest_fingerprint", "run_id"],
            Self::Audit => &["manifest_fingerprint"],
        }
    }
}

/// A type of event.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct EventType {
    /// `<domain>.<resource>.<past-tense>`.
    pub name: &'static str,
    /// Its class; the default class map must say the same.
    pub class: Class,
    /// The version of its payload's schema.
    pub schema_version: &'static str,
    /// Who emits it.
    pub producer: &'static str,
    /// The module that emits it.
    pub source_module: &'static str,
    /// How often it comes, in thousandths of the ordinary events.
    pub(super) share: u64,
}

const fn event(
    name: &'static str,
    class: Class,
    producer: &'static str,
    source_module: &'static str,
    share: u64,
) -> EventType {
    EventType { name, class, schema_version: "1.0.0", producer, source_module, share }
}

/// All types that are generated.
pub const CATALOGUE: &[EventType] = &[
    event("card.transaction.authorised", Class::Traffic, "wsp", "wsp.cards.authorisation", 420),
    event("card.transaction.declined", Class::Traffic, "wsp", "wsp.cards.authorisation", 110),
    event("card.transaction.settled", Class::Traffic, "wsp", "wsp.cards.settlement", 160),
    event("card.refund.issued", Class::Traffic, "wsp", "wsp.cards.refunds", 50),
    event("merchant.account.onboarded", Class::Traffic, "wsp", "wsp.merchants", 20),
    event("device.session.opened", Class::Traffic, "wsp", "wsp.devices", 80),
    event("device.session.closed", Class::Traffic, "wsp", "wsp.devices", 60),
    event("customer.account.updated", Class::Traffic, "wsp", "wsp.customers", 60),
    event("platform.run.started", Class::Control, "scenario-runner", "sr.lifecycle", 5),
    event("platform.run.completed", Class::Control, "scenario-runner", "sr.lifecycle", 5),
    event("scenario.run.checkpointed", Class::Control, "scenario-runner", "sr.progress", 10),
    event("audit.access.granted", Class::Audit, "ops-console", "ops.access", 12),
    event("audit.policy.changed", Class::Audit, "ops-console", "ops.policy", 8),
    event("merchant.statement.issued", Class::Traffic, "wsp", "wsp.merchants.statements", 0),
];

/// One of the ordinary types, by their shares.
pub(super) fn choose(rng: &mut Rng) -> &'static EventType {
    let mut draw = rng.range(0..CATALOGUE.iter().map(|event| event.share).sum());
    for event in CATALOGUE {
        match draw.checked_sub(event.share) {
            Some(rest) => draw = rest,
            None => return event,
        }
    }
    &CATALOGUE[0]
}

/// The type whose payloads are large.
pub(super) fn large() -> &'static EventType {
    &CATALOGUE[CATALOGUE.len() - 1]
}
