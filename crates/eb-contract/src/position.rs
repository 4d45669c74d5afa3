//! Where to read from: cuts between records, and the ways to name one.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::stores::Checkpoint;
use crate::{Offset, OffsetKind, Timestamp};

/// A cut in a partition, between what lies before it and what lies after it. The only position that is ever stored.
///
/// On the wire `{"type":"begin"}`, `{"type":"next","offset":"12","offset_kind":"file_line"}`,
/// `{"type":"after","offset":"…","offset_kind":"…"}`, `{"type":"end"}`.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// Before the first record that the partition ever had.
    Begin,
    /// Right before the record at this offset, whether or not it exists yet. The canonical form for dense offsets.
    Next(Offset),
    /// Right after the record at this offset. The canonical form for sparse offsets.
    After(Offset),
    /// After the last record of a partition that is closed (resharded) and read to its end.
    End,
}

impl Cut {
    /// The cut right after the record at `last`, in the canonical form of its kind.
    #[must_use]
    pub fn past(last: Offset) -> Self {
        last.successor().map_or(Self::After(last), Self::Next)
    }

    /// The offset this cut is made at.
    #[must_use]
    pub fn offset(&self) -> Option<&Offset> {
        match self {
            Self::Next(o) | Self::After(o) => Some(o),
            Self::Begin | Self::End => None,
        }
    }

    /// The kind of the offset this cut is made at.
    #[must_use]
    pub fn offset_kind(&self) -> Option<OffsetKind> {
        self.offset().map(Offset::kind)
    }

    /// For dense kinds the equivalent [`Cut::Next`]; otherwise itself.
    #[must_use]
    pub fn canonical(self) -> Self {
        match self {
            Self::After(o) => Self::past(o),
            other => other,
        }
    }

    /// Whether a record at `offset` lies after this cut; `None` when the kinds differ.
    #[must_use]
    pub fn is_before(&self, offset: &Offset) -> Option<bool> {
        match self {
            Self::Begin => Some(true),
            Self::End => Some(false),
            Self::Next(o) => offset.partial_cmp(o).map(Ordering::is_ge),
            Self::After(o) => offset.partial_cmp(o).map(Ordering::is_gt),
        }
    }

    /// Which cut lies further on; `None` for offsets of different kinds.
    ///
    /// `Begin` is before and `End` behind every other cut. For dense offsets `After(k)` equals `Next(k+1)`.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        let rank = |c: &Self| match c {
            Self::Begin => 0,
            Self::Next(_) | Self::After(_) => 1,
            Self::End => 2,
        };
        match (self.canonical(), other.canonical()) {
            (Self::Next(a), Self::Next(b)) | (Self::After(a), Self::After(b)) => a.partial_cmp(&b),
            (Self::Next(a), Self::After(b)) => {
                a.partial_cmp(&b).map(|o| if o.is_le() { Ordering::Less } else { Ordering::Greater })
            }
            (Self::After(a), Self::Next(b)) => {
                a.partial_cmp(&b).map(|o| if o.is_ge() { Ordering::Greater } else { Ordering::Less })
            }
            (a, b) => Some(rank(&a).cmp(&rank(&b))),
        }
    }
}

impl PartialEq for Cut {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other) == Some(Ordering::Equal)
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.pad("begin"),
            Self::Next(o) => write!(f, "next {o}"),
            Self::After(o) => write!(f, "after {o}"),
            Self::End => f.pad("end"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum CutWire {
    Begin,
    Next { offset: String, offset_kind: OffsetKind },
    After { offset: String, offset_kind: OffsetKind },
    End,
}

impl Serialize for Cut {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Begin => CutWire::Begin,
            Self::Next(o) => CutWire::Next { offset: o.to_string(), offset_kind: o.kind() },
            Self::After(o) => CutWire::After { offset: o.to_string(), offset_kind: o.kind() },
            Self::End => CutWire::End,
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Cut {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let parse = |kind, text: String| Offset::parse(kind, &text).map_err(serde::de::Error::custom);
        Ok(match CutWire::deserialize(d)? {
            CutWire::Begin => Self::Begin,
            CutWire::Next { offset, offset_kind } => Self::Next(parse(offset_kind, offset)?),
            CutWire::After { offset, offset_kind } => Self::After(parse(offset_kind, offset)?),
            CutWire::End => Self::End,
        })
    }
}

/// Where a cursor starts. Resolved once, when the cursor is made; only [`Cut`]s are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StartAt {
    /// The oldest record still there.
    Earliest,
    /// Behind the newest record at the time of the call: only what is published from then on.
    Latest,
    /// The first record with `published_at_utc` at or after this time; the head if there is none.
    Timestamp(Timestamp),
    /// A cut. One past the head waits for the records to come: `Next(n)` beyond the head is not an error.
    Cut(Cut),
    /// The cut of a checkpoint whose consumer is known to have been at the head at a time. A backend that cannot
    /// tell whether records between an expired one and the oldest left are missing takes it for [`StartAt::Cut`]
    /// unless that time lies within the retention: whatever came after it is still there then, so nothing was
    /// missed. Backends that know exactly what was trimmed always take it for [`StartAt::Cut`].
    Resume {
        /// Where to go on.
        cut: Cut,
        /// When the consumer was at the head, by its own clock: nothing it had not read was there then.
        caught_up_at: Timestamp,
    },
}

impl StartAt {
    /// The cut that it names, if it names one.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        match self {
            Self::Cut(cut) | Self::Resume { cut, .. } => Some(*cut),
            Self::Earliest | Self::Latest | Self::Timestamp(_) => None,
        }
    }
}

impl From<Cut> for StartAt {
    fn from(cut: Cut) -> Self {
        Self::Cut(cut)
    }
}

/// Where the consumer of a checkpoint goes on.
impl From<&Checkpoint> for StartAt {
    fn from(checkpoint: &Checkpoint) -> Self {
        let cut = checkpoint.cut;
        checkpoint.caught_up_at.map_or(Self::Cut(cut), |caught_up_at| Self::Resume { cut, caught_up_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u64) -> Offset {
        Offset::from_u64(OffsetKind::FileLine, n)
    }

    fn seq(n: u64) -> Offset {
        Offset::from_u64(OffsetKind::KinesisSequence, n)
    }

    #[test]
    fn cuts_are_exclusive_next() {
        assert_eq!(Cut::past(line(9)), Cut::Next(line(10)));
        assert_eq!(Cut::After(line(9)), Cut::Next(line(10)));
        assert!(matches!(Cut::past(seq(9)), Cut::After(_)));
        assert_eq!(Cut::Next(line(10)).is_before(&line(10)), Some(true));
        assert_eq!(Cut::Next(line(10)).is_before(&line(9)), Some(false));
        assert_eq!(Cut::After(seq(10)).is_before(&seq(10)), Some(false));
        assert_eq!(Cut::After(seq(10)).is_before(&line(11)), None);
    }

    #[test]
    fn cuts_compare_within_a_kind() {
        use Ordering::{Equal, Greater, Less};
        let cases = [
            (Cut::Begin, Cut::Next(line(0)), Some(Less)),
            (Cut::End, Cut::After(seq(9)), Some(Greater)),
            (Cut::Next(line(9)), Cut::Next(line(10)), Some(Less)),
            (Cut::After(line(9)), Cut::Next(line(10)), Some(Equal)),
            (Cut::Next(seq(9)), Cut::After(seq(9)), Some(Less)),
            (Cut::After(seq(9)), Cut::Next(seq(9)), Some(Greater)),
            (Cut::After(seq(9)), Cut::Next(seq(10)), Some(Less)),
            (Cut::After(seq(9)), Cut::Next(line(9)), None),
        ];
        for (a, b, expected) in cases {
            assert_eq!(a.compare(&b), expected, "{a} / {b}");
            assert_eq!(b.compare(&a), expected.map(Ordering::reverse), "{b} / {a}");
        }
    }

    #[test]
    fn cuts_round_trip_as_json_and_refuse_what_they_do_not_know() {
        for cut in [Cut::Begin, Cut::Next(line(100)), Cut::After(seq(99)), Cut::End] {
            let text = serde_json::to_string(&cut).unwrap();
            assert_eq!(serde_json::from_str::<Cut>(&text).unwrap(), cut);
        }
        for bad in [
            r#"{"type":"next","offset":7,"offset_kind":"file_line"}"#,
            r#"{"type":"next","offset":"07","offset_kind":"file_line"}"#,
            r#"{"type":"next","offset":"7"}"#,
            r#"{"type":"middle"}"#,
        ] {
            assert!(serde_json::from_str::<Cut>(bad).is_err(), "{bad}");
        }
    }
}
