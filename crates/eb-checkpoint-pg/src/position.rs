//! Offsets and cuts as columns that compare as numbers in SQL.
//!
//! An offset is its kind's name and a `numeric`: the integer itself, or for a Redis stream id
//! `milliseconds · 2⁶⁴ + sequence`, which has the same order. A cut is a word (`begin`, `next`, `after`, `end`) and,
//! for the middle two, its offset. Dense cuts are stored in their canonical form (`next`), so that within a kind the
//! order of cuts is that of `2 · offset + (1 if after else 0)`.

use eb_contract::{Cut, Error, ErrorKind, Offset, OffsetKind, Result};

/// What an offset is sent and read as.
pub(crate) fn digits(offset: &Offset) -> String {
    match offset.as_redis() {
        Some((milliseconds, sequence)) => (u128::from(milliseconds) << 64 | u128::from(sequence)).to_string(),
        None => offset.to_string(),
    }
}

/// The offset that was stored.
pub(crate) fn offset(op: &'static str, place: &str, kind: &str, digits: &str) -> Result<Offset> {
    let damaged = || corrupt(op, place, format!("offset {digits:?} of kind {kind:?}"));
    let kind: OffsetKind = kind.parse().map_err(|_| damaged())?;
    if kind == OffsetKind::RedisStreamId {
        let id: u128 = digits.parse().map_err(|_| damaged())?;
        // The upper half fits by the shift.
        return Ok(Offset::redis((id >> 64) as u64, id as u64));
    }
    Offset::parse(kind, digits).map_err(|_| damaged())
}

/// A cut as columns.
pub(crate) struct CutColumns {
    pub(crate) cut_type: &'static str,
    pub(crate) kind: Option<&'static str>,
    pub(crate) digits: Option<String>,
}

impl CutColumns {
    pub(crate) fn of(cut: &Cut) -> Self {
        let cut_type = match cut {
            Cut::Begin => "begin",
            Cut::Next(_) => "next",
            Cut::After(_) => "after",
            Cut::End => "end",
        };
        let kind = cut.offset_kind().map(OffsetKind::as_str);
        Self { cut_type, kind, digits: cut.offset().map(digits) }
    }
}

/// The cut that was stored.
pub(crate) fn cut(
    op: &'static str,
    place: &str,
    cut_type: &str,
    kind: Option<&str>,
    digits: Option<&str>,
) -> Result<Cut> {
    let at = || match (kind, digits) {
        (Some(kind), Some(digits)) => offset(op, place, kind, digits),
        _ => Err(corrupt(op, place, format!("a cut {cut_type:?} without an offset"))),
    };
    match cut_type {
        "begin" => Ok(Cut::Begin),
        "end" => Ok(Cut::End),
        "next" => at().map(Cut::Next),
        "after" => at().map(Cut::After),
        other => Err(corrupt(op, place, format!("a cut of type {other:?}"))),
    }
}

/// Something is stored that this crate never stores.
pub(crate) fn corrupt(op: &'static str, place: &str, what: impl std::fmt::Display) -> Error {
    let kind = ErrorKind::Corrupt { file: place.to_owned(), line: None, byte: None };
    Error::new(kind, op, format!("the database holds {what}, which no program of ours writes"))
        .at(place)
        .advise("find out who else writes to these tables")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_cut_comes_back_from_its_columns() {
        let kinesis = |d: &str| Offset::parse(OffsetKind::KinesisSequence, d).unwrap();
        for cut_in in [
            Cut::Begin,
            Cut::End,
            Cut::Next(Offset::from_u64(OffsetKind::FileLine, u64::MAX)),
            Cut::After(kinesis(&"9".repeat(129))),
            Cut::Next(Offset::redis(0, 0)),
            Cut::After(Offset::redis(u64::MAX, u64::MAX)),
        ] {
            let columns = CutColumns::of(&cut_in);
            let back = cut("load", "x", columns.cut_type, columns.kind, columns.digits.as_deref()).unwrap();
            assert_eq!(back.to_string(), cut_in.to_string());
            assert_eq!(back.offset_kind(), cut_in.offset_kind());
        }
    }

    #[test]
    fn stream_ids_keep_their_order_as_one_number() {
        let number = |ms, seq| digits(&Offset::redis(ms, seq)).parse::<u128>().unwrap();
        assert!(number(9, u64::MAX) < number(10, 0) && number(10, 9) < number(10, 10));
    }

    #[test]
    fn what_was_never_stored_is_corrupt_and_never_a_guess() {
        for (cut_type, kind, digits) in [
            ("middle", None, None),
            ("next", None, None),
            ("next", Some("file_line"), Some("07")),
            ("next", Some("file_line"), Some("-1")),
            ("after", Some("no_kind"), Some("7")),
            ("after", Some("redis_stream_id"), Some("7.5")),
        ] {
            let e = cut("load", "x", cut_type, kind, digits).unwrap_err();
            assert_eq!(e.kind().code(), "corrupt");
        }
    }
}
