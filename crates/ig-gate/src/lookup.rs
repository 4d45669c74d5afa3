//! Receipts that were given, made again from the index, the log, the policy history and the quarantine.

use std::sync::Arc;

use canonical_envelope::{DedupeKey, PayloadHash};
use eb_contract::stores::{AdmissionEntry, PolicyEpoch, PolicyRev};
use eb_contract::{Cut, EbRef, Error, ErrorKind, EventBusReaderExt, Record, Result, StartAt};

use crate::admission::{event_prefix, identify};
use crate::core::Core;
use crate::receipt::{AdmissionFacts, Decision, EventFacts, Receipt, ReceiptId};
use crate::scan::envelope_of;

const OP: &str = "look up receipt";
/// How many entries of the index are looked at in one go.
const PAGE: usize = 1000;

pub(crate) async fn by_event_id(core: &Core, event_id: &str) -> Result<Vec<Receipt>> {
    let mut receipts = Vec::new();
    for entry in core.index.find_event(event_prefix(event_id)).await? {
        let receipt = rebuild(core, &entry, Decision::Admit).await?;
        // The index knows ids by a prefix of their digest alone.
        if receipt.event_id.as_deref() == Some(event_id) {
            receipts.push(receipt);
        }
    }
    Ok(receipts)
}

pub(crate) async fn by_receipt_id(core: &Core, wanted: ReceiptId) -> Result<Option<Receipt>> {
    if let Some(stored) = core.quarantine.get(wanted).await? {
        return Ok(Some(stored.receipt));
    }
    let mut after = None;
    loop {
        let page = core.index.scan(after, PAGE).await?;
        for entry in &page {
            let dedupe = DedupeKey::from_bytes(entry.key.dedupe);
            let payload = PayloadHash::from_bytes(entry.payload_hash);
            let decision = [Decision::Admit, Decision::Duplicate]
                .into_iter()
                .find(|decision| ReceiptId::of_event(*decision, &dedupe, &payload) == wanted);
            if let Some(decision) = decision {
                return rebuild(core, entry, decision).await.map(Some);
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.key),
            _ => return Ok(None),
        }
        tokio::task::yield_now().await;
    }
}

/// The receipt of an admitted event.
async fn rebuild(core: &Core, entry: &AdmissionEntry, decision: Decision) -> Result<Receipt> {
    let record = record_at(core, &entry.eb_ref).await?;
    let envelope = envelope_of(&record)?;
    let (key, payload_hash) = identify(&envelope);
    if key != entry.key || *payload_hash.as_bytes() != entry.payload_hash {
        return Err(Error::new(
            ErrorKind::FactsMissing,
            OP,
            "the log holds another event there than the index says",
        )
        .at(&entry.eb_ref)
        .advise("check the log; if it is whole, move the index away and open the gate again"));
    }
    let rev = policy_of(core, &record.eb_ref).await?;
    let (class, routed) = core.policy.route(envelope.event_type());
    let profile = if routed.stream() == &record.eb_ref.topic {
        routed
    } else {
        core.policy.partitioning().for_stream(&record.eb_ref.topic).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                OP,
                "no partitioning profile of the present policy publishes to this stream",
            )
            .at(&record.eb_ref)
        })?
    };
    let mut event = EventFacts::of(&envelope, class);
    if rev != *core.rev {
        // What class it had under another policy is not recorded.
        event.class = None;
        event.pins = None;
    }
    let admission = AdmissionFacts {
        profile_id: profile.id().to_owned(),
        partition_key: record.partition_key.clone(),
        dedupe_key: DedupeKey::from_bytes(key.dedupe),
        payload_hash,
    };
    Ok(Receipt::admitted(decision, event, admission, record.eb_ref.clone(), Arc::new(rev)))
}

pub(crate) async fn record_at(core: &Core, eb_ref: &EbRef) -> Result<Record> {
    let at = StartAt::Cut(Cut::Next(eb_ref.offset));
    let batch = core.reader.read(&eb_ref.topic, eb_ref.partition_id, at, 1).await?;
    batch.records.into_iter().next().filter(|r| r.eb_ref == *eb_ref).ok_or_else(|| {
        Error::new(ErrorKind::FactsMissing, OP, "the index names a record that the log does not hold")
            .at(eb_ref)
            .advise("check the log")
    })
}

/// The policy that a record was admitted under.
async fn policy_of(core: &Core, eb_ref: &EbRef) -> Result<PolicyRev> {
    let history = core.index.policy_history().await?;
    let in_force = |epoch: &&PolicyEpoch| {
        let cut = epoch.cuts.iter().find(|(t, p, _)| *t == eb_ref.topic && *p == eb_ref.partition_id);
        match cut {
            Some((_, _, cut)) => cut.is_before(&eb_ref.offset).unwrap_or(false),
            // A partition that came later: go by time.
            None => epoch.since <= eb_ref.published_at_utc,
        }
    };
    let found = history.iter().rev().find(in_force).or(history.first());
    found.map(|epoch| epoch.policy.clone()).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, OP, "the index has no policy history")
            .advise("open the gate on it once")
    })
}
