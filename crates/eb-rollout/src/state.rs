//! The document in the register: phase, chain of epochs, a switch under way.

use std::collections::BTreeMap;

use eb_contract::{BusIncarnation, Cut, Error, ErrorKind, Offset, OffsetKind, Result, Timestamp, Topic};
use serde::{Deserialize, Serialize};

use crate::doc::Document;

/// One of the two buses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The bus that is left.
    Old,
    /// The bus that is moved to.
    New,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }

    /// `old` or `new`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Old => 0,
            Self::New => 1,
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How far the rollout has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The old bus alone.
    Baseline,
    /// The old bus, mirrored to the new one.
    DualWrite,
    /// The new bus, mirrored to the old one.
    NewPrimary,
    /// The new bus alone.
    NewOnly,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Baseline, Self::DualWrite, Self::NewPrimary, Self::NewOnly];

    /// The bus that takes the records.
    #[must_use]
    pub const fn primary(self) -> Side {
        match self {
            Self::Baseline | Self::DualWrite => Side::Old,
            Self::NewPrimary | Self::NewOnly => Side::New,
        }
    }

    /// Whether the primary's log is mirrored to the other bus.
    #[must_use]
    pub const fn is_mirrored(self) -> bool {
        matches!(self, Self::DualWrite | Self::NewPrimary)
    }

    /// The next one.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Baseline => Some(Self::DualWrite),
            Self::DualWrite => Some(Self::NewPrimary),
            Self::NewPrimary => Some(Self::NewOnly),
            Self::NewOnly => None,
        }
    }

    /// The name as in the document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::DualWrite => "dual_write",
            Self::NewPrimary => "new_primary",
            Self::NewOnly => "new_only",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Phase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "rollout", "there is no such phase")
                .advise("use baseline, dual_write, new_primary or new_only")
        })
    }
}

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The format of the document.
    pub format: u32,
    /// What the old and the new bus are, so that two profiles that mean different buses never share a register.
    pub buses: [String; 2],
    /// How long a lease is, for everybody.
    pub lease_ms: u64,
    /// The phase; while switching, the one that is left.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
    /// The active epoch; while switching, the one that ends.
    pub epoch: u64,
    /// When the epoch before ended; `None` in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched_at: Option<Timestamp>,
    /// Counts the times that mirroring was begun.
    pub mirror_run: u64,
    /// A switch under way: nobody may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switching: Option<Switching>,
    /// The chain of each topic; empty while nothing was ever switched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub topics: BTreeMap<Topic, Vec<Segment>>,
    /// Who stored this document, and which of their changes it is: tells a writer whose answer was lost whether it is theirs.
    pub stamp: String,
}

/// A switch under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switching {
    /// The phase to be.
    pub to: Phase,
    /// Since when.
    pub since: Timestamp,
    /// Whose it is.
    pub by: String,
    /// Why.
    pub reason: String,
    /// A rollback: it goes on without the outgoing bus.
    pub urgent: bool,
}

/// One epoch of a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Which epoch.
    pub epoch: u64,
    /// The bus that holds it.
    pub side: Side,
    /// The life of the topic on that bus.
    pub incarnation: BusIncarnation,
    /// When it began.
    pub opened_at: Timestamp,
    /// Whether and how it ended.
    pub end: EndState,
    /// Its partitions: those at its start, and once it is settled all that it ever had.
    pub partitions: Vec<Part>,
    /// Partitions of the bus that were closed before it began: no part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<u32>,
}

/// Whether a segment has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndState {
    /// It takes records.
    Open,
    /// It has ended where its bus's log ends, which nobody has been able to ask yet.
    Pending,
    /// Its partitions say where it ended.
    Settled,
}

/// One partition of a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its number on its bus.
    pub id: u32,
    /// The partitions of the segment that it goes on from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<u32>,
    /// Records before it are no part of the segment.
    pub start: Cut,
    /// Records behind it are no part of the segment, once it is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Cut>,
    /// The last record before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastOffset>,
}

/// An offset as text and kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OffsetWire", into = "OffsetWire")]
pub struct LastOffset(pub Offset);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OffsetWire {
    offset: String,
    offset_kind: OffsetKind,
}

impl From<LastOffset> for OffsetWire {
    fn from(LastOffset(offset): LastOffset) -> Self {
        Self { offset: offset.to_string(), offset_kind: offset.kind() }
    }
}

impl TryFrom<OffsetWire> for LastOffset {
    type Error = eb_contract::InvalidOffset;

    fn try_from(wire: OffsetWire) -> std::result::Result<Self, Self::Error> {
        Offset::parse(wire.offset_kind, &wire.offset).map(Self)
    }
}

/// Where a rollout stood when something was decided: whoever decides on it does so only while it still stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) phase: Phase,
    pub(crate) epoch: u64,
    pub(crate) mirror_run: u64,
}

impl Stage {
    pub(crate) fn of(state: &State) -> Self {
        Self { phase: state.phase, epoch: state.epoch, mirror_run: state.mirror_run }
    }
}

const FORMAT: u32 = 1;

/// The most segments of a topic, and the most partitions of a topic on a bus.
pub(crate) const MOST: u32 = 1 << 16;

impl Document for State {
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("it has format {}, this program knows {FORMAT}", self.format));
        }
        for (topic, chain) in &self.topics {
            let rises = chain.windows(2).all(|w| w[0].epoch < w[1].epoch);
            let open_only_last = chain.iter().rev().skip(1).all(|s| s.end != EndState::Open);
            if chain.is_empty() || !rises || !open_only_last || chain.len() > MOST as usize {
                return Err(format!("the chain of {topic} is no chain"));
            }
            if chain.last().is_some_and(|s| s.epoch > self.epoch) {
                return Err(format!("the chain of {topic} is ahead of the epoch"));
            }
            let settled = chain.iter().filter(|s| s.end == EndState::Settled);
            if settled.flat_map(|s| &s.partitions).any(|p| p.end.is_none()) {
                return Err(format!("{topic} has a settled segment without end cuts"));
            }
        }
        Ok(())
    }

    fn stamp(&self) -> &str {
        &self.stamp
    }

    fn set_stamp(&mut self, stamp: String) {
        self.stamp = stamp;
    }
}

impl State {
    /// Before anything was stored.
    pub(crate) fn initial(buses: [String; 2], lease_ms: u64) -> Self {
        Self {
            format: FORMAT,
            buses,
            lease_ms,
            phase: Phase::Baseline,
            since: Timestamp::now(),
            reason: "the beginning".to_owned(),
            epoch: 0,
            switched_at: None,
            mirror_run: 0,
            switching: None,
            topics: BTreeMap::new(),
            stamp: String::new(),
        }
    }

    /// The bus that takes the records.
    #[must_use]
    pub fn primary(&self) -> Side {
        self.phase.primary()
    }

    /// Whether writers may write.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.switching.is_none()
    }

    /// Whether topics are those of the old bus, whole, because nothing was ever switched.
    #[must_use]
    pub fn is_implicit(&self) -> bool {
        self.epoch == 0
    }

    /// Of an explicit state: the place of the active epoch in a topic's chain.
    pub(crate) fn active_segment(&self, topic: &Topic) -> Option<usize> {
        let chain = self.topics.get(topic)?;
        let last = chain.last()?;
        (last.epoch == self.epoch && last.end == EndState::Open).then(|| chain.len() - 1)
    }

    /// Topics that have a segment whose end cuts are pending, with its place.
    pub(crate) fn pending(&self) -> Vec<(Topic, usize)> {
        let of = |(topic, chain): (&Topic, &Vec<Segment>)| {
            let at = chain.iter().position(|s| s.end == EndState::Pending)?;
            Some((topic.clone(), at))
        };
        self.topics.iter().filter_map(of).collect()
    }
}

impl Segment {
    pub(crate) fn part(&self, id: u32) -> Option<&Part> {
        self.partitions.iter().find(|p| p.id == id)
    }

    /// Partitions that go on from nothing in the segment.
    pub(crate) fn roots(&self) -> impl Iterator<Item = u32> + '_ {
        self.partitions.iter().filter(|p| p.parents.is_empty()).map(|p| p.id)
    }
}
