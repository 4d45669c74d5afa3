//! The lines of a segment.

use std::borrow::Cow;

use bytestring::ByteString;
use eb_contract::stores::{EventIdentity, Lease, Mark, Progress};
use eb_contract::{BusIncarnation, ConsumerName, Cut, Offset, OffsetKind, PartitionId, Timestamp, Topic};
use serde::Deserialize;

use super::Key;
use super::state::{Life, State, Stored};
use crate::files::line;

pub(super) const VERSION: u32 = 1;
const SEGMENT: &str = "segment";
const STEP: &str = "step";
const MARKS: &str = "marks";
const FORGET: &str = "forget";

/// A line as it is read.
pub(super) enum Line<'a> {
    Segment(Segment<'a>),
    Step(StepLine<'a>),
    Marks(MarksLine<'a>),
    Forget(ForgetLine<'a>),
}

#[derive(Deserialize)]
pub(super) struct Segment<'a> {
    pub(super) version: u32,
    pub(super) subscriber: ConsumerName,
    pub(super) topic: Topic,
    pub(super) partition_id: PartitionId,
    pub(super) segment: u64,
    pub(super) at: Timestamp,
    pub(super) lease: Option<Lease>,
    #[serde(borrow)]
    pub(super) lives: Vec<LifeLine<'a>>,
}

#[derive(Deserialize)]
pub(super) struct LifeLine<'a> {
    pub(super) life: BusIncarnation,
    pub(super) kind: Option<OffsetKind>,
    pub(super) committed: Option<Cut>,
    #[serde(borrow)]
    pub(super) marks: Vec<(MarkIn<'a>, Timestamp)>,
}

#[derive(Deserialize)]
pub(super) struct StepLine<'a> {
    pub(super) at: Timestamp,
    pub(super) life: BusIncarnation,
    pub(super) owner: String,
    pub(super) epoch: u64,
    pub(super) committed: Cut,
    pub(super) cut: Cut,
    pub(super) kind: Option<OffsetKind>,
    #[serde(borrow)]
    pub(super) marks: Vec<MarkIn<'a>>,
}

#[derive(Deserialize)]
pub(super) struct MarksLine<'a> {
    pub(super) at: Timestamp,
    pub(super) life: BusIncarnation,
    pub(super) kind: Option<OffsetKind>,
    #[serde(borrow)]
    pub(super) marks: Vec<MarkIn<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ForgetLine<'a> {
    pub(super) at: Timestamp,
    #[serde(borrow)]
    life: Cow<'a, str>,
    pub(super) from: Cut,
}

/// Offset, event id, dedupe key.
#[derive(Deserialize)]
pub(super) struct MarkIn<'a>(
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Option<Cow<'a, str>>,
    #[serde(borrow)] Option<Cow<'a, str>>,
);

impl MarkIn<'_> {
    /// The mark; its offset is of this kind.
    pub(super) fn read(&self, kind: Option<OffsetKind>) -> Result<Mark, String> {
        let kind = kind.ok_or("a mark without a kind of offset")?;
        let offset = Offset::parse(kind, &self.0).map_err(|e| e.to_string())?;
        let event = match (&self.1, &self.2) {
            (Some(id), Some(dedupe)) => Some(EventIdentity {
                event_id: ByteString::from(id.as_ref()),
                dedupe: line::unhex(dedupe).ok_or("a dedupe key that is none")?,
            }),
            (None, None) => None,
            _ => return Err("half an event".to_owned()),
        };
        Ok(Mark { offset, event })
    }
}

impl ForgetLine<'_> {
    pub(super) fn life(&self) -> Result<BusIncarnation, String> {
        BusIncarnation::new(&self.life).map_err(|e| e.to_string())
    }
}

/// Reads a line whose checksum holds.
pub(super) fn read(text: &[u8]) -> Result<Line<'_>, String> {
    fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
        serde_json::from_slice(text).map_err(|e| e.to_string())
    }
    match line::sort(text) {
        Some(SEGMENT) => parse(text).map(Line::Segment),
        Some(STEP) => parse(text).map(Line::Step),
        Some(MARKS) => parse(text).map(Line::Marks),
        Some(FORGET) => parse(text).map(Line::Forget),
        Some(other) => Err(format!("a line of sort `{other}`, which this program does not know")),
        None => Err("its checksum does not hold".to_owned()),
    }
}

fn common(out: &mut Vec<u8>, durable: u64, at: Timestamp, life: &BusIncarnation) {
    line::member(out, "durable", &durable);
    line::member(out, "at", &at);
    line::name_of(out, "life");
    line::text(out, life.as_str());
}

fn mark(out: &mut Vec<u8>, offset: &Offset, event: Option<&EventIdentity>) {
    use std::io::Write;
    // Digits, and one `-` at most: nothing to escape.
    write!(out, "[\"{offset}\",").expect("writing into memory");
    match event {
        Some(event) => {
            line::text(out, &event.event_id);
            out.push(b',');
            line::hex(out, &event.dedupe);
        }
        None => out.extend_from_slice(b"null,null"),
    }
    out.push(b']');
}

fn marks<'a>(out: &mut Vec<u8>, kind: Option<OffsetKind>, all: impl Iterator<Item = &'a Mark>) {
    line::member(out, "kind", &kind);
    line::name_of(out, "marks");
    out.push(b'[');
    for (n, m) in all.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        mark(out, &m.offset, m.event.as_ref());
    }
    out.push(b']');
}

/// What a step's line is made of.
pub(super) struct StepOut<'a> {
    pub(super) step: &'a Progress,
    pub(super) lease: &'a Lease,
    pub(super) kind: Option<OffsetKind>,
    /// Those of its marks that are new.
    pub(super) marks: &'a [&'a Mark],
}

pub(super) fn step(durable: u64, at: Timestamp, s: &StepOut<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(300 + s.marks.len() * 160);
    let start = line::begin(&mut out, STEP);
    common(&mut out, durable, at, &s.step.checkpoint.bus_incarnation);
    line::member(&mut out, "owner", &s.lease.owner);
    line::member(&mut out, "epoch", &s.lease.epoch);
    line::member(&mut out, "committed", &s.step.committed);
    line::member(&mut out, "cut", &s.step.checkpoint.cut);
    marks(&mut out, s.kind, s.marks.iter().copied());
    line::end(&mut out, start);
    out
}

pub(super) fn alone(
    durable: u64,
    at: Timestamp,
    life: &BusIncarnation,
    kind: Option<OffsetKind>,
    new: &[&Mark],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(200 + new.len() * 160);
    let start = line::begin(&mut out, MARKS);
    common(&mut out, durable, at, life);
    marks(&mut out, kind, new.iter().copied());
    line::end(&mut out, start);
    out
}

pub(super) fn forget(durable: u64, at: Timestamp, life: &BusIncarnation, from: &Cut) -> Vec<u8> {
    let mut out = Vec::new();
    let start = line::begin(&mut out, FORGET);
    common(&mut out, durable, at, life);
    line::member(&mut out, "from", from);
    line::end(&mut out, start);
    out
}

/// What is left of a line of marks, older ones having been forgotten.
pub(super) fn remains(durable: u64, of: &Line<'_>, left: &[Mark]) -> Vec<u8> {
    let mut out = Vec::new();
    let start;
    match of {
        Line::Step(s) => {
            start = line::begin(&mut out, STEP);
            common(&mut out, durable, s.at, &s.life);
            line::member(&mut out, "owner", &s.owner);
            line::member(&mut out, "epoch", &s.epoch);
            line::member(&mut out, "committed", &s.committed);
            line::member(&mut out, "cut", &s.cut);
            marks(&mut out, s.kind, left.iter());
        }
        Line::Marks(m) => {
            start = line::begin(&mut out, MARKS);
            common(&mut out, durable, m.at, &m.life);
            marks(&mut out, m.kind, left.iter());
        }
        Line::Segment(_) | Line::Forget(_) => return out,
    }
    line::end(&mut out, start);
    out
}

/// The first line of a segment: the state at its beginning.
pub(super) fn segment(key: &Key, number: u64, state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    let start = line::begin(&mut out, SEGMENT);
    line::member(&mut out, "durable", &0);
    line::member(&mut out, "version", &VERSION);
    line::member(&mut out, "subscriber", &key.0);
    line::member(&mut out, "topic", &key.1);
    line::member(&mut out, "partition_id", &key.2);
    line::member(&mut out, "segment", &number);
    line::member(&mut out, "at", &state.at);
    line::member(&mut out, "lease", &state.fence);
    line::name_of(&mut out, "lives");
    out.push(b'[');
    for (n, life) in state.lives.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        life_of(&mut out, life);
    }
    out.push(b']');
    line::end(&mut out, start);
    out
}

fn life_of(out: &mut Vec<u8>, life: &Life) {
    out.extend_from_slice(b"{\"life\":");
    line::text(out, life.id.as_str());
    line::member(out, "kind", &life.kind);
    line::member(out, "committed", &life.committed);
    line::name_of(out, "marks");
    out.push(b'[');
    for (n, (place, Stored { event, at })) in life.marks.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.push(b'[');
        mark(out, &place.0, event.as_ref());
        out.extend_from_slice(b",\"");
        out.extend_from_slice(&at.to_text());
        out.extend_from_slice(b"\"]");
    }
    out.extend_from_slice(b"]}");
}
