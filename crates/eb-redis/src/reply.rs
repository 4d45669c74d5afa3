//! Answers of the server, taken apart. What does not have the form that its command promises is a protocol violation.

use std::collections::HashMap;

use bytes::Bytes;
use eb_contract::{Error, Offset, OffsetKind, Result, Timestamp};
use redis::Value;

use crate::error;

/// The answer, unless it is an error that the server states.
pub(crate) fn stated(op: &'static str, value: Value) -> Result<Value> {
    match value {
        Value::ServerError(e) => Err(error::stated(op, &e)),
        value => Ok(value),
    }
}

fn odd(op: &'static str, wanted: &str, value: &Value) -> Error {
    let kind = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "a text",
        Value::Array(_) => "a list",
        _ => "something else",
    };
    error::violation(op, format!("the server answered {kind} where {wanted} was to come"))
}

pub(crate) fn array(op: &'static str, value: Value) -> Result<Vec<Value>> {
    match stated(op, value)? {
        Value::Array(items) => Ok(items),
        other => Err(odd(op, "a list", &other)),
    }
}

/// A list of exactly so many items.
pub(crate) fn items<const N: usize>(op: &'static str, value: Value) -> Result<[Value; N]> {
    let all = array(op, value)?;
    let count = all.len();
    all.try_into().map_err(|_| {
        error::violation(op, format!("the server answered {count} items where {N} were to come"))
    })
}

pub(crate) fn bytes(op: &'static str, value: Value) -> Result<Bytes> {
    match stated(op, value)? {
        Value::BulkString(bytes) => Ok(Bytes::from(bytes)),
        Value::SimpleString(text) => Ok(Bytes::from(text)),
        Value::Okay => Ok(Bytes::from_static(b"OK")),
        other => Err(odd(op, "a text", &other)),
    }
}

pub(crate) fn text(op: &'static str, value: Value) -> Result<String> {
    String::from_utf8(bytes(op, value)?.into())
        .map_err(|_| error::violation(op, "the server answered bytes where a text was to come"))
}

pub(crate) fn optional_text(op: &'static str, value: Value) -> Result<Option<String>> {
    match value {
        Value::Nil => Ok(None),
        value => text(op, value).map(Some),
    }
}

pub(crate) fn number(op: &'static str, value: Value) -> Result<u64> {
    match stated(op, value)? {
        Value::Int(n) => u64::try_from(n).map_err(|_| error::violation(op, "a negative number")),
        other => Err(odd(op, "a number", &other)),
    }
}

pub(crate) fn id(op: &'static str, value: Value) -> Result<Offset> {
    let text = text(op, value)?;
    Offset::parse(OffsetKind::RedisStreamId, &text).map_err(|_| {
        error::violation(op, format!("{:?} is no id of a stream", text.chars().take(64).collect::<String>()))
    })
}

/// Names and values in turn.
pub(crate) fn pairs(op: &'static str, value: Value) -> Result<HashMap<String, Value>> {
    let mut all = array(op, value)?.into_iter();
    let mut map = HashMap::with_capacity(all.len() / 2);
    while let (Some(name), Some(value)) = (all.next(), all.next()) {
        map.insert(text(op, name)?, value);
    }
    Ok(map)
}

/// Names and texts in turn.
pub(crate) fn texts(op: &'static str, value: Value) -> Result<HashMap<String, String>> {
    pairs(op, value)?.into_iter().map(|(name, value)| Ok((name, text(op, value)?))).collect()
}

/// An entry of a stream, as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: Offset,
    pub(crate) key: Bytes,
    pub(crate) envelope: Bytes,
}

/// The entries of a stream, each with the two fields of a record.
pub(crate) fn entries(op: &'static str, value: Value, stream: &str) -> Result<Vec<Entry>> {
    array(op, value)?.into_iter().map(|value| entry(op, value, stream)).collect()
}

fn entry(op: &'static str, value: Value, stream: &str) -> Result<Entry> {
    let [at, fields] = items(op, value)?;
    let at = id(op, at)?;
    let foreign = || error::corrupt(op, stream, format!("the entry {at} is no record of a bus"));
    let mut fields = array(op, fields)?.into_iter();
    let mut field = |name: &[u8]| -> Result<Bytes> {
        let (Some(found), Some(value)) = (fields.next(), fields.next()) else { return Err(foreign()) };
        if bytes(op, found)? == name { bytes(op, value) } else { Err(foreign()) }
    };
    let (key, envelope) = (field(b"k")?, field(b"e")?);
    if fields.next().is_some() {
        return Err(foreign());
    }
    Ok(Entry { id: at, key, envelope })
}

/// The id of an entry of `XINFO STREAM`; `None` where there is no entry.
fn edge(op: &'static str, value: Option<Value>) -> Result<Option<Offset>> {
    match value {
        None | Some(Value::Nil) => Ok(None),
        Some(value) => match array(op, value)?.into_iter().next() {
            Some(at) => id(op, at).map(Some),
            None => Ok(None),
        },
    }
}

/// What a stream says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StreamInfo {
    /// The id that was given out last, whether or not its entry is still there.
    pub(crate) last_id: Offset,
    /// The highest id that `XDEL` has deleted.
    pub(crate) max_deleted: Offset,
    /// How many entries are gone.
    pub(crate) gone: u64,
    pub(crate) first: Option<Offset>,
    pub(crate) last: Option<Offset>,
}

impl StreamInfo {
    /// From the answer of `XINFO STREAM`.
    pub(crate) fn read(op: &'static str, value: Value) -> Result<Self> {
        let mut fields = pairs(op, value)?;
        let mut take = |name: &str| {
            fields.remove(name).ok_or_else(|| {
                error::violation(op, format!("XINFO STREAM has no {name}; Redis 7.0 or newer is needed"))
            })
        };
        let (length, added) = (number(op, take("length")?)?, number(op, take("entries-added")?)?);
        Ok(Self {
            last_id: id(op, take("last-generated-id")?)?,
            max_deleted: id(op, take("max-deleted-entry-id")?)?,
            gone: added.saturating_sub(length),
            first: edge(op, take("first-entry").ok())?,
            last: edge(op, take("last-entry").ok())?,
        })
    }
}

/// The time of an id.
pub(crate) fn time_of(id: &Offset) -> Timestamp {
    let ms = id.as_redis().map_or(0, |(ms, _)| ms);
    let micros = i64::try_from(ms).ok().and_then(|ms| ms.checked_mul(1000));
    micros.and_then(Timestamp::from_micros).unwrap_or(Timestamp::MAX)
}

/// The id right before; `None` for the very first.
pub(crate) fn predecessor(id: &Offset) -> Option<Offset> {
    match id.as_redis()? {
        (0, 0) => None,
        (ms, 0) => Some(Offset::redis(ms - 1, u64::MAX)),
        (ms, seq) => Some(Offset::redis(ms, seq - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry_value(id: &str, fields: &[&str]) -> Value {
        Value::Array(vec![bulk(id), Value::Array(fields.iter().map(|f| bulk(f)).collect())])
    }

    #[test]
    fn an_entry_has_the_two_fields_of_a_record_and_no_other() {
        let read = |v| entries("read", Value::Array(vec![v]), "{eb}:s:t:0");
        let good = read(entry_value("5-1", &["k", "m", "e", "{}"])).unwrap();
        assert_eq!(good[0].id, Offset::redis(5, 1));
        assert_eq!((&good[0].key[..], &good[0].envelope[..]), (&b"m"[..], &b"{}"[..]));
        for fields in [&["k", "m"][..], &["e", "{}", "k", "m"], &["k", "m", "e", "{}", "x", "y"], &["k"], &[]]
        {
            let e = read(entry_value("5-1", fields)).unwrap_err();
            assert_eq!(e.kind().code(), "corrupt", "{e}");
        }
        assert!(read(entry_value("5", &["k", "m", "e", "{}"])).is_err());
        assert!(read(Value::Nil).is_err());
    }

    #[test]
    fn the_id_before_goes_over_milliseconds() {
        assert_eq!(predecessor(&Offset::redis(7, 3)), Some(Offset::redis(7, 2)));
        assert_eq!(predecessor(&Offset::redis(7, 0)), Some(Offset::redis(6, u64::MAX)));
        assert_eq!(predecessor(&Offset::redis(0, 0)), None);
    }

    #[test]
    fn a_time_beyond_the_calendar_is_the_last_one() {
        assert_eq!(time_of(&Offset::redis(1_700_000_000_123, 9)).as_micros(), 1_700_000_000_123_000);
        assert_eq!(time_of(&Offset::redis(u64::MAX, 0)), Timestamp::MAX);
    }

    #[test]
    fn a_stated_error_is_never_taken_for_an_answer() {
        assert!(pairs("read", Value::Nil).is_err());
        assert!(number("read", Value::Int(-1)).is_err());
        assert!(items::<2>("read", Value::Array(vec![Value::Nil])).is_err());
    }
}
