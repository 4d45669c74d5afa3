//! `eb dlq`

use std::sync::Arc;

use eb_consumer::{EventConsumer, Retried};
use eb_contract::ErrorKind;
use eb_contract::stores::{DeadLetter, DeadLetterFilter, DeadLetterId, Resolution};
use eb_profile::Consumers;
use serde_json::{Value, json};

use crate::args::Global;
use crate::args::consume::{Dlq, Exec, Which};
use crate::commands::subscribe::exec::{Runner, Running};
use crate::failure::{Exit, Failure, Outcome};
use crate::signals::Stop;
use crate::ui::Ui;

pub(crate) async fn run(ui: &mut Ui, global: &Global, what: Dlq) -> Outcome {
    let consumers = eb_profile::open_consumers(&global.profile).await?;
    for notice in &consumers.profile().notices {
        ui.note(notice);
    }
    let letters = &consumers.stores().dead_letters;
    match what {
        Dlq::List { which, all, max } => list(ui, &consumers, which, all, max).await?,
        Dlq::Show { id, envelope } => {
            let letter = letters.get(DeadLetterId(id)).await?;
            if envelope {
                ui.bytes(letter.letter.record.envelope.as_bytes())?;
                ui.bytes(b"\n")?;
            } else if ui.is_json() {
                ui.json(&whole(&letter))?;
            } else {
                show(ui, &letter)?;
            }
        }
        Dlq::Retry { id, name, topic, key, reason, exec } => {
            let filter = DeadLetterFilter { topic, partition_key: key, ..DeadLetterFilter::default() };
            let consumer = consumer(&consumers, name.as_str(), &exec).await?;
            return retry(ui, &consumer, id, &filter, &reason).await;
        }
        Dlq::Drop { id, reason } => {
            let letter =
                letters.resolve(DeadLetterId(id), Resolution::Dropped, &reason).await.map_err(|e| {
                    let resolved = matches!(e.kind(), ErrorKind::AlreadyExists);
                    let failure = Failure::from(e);
                    if resolved {
                        failure.advise_if_silent(format!("`eb dlq show {id}` says how"))
                    } else {
                        failure
                    }
                })?;
            if ui.is_json() {
                ui.json(&whole(&letter))?;
            } else {
                ui.note(&format!("dead letter {id} is dropped"));
            }
        }
    }
    Ok(Exit::Done)
}

async fn list(
    ui: &mut Ui,
    consumers: &Consumers,
    which: Which,
    all: bool,
    max: usize,
) -> Result<(), Failure> {
    let filter = DeadLetterFilter {
        consumer: which.name,
        topic: which.topic,
        partition_key: which.key,
        resolved_too: all,
        after: None,
    };
    let mut letters = consumers.stores().dead_letters.list(&filter, max.saturating_add(1)).await?;
    if letters.len() > max {
        letters.truncate(max);
        ui.note(&format!(
            "there are more than these {max}; --max shows more, --name, --topic and --key choose"
        ));
    }
    if ui.is_json() {
        return letters.iter().try_for_each(|letter| ui.json(&short(letter)));
    }
    if letters.is_empty() {
        ui.note("no dead letters");
        return Ok(());
    }
    let rows: Vec<_> = letters.iter().map(row).collect();
    ui.table(
        &["ID", "CONSUMER", "PLACE", "EVENT TYPE", "REASON", "ATTEMPTS", "SINCE", "STATE", "LAST ERROR"],
        &rows,
    )
}

/// A word as it stands in JSON.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn last_error(letter: &DeadLetter) -> &str {
    letter.letter.failures.last().and_then(|f| f.errors.first()).map_or("", String::as_str)
}

fn state(letter: &DeadLetter) -> String {
    match &letter.resolved {
        Some(resolved) => word(&resolved.how),
        None if letter.letter.parks_key => "open, parks its key".to_owned(),
        None => "open".to_owned(),
    }
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let error = last_error(letter);
    let cut: String = error.chars().take(60).collect();
    vec![
        letter.id.0.to_string(),
        letter.letter.consumer.to_string(),
        letter.letter.record.eb_ref.to_string(),
        letter.letter.event_type.clone().unwrap_or_else(|| "-".to_owned()),
        word(&letter.letter.reason),
        letter.letter.attempts.to_string(),
        letter.put_at.to_string(),
        state(letter),
        if cut.len() < error.len() { format!("{cut}…") } else { cut },
    ]
}

fn short(letter: &DeadLetter) -> Value {
    let l = &letter.letter;
    json!({
        "id": letter.id, "consumer": l.consumer, "eb_ref": l.record.eb_ref, "partition_key": l.record.partition_key,
        "event_id": l.event_id, "event_type": l.event_type, "reason": l.reason, "attempts": l.attempts,
        "parks_key": l.parks_key, "put_at_utc": letter.put_at, "resolved": letter.resolved, "last_error": last_error(letter),
    })
}

fn whole(letter: &DeadLetter) -> Value {
    let mut value = short(letter);
    value["bus_incarnation"] = json!(letter.letter.bus_incarnation);
    value["failures"] = json!(letter.letter.failures);
    value["envelope"] = json!(String::from_utf8_lossy(letter.letter.record.envelope.as_bytes()));
    value
}

fn show(ui: &mut Ui, letter: &DeadLetter) -> Result<(), Failure> {
    let l = &letter.letter;
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![
        format!("dead letter  {}", letter.id.0),
        format!("consumer     {}", l.consumer),
        format!(
            "place        {} ({}, incarnation {})",
            l.record.eb_ref,
            l.record.eb_ref.offset.kind(),
            l.bus_incarnation
        ),
        format!("published    {}", l.record.eb_ref.published_at_utc),
        format!("key          {}", l.record.partition_key),
        format!("event        {} {}", dash(&l.event_type), dash(&l.event_id)),
        format!("reason       {} after {} attempts", word(&l.reason), l.attempts),
        format!("put          {}", letter.put_at),
        format!("state        {}", state(letter)),
    ];
    if let Some(resolved) = &letter.resolved {
        lines.push(format!("resolved     {}: {}", resolved.at, resolved.reason));
    }
    for failure in &l.failures {
        lines.push(format!("failed       {}: {}", failure.at, failure.errors.join(": ")));
    }
    lines.push(String::from_utf8_lossy(l.record.envelope.as_bytes()).into_owned());
    lines.iter().try_for_each(|line| ui.line(&crate::ui::visible(line)))
}

async fn consumer(consumers: &Consumers, name: &str, exec: &Exec) -> Result<EventConsumer, Failure> {
    let running = Running::default();
    let killing = running.clone();
    let stop = Stop::listen_and(move || killing.kill_all())?;
    let consumer_name = eb_contract::ConsumerName::new(name).map_err(|e| Failure::usage(e.to_string()))?;
    let runner = Arc::new(Runner::new(exec, &consumer_name, running));
    let builder = consumers.builder(name).await?.otherwise(move |event| {
        let (runner, stop) = (Arc::clone(&runner), stop.clone());
        async move {
            if stop.is_asked() {
                return Err(eb_consumer::HandlerError::transient("interrupted before it was tried"));
            }
            runner.run(event).await
        }
    });
    // Nothing is read of it; a consumer has a topic.
    let topic = eb_contract::Topic::new("dead-letters").map_err(|e| Failure::usage(e.to_string()))?;
    builder.topic(topic).build().map_err(|e| Failure::usage(e.to_string()))
}

async fn retry(
    ui: &mut Ui,
    consumer: &EventConsumer,
    id: Option<u64>,
    filter: &DeadLetterFilter,
    reason: &str,
) -> Outcome {
    let (mut tried, mut open, mut unsaid) = (0u64, 0u64, None);
    // Each is told as it ends: what comes later may fail, or be interrupted.
    let mut tell = |letter: &DeadLetter, retried: &Retried| {
        tried += 1;
        open += u64::from(!matches!(retried, Retried::Handled | Retried::Elsewhere));
        if let Err(failure) = say(ui, letter.id, retried) {
            unsaid.get_or_insert(failure);
        }
    };
    match id {
        Some(id) => {
            let (letter, retried) = consumer.retry_dead_letter(DeadLetterId(id), reason).await?;
            tell(&letter, &retried);
        }
        None => consumer.retry_dead_letters(filter, reason, tell).await?,
    }
    if let Some(failure) = unsaid {
        return Err(failure);
    }
    if open == 0 {
        ui.note(&format!("{tried} dead letters handled"));
        return Ok(Exit::Done);
    }
    let what = format!("{open} of {tried} dead letters are still open");
    Err(Failure::failed("dead_letters_open", what).advise("see why above, and retry or drop them"))
}

fn say(ui: &mut Ui, id: DeadLetterId, retried: &Retried) -> Result<(), Failure> {
    let (outcome, detail) = match retried {
        Retried::Handled => ("handled", String::new()),
        Retried::Failed(errors) => ("failed", errors.join(": ")),
        Retried::Elsewhere => ("elsewhere", "somebody else has resolved it in the meantime".to_owned()),
        Retried::Behind(first) => ("behind", format!("dead letter {} parks its key", first.0)),
    };
    if ui.is_json() {
        ui.json(&json!({ "id": id, "outcome": outcome, "detail": detail }))?;
    } else {
        ui.line(&crate::ui::visible(&format!("{}  {outcome}  {detail}", id.0)))?;
    }
    ui.flush()
}
