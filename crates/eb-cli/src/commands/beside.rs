//! What can be seen beside a gate that another process has open.
//!
//! An embedded admission index is one process's alone, so nobody else can ask it. The log and the quarantine can be read by anybody,
//! and the log is the ledger: what was admitted stands there. What only the index knows, which policy an event was
//! admitted under, is left out, and never guessed.

use std::collections::HashSet;

use canonical_envelope::{DedupeKey, Envelope, Limits};
use eb_contract::{
    ErrorKind, EventBusReader, Health, HealthCheck, HealthStatus, ReadLimit, ReadState, Record, StartAt,
};
use eb_profile::Platform;
use ig_gate::{Decision, Receipt, ReceiptId};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Global;
use crate::commands::open_reading;
use crate::failure::Failure;
use crate::ui::Ui;

/// What is looked for.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Event(String),
    Receipt(ReceiptId),
}

/// A receipt that was found.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Found {
    /// As it was given.
    Whole(Box<Receipt>),
    /// As far as the log tells.
    Told(Value),
}

/// The receipts, as far as log and quarantine tell. Those of quarantined events are whole.
pub(crate) async fn receipts(
    ui: &Ui,
    global: &Global,
    wanted: &Wanted,
    in_use: &Failure,
) -> Result<Vec<Found>, Failure> {
    let platform = open_reading(ui, global).await?;
    if let Wanted::Receipt(id) = wanted
        && let Some(whole) = quarantined(&platform, *id).await?
    {
        return Ok(vec![Found::Whole(Box::new(whole))]);
    }
    ui.note(&format!(
        "{}: this is what the log tells; which policy an event was admitted under, its class and pins are known to that process alone",
        in_use.what()
    ));
    let found = in_log(&*platform.reader(), wanted).await;
    platform.close().await?;
    Ok(found?.into_iter().map(Found::Told).collect())
}

async fn quarantined(platform: &Platform, id: ReceiptId) -> Result<Option<Receipt>, Failure> {
    let stored = match platform.quarantine().await {
        Ok(quarantine) => quarantine.get(id).await,
        Err(e) => return if is_missing(&e) { Ok(None) } else { Err(e.into()) },
    };
    match stored {
        Ok(stored) => Ok(stored.map(|stored| stored.receipt)),
        Err(e) if *e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn is_missing(e: &eb_profile::OpenError) -> bool {
    matches!(e, eb_profile::OpenError::Bus(e) if *e.kind() == ErrorKind::NotFound)
}

/// The first record of each event that is wanted.
async fn in_log(reader: &dyn EventBusReader, wanted: &Wanted) -> Result<Vec<Value>, Failure> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for topic in reader.topics().await? {
        for partition in reader.partitions(&topic).await?.partitions {
            let mut cursor = reader.cursor(&topic, partition.id, StartAt::Earliest).await?;
            loop {
                let batch = cursor.next(ReadLimit::default()).await?;
                for record in &batch.records {
                    if let Some((key, receipt)) = told_by(record, wanted)
                        && seen.insert(key)
                    {
                        found.push(receipt);
                    }
                }
                if batch.state != ReadState::More {
                    break;
                }
                // A log is longer than what one turn on a runtime's thread should take.
                tokio::task::yield_now().await;
            }
        }
    }
    Ok(found)
}

/// What a record tells of the receipt of its event, if that is wanted. What no gate has admitted has none.
fn told_by(record: &Record, wanted: &Wanted) -> Option<(DedupeKey, Value)> {
    let limits = Limits::new(Limits::MAX_BYTES, Limits::MAX_DEPTH);
    let envelope = Envelope::parse_with(record.envelope.as_bytes(), limits).ok()?;
    if matches!(wanted, Wanted::Event(id) if id != envelope.event_id()) {
        return None;
    }
    let dedupe_key = envelope.dedupe_key();
    let payload_hash = envelope.payload_hash(&mut Vec::new());
    let id = |decision| ReceiptId::of_event(decision, &dedupe_key, &payload_hash);
    let decision = match wanted {
        Wanted::Event(_) => Decision::Admit,
        Wanted::Receipt(wanted) => {
            [Decision::Admit, Decision::Duplicate].into_iter().find(|decision| id(*decision) == *wanted)?
        }
    };
    let receipt = json!({
        "receipt_id": id(decision),
        "decision": decision,
        "event_id": envelope.event_id(),
        "event_type": envelope.event_type(),
        "ts_utc": envelope.ts_utc(),
        "manifest_fingerprint": envelope.manifest_fingerprint(),
        "policy_rev": null,
        "eb_ref": record.eb_ref,
        "partition_key": record.partition_key,
        "dedupe_key": dedupe_key,
        "payload_hash": {"algo": "sha256", "hex": payload_hash},
        "admitted_at_utc": record.eb_ref.published_at_utc,
        "reason_codes": if decision == Decision::Duplicate { vec!["DUPLICATE"] } else { Vec::new() },
    });
    Some((dedupe_key, receipt))
}

/// How bus and quarantine are to a reader.
pub(crate) async fn health(ui: &Ui, global: &Global, in_use: &Failure) -> Result<Health, Failure> {
    let platform = open_reading(ui, global).await?;
    let check = |name: String, looked: Result<String, eb_contract::Error>| match looked {
        Ok(detail) => HealthCheck { name, status: HealthStatus::Ready, detail },
        Err(e) => HealthCheck { name, status: HealthStatus::Failing, detail: e.to_string() },
    };
    let mut checks = vec![HealthCheck {
        name: "gate".to_owned(),
        status: HealthStatus::Degraded,
        detail: format!("{}: whether it admits is known to that process alone", in_use.what()),
    }];
    let reader = platform.reader();
    for topic in reader.topics().await? {
        let looked = heads(&*reader, &topic).await;
        checks.push(check(format!("bus {topic}"), looked));
    }
    let quarantine = match platform.quarantine().await {
        Ok(quarantine) => quarantine.list(None, 1).await.map(|_| "it can be read".to_owned()),
        Err(e) if is_missing(&e) => Ok("nothing was quarantined yet".to_owned()),
        Err(eb_profile::OpenError::Bus(e)) => Err(e),
        Err(e) => return Err(e.into()),
    };
    checks.push(check("quarantine".to_owned(), quarantine));
    platform.close().await?;
    let status = checks.iter().map(|c| c.status).max().unwrap_or(HealthStatus::Ready);
    Ok(Health { status, checks })
}

async fn heads(reader: &dyn EventBusReader, topic: &eb_contract::Topic) -> eb_contract::Result<String> {
    let partitions = reader.partitions(topic).await?.partitions;
    for partition in &partitions {
        reader.head(topic, partition.id).await?;
    }
    Ok(format!("{} partitions can be read", partitions.len()))
}
