//! `eb publish`

use std::io::Read as _;

use canonical_envelope::{BuildError, EnvelopeBuilder};
use eb_contract::Timestamp;
use ig_gate::Decision;
use time::OffsetDateTime;

use crate::args::{self, Global};
use crate::commands::{open, open_gate, receipt};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::Ui;

/// More than any gate takes, so that what is too large is quarantined with evidence rather than refused here.
const MAX_PAYLOAD_BYTES: u64 = 16 << 20;

pub(crate) async fn run(ui: &mut Ui, global: &Global, args: args::Publish) -> Outcome {
    let payload = payload(&args.payload)?;
    let envelope = build(args, &payload)?;
    let platform = open(ui, global).await?;
    let answer = open_gate(ui, &platform).await?.admit(envelope).await;
    let closed = platform.close().await;
    let answer = answer?;
    if ui.is_json() {
        ui.json(&answer)?;
    } else {
        receipt::for_people(ui, &answer)?;
    }
    ui.flush()?;
    closed?;
    Ok(if answer.decision == Decision::Quarantine { Exit::Quarantined } else { Exit::Done })
}

fn payload(text: &str) -> Result<String, Failure> {
    let (name, source): (&str, Box<dyn std::io::Read>) = if text == "-" {
        ("standard input", Box::new(std::io::stdin()))
    } else if let Some(path) = text.strip_prefix('@') {
        let file = std::fs::File::open(path)
            .map_err(|e| Failure::failed("input", format!("cannot read {path}: {e}")))?;
        (path, Box::new(file))
    } else {
        return Ok(text.to_owned());
    };
    let cannot = |e| Failure::failed("input", format!("cannot read the payload from {name}: {e}"));
    let mut bytes = Vec::new();
    source.take(MAX_PAYLOAD_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_PAYLOAD_BYTES {
        let what = format!("the payload from {name} has more than {} MiB", MAX_PAYLOAD_BYTES >> 20);
        return Err(Failure::failed("too_large", what));
    }
    String::from_utf8(bytes)
        .map_err(|e| Failure::failed("input", format!("the payload from {name} is not UTF-8: {e}")))
}

type Setter = fn(EnvelopeBuilder, String) -> EnvelopeBuilder;

fn build(args: args::Publish, payload: &str) -> Result<Vec<u8>, Failure> {
    let at = |t: Timestamp| {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(t.as_micros()) * 1000)
            .map_err(|e| Failure::usage(format!("a time out of range: {e}")))
    };
    let mut builder = EnvelopeBuilder::new(&args.event_type)
        .ts_utc(at(args.ts_utc.unwrap_or_else(Timestamp::now))?)
        .producer(&args.producer)
        .manifest_fingerprint(&args.manifest_fingerprint)
        .payload_json(payload);
    builder = match &args.event_id {
        Some(id) => builder.event_id(id),
        None => builder.time_ordered_event_id(),
    };
    let set = |builder: EnvelopeBuilder, value: Option<String>, with: Setter| match value {
        Some(value) => with(builder, value),
        None => builder,
    };
    builder = set(builder, args.source_module, EnvelopeBuilder::source_module);
    builder = set(builder, args.schema_version, EnvelopeBuilder::schema_version);
    builder = set(builder, args.parent_event_id, EnvelopeBuilder::parent_event_id);
    builder = set(builder, args.parameter_hash, EnvelopeBuilder::parameter_hash);
    builder = set(builder, args.scenario_id, EnvelopeBuilder::scenario_id);
    builder = set(builder, args.run_id, EnvelopeBuilder::run_id);
    builder = set(builder, args.platform_run_id, EnvelopeBuilder::platform_run_id);
    builder = set(builder, args.scenario_run_id, EnvelopeBuilder::scenario_run_id);
    if let Some(seed) = args.seed {
        builder = builder.seed(seed);
    }
    if let Some(t) = args.emitted_at_utc {
        builder = builder.emitted_at_utc(at(t)?);
    }
    if let (Some(trace), Some(span)) = (&args.trace_id, &args.span_id) {
        builder = builder.trace(trace, span);
    }
    builder.build().map_err(|e| {
        let advice = match &e {
            BuildError::Payload(_) | BuildError::PayloadText { .. } => "write the payload as one JSON object",
            _ => "correct the option of that name; see eb publish --help",
        };
        Failure::usage(e.to_string()).advise(advice)
    })
}
