//! Times as `YYYY-MM-DDTHH:MM:SS.ffffffZ`.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use crate::violation::Fault;

const PATTERN: &[u8] = b"0000-00-00T00:00:00.000000Z";

/// Checks the form and the calendar.
pub(crate) fn check(text: &str) -> Result<(), Fault> {
    parts(text).map(drop)
}

fn parts(text: &str) -> Result<PrimitiveDateTime, Fault> {
    let bytes = text.as_bytes();
    let formed = bytes.len() == PATTERN.len()
        && bytes.iter().zip(PATTERN).all(|(b, p)| if *p == b'0' { b.is_ascii_digit() } else { b == p });
    if !formed {
        return Err(Fault::Pattern {
            expected: "YYYY-MM-DDTHH:MM:SS.ffffffZ with exactly six digits of fraction",
        });
    }
    let number =
        |from: usize, to: usize| bytes[from..to].iter().fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
    // Two digits always fit a byte, four an i32.
    let small = |from: usize| u8::try_from(number(from, from + 2)).unwrap_or(u8::MAX);
    let date = Month::try_from(small(5))
        .ok()
        .and_then(|month| Date::from_calendar_date(number(0, 4).cast_signed(), month, small(8)).ok());
    let time = Time::from_hms_micro(small(11), small(14), small(17), number(20, 26)).ok();
    match (date, time) {
        (Some(date), Some(time)) => Ok(PrimitiveDateTime::new(date, time)),
        _ => Err(Fault::NoSuchTime),
    }
}

/// Reads a time in the envelope's form: `YYYY-MM-DDTHH:MM:SS.ffffffZ`, exactly six digits, in the calendar; there
/// are no leap seconds.
///
/// # Errors
/// [`Fault::Pattern`] for another form, [`Fault::NoSuchTime`] for a 30th of February.
pub fn parse_time(text: &str) -> Result<OffsetDateTime, Fault> {
    parts(text).map(PrimitiveDateTime::assume_utc)
}

/// Writes a time in the envelope's form, cut to whole microseconds.
///
/// # Errors
/// [`Fault::NoSuchTime`] for a time before the year 0 or after the year 9999 in UTC.
pub fn format_time(at: OffsetDateTime) -> Result<String, Fault> {
    let at = at.checked_to_offset(UtcOffset::UTC).ok_or(Fault::NoSuchTime)?;
    if !(0..=9999).contains(&at.year()) {
        return Err(Fault::NoSuchTime);
    }
    Ok(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.microsecond()
    ))
}
