//! What the gate counts, through the `metrics` facade.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `ig_gate_admissions_total` | counter | `decision`, `reason` (`none` for ADMIT) |
//! | `ig_gate_errors_total` | counter | `code` |
//! | `ig_gate_publish_failures_total` | counter | `kind` (the contract's error code), `effect` |
//! | `ig_gate_phase_seconds` | histogram | `phase`: `decide`, `publish`, `index` (a reserve or a confirm), `evidence` |
//! | `ig_gate_in_flight` | gauge | |
//! | `ig_gate_index_lag_records` | gauge | |
//! | `ig_gate_unknown_outcomes` | gauge | |
//! | `ig_gate_head_offset` | gauge | `topic`, `partition`; kinds of offsets that count records only |
//!
//! Handles are taken when the gate opens: install the recorder before.

use std::time::Instant;

use eb_contract::{Effect, Error};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::error::GateError;
use crate::reason::ReasonCode;
use crate::receipt::{Decision, Receipt};

pub(crate) struct GateMetrics {
    admitted: Counter,
    duplicate: Counter,
    quarantined: Vec<(ReasonCode, Counter)>,
    pub(crate) decide: Histogram,
    pub(crate) publish: Histogram,
    pub(crate) index: Histogram,
    pub(crate) evidence: Histogram,
    pub(crate) in_flight: Gauge,
    pub(crate) lag: Gauge,
    pub(crate) unknown: Gauge,
}

impl GateMetrics {
    pub(crate) fn new() -> Self {
        describe_counter!("ig_gate_admissions_total", "inputs answered with a receipt");
        describe_counter!("ig_gate_errors_total", "inputs answered with an error");
        describe_counter!("ig_gate_publish_failures_total", "publishes that the bus did not ACK");
        describe_histogram!(
            "ig_gate_phase_seconds",
            metrics::Unit::Seconds,
            "time spent in a phase of an admission"
        );
        describe_gauge!("ig_gate_in_flight", "events being decided or blocked");
        describe_gauge!("ig_gate_index_lag_records", "records that the index's checkpoint is behind the log");
        describe_gauge!("ig_gate_unknown_outcomes", "events whose publish had no known outcome yet");
        describe_gauge!("ig_gate_head_offset", "offset of the last ACKed record");
        let of = |decision: Decision, reason: &'static str| counter!("ig_gate_admissions_total", "decision" => decision.as_str(), "reason" => reason);
        let phase = |phase: &'static str| histogram!("ig_gate_phase_seconds", "phase" => phase);
        Self {
            admitted: of(Decision::Admit, "none"),
            duplicate: of(Decision::Duplicate, ReasonCode::Duplicate.as_str()),
            quarantined: ReasonCode::ALL.map(|r| (r, of(Decision::Quarantine, r.as_str()))).to_vec(),
            decide: phase("decide"),
            publish: phase("publish"),
            index: phase("index"),
            evidence: phase("evidence"),
            in_flight: gauge!("ig_gate_in_flight"),
            lag: gauge!("ig_gate_index_lag_records"),
            unknown: gauge!("ig_gate_unknown_outcomes"),
        }
    }

    pub(crate) fn answered(&self, answer: &Result<Receipt, GateError>) {
        match answer {
            Ok(receipt) => match receipt.decision {
                Decision::Admit => self.admitted.increment(1),
                Decision::Duplicate => self.duplicate.increment(1),
                Decision::Quarantine => {
                    for reason in &receipt.reason_codes {
                        if let Some((_, counter)) = self.quarantined.iter().find(|(r, _)| r == reason) {
                            counter.increment(1);
                        }
                    }
                }
            },
            Err(error) => counter!("ig_gate_errors_total", "code" => error.code().as_str()).increment(1),
        }
    }

    pub(crate) fn publish_failed(&self, error: &Error) {
        let effect = match error.effect() {
            Effect::None => "none",
            Effect::Unknown => "unknown",
        };
        counter!("ig_gate_publish_failures_total", "kind" => error.kind().code(), "effect" => effect)
            .increment(1);
    }
}

/// Records the time since `start`, in seconds.
pub(crate) fn since(histogram: &Histogram, start: Instant) {
    histogram.record(start.elapsed().as_secs_f64());
}
