//! `eb receipt`

use ig_gate::{Decision, Receipt};

use crate::args::{self, Global};
use crate::commands::beside::{self, Found, Wanted};
use crate::commands::{open, open_gate};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::{self, Ui};

pub(crate) async fn run(ui: &mut Ui, global: &Global, args: &args::Receipt) -> Outcome {
    let wanted = match (&args.receipt_id, &args.event_id) {
        (Some(id), _) => {
            Wanted::Receipt(id.parse().map_err(|e| Failure::usage(format!("--receipt-id: {e}")))?)
        }
        (None, Some(id)) => Wanted::Event(id.clone()),
        (None, None) => return Err(Failure::usage("give --event-id or --receipt-id")),
    };
    let found = match of_gate(ui, global, &wanted).await {
        Err(e) if e.is_in_use() => beside::receipts(ui, global, &wanted, &e).await?,
        found => found?,
    };
    if found.is_empty() {
        return Err(Failure::failed("not_found", "there is no such receipt")
            .advise("an event that was quarantined is found by its --receipt-id only"));
    }
    for receipt in &found {
        if ui.is_json() {
            ui.json(receipt)?;
        } else {
            in_full(ui, receipt)?;
        }
    }
    Ok(Exit::Done)
}

/// Asks the gate, which no other process must have open.
async fn of_gate(ui: &Ui, global: &Global, wanted: &Wanted) -> Result<Vec<Found>, Failure> {
    let platform = open(ui, global).await?;
    let gate = open_gate(ui, &platform).await?;
    let found = match wanted {
        Wanted::Receipt(id) => Vec::from_iter(gate.receipt_by_receipt_id(*id).await?),
        Wanted::Event(id) => gate.receipt_by_event_id(id).await?,
    };
    platform.close().await?;
    Ok(found.into_iter().map(|receipt| Found::Whole(Box::new(receipt))).collect())
}

/// A receipt as one line.
pub(crate) fn for_people(ui: &mut Ui, receipt: &Receipt) -> Result<(), Failure> {
    let style = match receipt.decision {
        Decision::Admit => ui::GOOD,
        Decision::Duplicate => ui::WARN,
        Decision::Quarantine => ui::BAD,
    };
    let decision = ui.style(style, &format!("{:<10}", receipt.decision));
    let place = match &receipt.eb_ref {
        Some(eb_ref) => eb_ref.to_string(),
        None => receipt.reason_codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    let of = |text: &Option<String>| ui::visible(text.as_deref().unwrap_or("-"));
    let event = format!("{} {}", of(&receipt.event_type), of(&receipt.event_id));
    let id = ui.style(ui::FAINT, &receipt.receipt_id.to_string());
    ui.line(&format!("{decision} {place}  {event}  {id}"))
}

/// A receipt as a table.
fn in_full(ui: &mut Ui, receipt: &Found) -> Result<(), Failure> {
    let fields = serde_json::to_value(receipt)
        .map_err(|e| Failure::failed("output", format!("cannot write the receipt: {e}")))?;
    let rows: Vec<_> = fields
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            vec![name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]
        })
        .collect();
    ui.table(&["FIELD", "VALUE"], &rows)
}
