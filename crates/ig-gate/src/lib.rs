//! The ingestion gate: the only way for an event into the bus.
//!
//! # What it does with an input
//! ```text
//! bytes ─► envelope and its schema ─► class and required pins ─► payload schema policy ─► partition key
//!       ─► dedupe (in flight, then index) ─► publish ─► index ─► receipt
//! ```
//! The first step that fails decides. The canonical form is made once, and what is published is what readers get. The
//! partition key is chosen before the dedupe look-up, because the event's place among those of its key is fixed in the
//! call; an event without one is refused before anything is asked, so the answers are the same.
//!
//! | answer | means |
//! |---|---|
//! | [`Decision::Admit`] | the event is durable in the log at `eb_ref`, and this call put it there |
//! | [`Decision::Duplicate`] | it was admitted before, at `eb_ref` |
//! | [`Decision::Quarantine`] | it was refused; the evidence was durable before the receipt was given |
//! | [`GateError`] | no answer: send it again where the error allows it. Never a receipt |
//!
//! # The log is the admission ledger
//! The dedupe index is a view of the log. Opening checks the one against the other and reads what the index lacks, so
//! a crash between append and index write neither admits twice nor forgets. An event whose publish had an unknown outcome
//! is looked for in the log before its key may be decided again. "Admitted once" means one `eb_ref` in receipts for one
//! event; after an unknown outcome the log may hold a copy.
//!
//! # Several gates on one log
//! They share an index, in which a key is reserved, with cuts of the log, before its event is published. An event that
//! another gate has reserved waits, holds no room, and holds up later events of its partition key alone.
//!
//! | the other gate | then |
//! |---|---|
//! | confirms | DUPLICATE, with its place |
//! | fails without effect | the key is reserved here |
//! | is slow, and alive | it renews its reservation, and the event waits; after [`unknown_deadline`](GateConfig::unknown_deadline) the answer is `PUBLISH_OUTCOME_UNKNOWN` |
//! | is silent past its lease | the log is read from the reservation's cuts, beside all other admissions. Found: DUPLICATE. Not found: the next look comes later, and once `unknown_deadline` has passed since it was reserved or last renewed, the key is reserved here and the event published |
//! | was merely cut off from the index, and its publish lands after that | the log holds a copy; that gate is told what stands, and answers DUPLICATE |
//! | is dead, and nobody sends its events again | every gate looks after reservations older than the deadline, twice in each such time |
//!
//! The place that receipts name never moves: `confirm` and `apply` of the index leave what stands and tell it (see
//! [`eb_contract::stores`]). A duplicate whose first lies on a stream that today's policy would not choose names that
//! one's key, which is read from the log.
//!
//! # Order, duplicates, cancellation
//! - Two calls of [`Gate::admit`] made one after the other publish in that order where their partition keys are equal.
//! - A duplicate of an event in flight waits for its outcome: DUPLICATE if it was admitted, QUARANTINE if it was admitted
//!   with another payload, and the same error if it failed.
//! - The bytes of duplicates that wait count towards [`max_waiting_bytes`](GateConfig::max_waiting_bytes).
//! - Dropping an [`Admission`] does not withdraw the event.
//!
//! # Failures
//! | what | answer | then |
//! |---|---|---|
//! | the bus refuses, without effect | `EB_UNAVAILABLE`, `EB_THROTTLED` | the key is free at once |
//! | a publish with an unknown outcome | `PUBLISH_OUTCOME_UNKNOWN` | the key is blocked until the log has told |
//! | the index cannot answer | `INDEX_UNAVAILABLE` | nothing was published |
//! | the index does not take an ACKed event | ADMIT | the gate answers for the key itself, and tries again |
//! | the evidence cannot be stored | `EVIDENCE_UNAVAILABLE` | no receipt cites what is not there |
//! | the index's checkpoint falls behind by its `max_lag` | `GATE_UNHEALTHY` | admits again once it has caught up |
//! | closed | `GATE_CLOSED` | |
//!
//! # Example
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::sync::Arc;
//!
//! use eb_contract::{EventBusAdmin, Topic};
//! use eb_memory::{MemoryAdmissionIndex, MemoryBus};
//! use ig_gate::policy::{PolicyFile, PolicyFiles};
//! use ig_gate::{Decision, Gate, GateConfig, GateParts, LogQuarantine, Policy};
//!
//! let file = |name, text: &'static str| PolicyFile { name, bytes: text.as_bytes() };
//! let policy = Policy::load(
//!     PolicyFiles {
//!         policy_id: "example",
//!         revision: "1",
//!         partitioning: file("partitioning.yaml", "version: v0
//! profiles:
//!   example.traffic: {stream: orders, key_precedence: [payload.merchant_id, event_id], hash_algo: sha256}"),
//!         class_map: file("classes.yaml", "{version: v0, classes: {traffic: {required_pins: []}}, event_types: {}}"),
//!         schema_policy: file("schemas.yaml", "{version: v0, default_action: admit, policies: []}"),
//!     },
//!     &|path| Err(format!("no payload schemas here, not even {path}")),
//! )?;
//!
//! let (bus, evidence) = (MemoryBus::new(), MemoryBus::new());
//! bus.admin().create_topic(&Topic::new("orders")?, 1).await?;
//! let kept = Topic::new("ig.quarantine.v1")?;
//! evidence.admin().create_topic(&kept, 1).await?;
//! let (writer, reader) = (Arc::new(evidence.publisher()), Arc::new(evidence.reader()));
//! let quarantine = LogQuarantine::new(writer, reader, kept, LogQuarantine::DEFAULT_PREFIX_BYTES);
//! let gate = Gate::open(GateParts {
//!     publisher: Arc::new(bus.publisher()),
//!     reader: Arc::new(bus.reader()),
//!     index: Arc::new(MemoryAdmissionIndex::new()),
//!     quarantine: Arc::new(quarantine),
//!     policy,
//!     config: GateConfig::default(),
//! })
//! .await?;
//!
//! let event = format!(
//!     r#"{{"event_id":"o-1","event_type":"order.placed","ts_utc":"2026-01-29T10:00:00.000001Z",
//!         "manifest_fingerprint":"{}","payload":{{"merchant_id":"m-1"}}}}"#,
//!     "0".repeat(64)
//! );
//! let receipt = gate.admit(event.clone()).await?;
//! assert_eq!((receipt.decision, receipt.eb_ref.unwrap().to_string().as_str()), (Decision::Admit, "orders/0@0"));
//! assert_eq!(gate.admit(event).await?.decision, Decision::Duplicate);
//! assert_eq!(gate.admit("junk").await?.decision, Decision::Quarantine);
//! gate.close().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # What an admission costs
//! `cargo run --release -p ig-gate --example admission_work` on one of two shared cores, with an index in memory and a bus
//! that ACKs at once: 5.2 µs for each event of 600 B (190,000 a second), 7.8 µs at 761 B (128,000), three times what
//! reading the event into a `serde_json::Value` takes. By the profile at 761 B: parsing and envelope schema 25 %, payload
//! schema 10 %, hashes 9 %, the index in memory 16 %, allocation spread over all of these 18 %, clocks 3 %.
//!
//! # Where things are
//! `admission` (one input from call to answer), `inflight` (keys being decided), `sequencer` (events that wait for their
//! turn), `reconcile` and `takeover` (unknown outcomes), `renewal` (leases), `checkpoint` and `progress` (how far index and log are), `recovery`
//! (opening), `room` (bytes that wait), `quarantine`, `policy`, `receipt`, `lookup`, `health`, `metrics`.

mod admission;
mod checkpoint;
mod config;
mod core;
mod error;
mod gate;
mod health;
mod inflight;
mod lookup;
mod metrics;
pub mod policy;
mod progress;
pub mod quarantine;
mod reason;
mod receipt;
mod reconcile;
mod recovery;
mod renewal;
mod room;
mod scan;
mod sequencer;
mod takeover;
pub mod yaml;

pub use admission::Admission;
pub use config::GateConfig;
pub use eb_contract::{Health, HealthCheck, HealthStatus};
pub use error::{GateError, GateErrorCode};
pub use gate::{Gate, GateParts};
pub use policy::Policy;
pub use quarantine::{LogQuarantine, QuarantineStore};
pub use reason::{Detail, ReasonCode};
pub use receipt::{
    Decision, DigestAlgo, EvidenceKind, EvidenceRef, InvalidReceiptId, PayloadDigest, Pins, Receipt,
    ReceiptId,
};
