//! UTC time in microseconds.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;

/// A point in UTC time with microsecond resolution, years 1970 to 9999.
///
/// On the wire RFC 3339 with exactly six fraction digits and `Z`: `2026-01-29T10:00:00.123456Z`. On input any
/// RFC 3339 date-time is taken; digits past the sixth are cut off.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// Text that is no RFC 3339 date-time between 1970 and 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidTimestamp;

impl fmt::Display for InvalidTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an RFC 3339 time from 1970 to 9999 (such as 2026-01-29T10:00:00.123456Z)")
    }
}

impl std::error::Error for InvalidTimestamp {}

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 9999-12-31T23:59:59.999999Z.
const MAX_MICROS: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

impl Timestamp {
    /// 1970-01-01T00:00:00.000000Z.
    pub const EPOCH: Self = Self(0);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(MAX_MICROS);
    /// The length of the text form in bytes.
    pub const TEXT_LEN: usize = 27;

    /// The system clock's time, held within the representable range.
    #[must_use]
    pub fn now() -> Self {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(d) => i64::try_from(d.as_micros()).unwrap_or(MAX_MICROS),
            Err(_) => 0,
        };
        Self(micros.min(MAX_MICROS))
    }

    /// From microseconds since 1970; `None` out of range.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Option<Self> {
        if micros >= 0 && micros <= MAX_MICROS { Some(Self(micros)) } else { None }
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Later by `d`, held within the representable range.
    #[must_use]
    pub fn saturating_add(self, d: Duration) -> Self {
        let micros = i64::try_from(d.as_micros()).unwrap_or(MAX_MICROS);
        Self(self.0.saturating_add(micros).min(MAX_MICROS))
    }

    /// The time from `earlier` to this one, zero if this one is not later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// The text form, without allocation.
    #[must_use]
    pub fn to_text(self) -> [u8; Self::TEXT_LEN] {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let mut micros = self.0.rem_euclid(MICROS_PER_SECOND);
        let date = OffsetDateTime::from_unix_timestamp(seconds)
            .map_or((9999, 12, 31), |t| (t.year(), t.month() as u8, t.day()));
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let mut out = *b"0000-00-00T00:00:00.000000Z";
        put(&mut out, 0, 4, i64::from(date.0));
        put(&mut out, 5, 2, i64::from(date.1));
        put(&mut out, 8, 2, i64::from(date.2));
        put(&mut out, 11, 2, of_day / 3600);
        put(&mut out, 14, 2, of_day / 60 % 60);
        put(&mut out, 17, 2, of_day % 60);
        for i in (20..26).rev() {
            out[i] = b'0' + (micros % 10) as u8;
            micros /= 10;
        }
        out
    }

    /// Reads exactly the text form that [`Timestamp::to_text`] writes; fast, for decoders.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let text: &[u8; Self::TEXT_LEN] = text.try_into().ok()?;
        let mut bad = (text[10] ^ b'T') | (text[19] ^ b'.') | (text[26] ^ b'Z');
        let micros =
            pair(text, 20, &mut bad) * 10_000 + pair(text, 22, &mut bad) * 100 + pair(text, 24, &mut bad);
        let seconds = date_time(text)?;
        if bad != 0 {
            return None;
        }
        Self::from_micros(seconds * MICROS_PER_SECOND + i64::from(micros))
    }

    /// Reads any RFC 3339 date-time; fraction digits past the sixth are cut off, offsets are applied.
    ///
    /// # Errors
    /// [`InvalidTimestamp`] when it is not RFC 3339 or not from 1970 to 9999.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        Self::parse_bytes(text.as_bytes()).ok_or(InvalidTimestamp)
    }

    fn parse_bytes(text: &[u8]) -> Option<Self> {
        let base = date_time(text.get(..19)?)?;
        let mut rest = text.get(19..)?;
        let mut micros = 0;
        if let Some(after_dot) = rest.strip_prefix(b".") {
            let len = after_dot.iter().take_while(|b| b.is_ascii_digit()).count();
            if len == 0 || len > 18 {
                return None;
            }
            let mut six = *b"000000";
            let kept = len.min(6);
            six[..kept].copy_from_slice(&after_dot[..kept]);
            micros = digits(&six)?;
            rest = &after_dot[len..];
        }
        let shift = match rest {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let (h, m) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
                if h > 23 || m > 59 {
                    return None;
                }
                let seconds = h * 3600 + m * 60;
                if *sign == b'+' { seconds } else { -seconds }
            }
            _ => return None,
        };
        Self::from_micros((base - shift) * MICROS_PER_SECOND + micros)
    }
}

fn put(out: &mut [u8], at: usize, width: usize, mut value: i64) {
    for i in (at..at + width).rev() {
        out[i] = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

/// The number of two digits at `at`; `bad` is set where they are none. Without branches: a replay reads one time per record.
fn pair(text: &[u8], at: usize, bad: &mut u8) -> u32 {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    *bad |= u8::from(tens > 9) | u8::from(ones > 9);
    u32::from(tens) * 10 + u32::from(ones)
}

/// Seconds since 1970 of `YYYY-MM-DDTHH:MM:SS` at the start of `text` (at least 19 bytes).
fn date_time(text: &[u8]) -> Option<i64> {
    let text: &[u8; 19] = text.first_chunk()?;
    let mut bad = (text[4] ^ b'-') | (text[7] ^ b'-') | (text[13] ^ b':') | (text[16] ^ b':');
    bad |= (text[10] | 0x20) ^ b't';
    let year = pair(text, 0, &mut bad) * 100 + pair(text, 2, &mut bad);
    let (month, day) = (pair(text, 5, &mut bad), pair(text, 8, &mut bad));
    let (h, m, s) = (pair(text, 11, &mut bad), pair(text, 14, &mut bad), pair(text, 17, &mut bad));
    if bad != 0 || h > 23 || m > 59 || s > 59 || day == 0 || day > days_in(year, month) {
        return None;
    }
    Some(days_since_1970(year, month, day) * SECONDS_PER_DAY + i64::from(h * 3600 + m * 60 + s))
}

/// 0 for a month that is none.
fn days_in(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => 0,
    }
}

/// Of a date in the Gregorian calendar, negative before 1970. Years are counted from March, so that a leap day is a year's last, and in
/// eras of 400 years, which all have 146,097 days; 0000-03-01 lies 719,468 days before 1970. (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `days_from_civil`.)
fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = i64::from((153 * ((month + 9) % 12) + 2) / 5 + day - 1);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;
    fn from_str(s: &str) -> Result<Self, InvalidTimestamp> {
        Self::parse(s)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_3339_in_its_variants() {
        let t = Timestamp::parse("2026-01-29T10:00:00.123456Z").unwrap();
        assert_eq!(t.to_string(), "2026-01-29T10:00:00.123456Z");
        assert_eq!(Timestamp::parse("2026-01-29T12:00:00.1234569+02:00").unwrap(), t);
        assert_eq!(
            Timestamp::parse("2026-01-29T10:00:00z").unwrap().to_string(),
            "2026-01-29T10:00:00.000000Z"
        );
        assert_eq!(Timestamp::parse("1970-01-01T00:00:00Z").unwrap(), Timestamp::EPOCH);
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
        for bad in [
            "",
            "2026-01-29",
            "2026-02-30T00:00:00Z",
            "2026-01-29T24:00:00Z",
            "2026-01-29T10:00:00",
            "1969-12-31T23:59:59Z",
            "2026-01-29T10:00:00.Z",
            "2026-01-29T10:00:00+2:00",
            "2026-01-29T10:00:00Zx",
        ] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_day_is_where_the_calendar_has_it() {
        let mut days = 0;
        for year in 1970..=9999 {
            for month in 1..=12 {
                for day in [1, days_in(year, month)] {
                    let text = format!("{year:04}-{month:02}-{day:02}T00:00:00.000000Z");
                    let micros = days * SECONDS_PER_DAY * MICROS_PER_SECOND;
                    assert_eq!(
                        Timestamp::from_text(text.as_bytes()),
                        Timestamp::from_micros(micros),
                        "{text}"
                    );
                    days += if day == 1 { i64::from(days_in(year, month)) - 1 } else { 1 };
                }
                let past = format!("{year:04}-{month:02}-{:02}T00:00:00Z", days_in(year, month) + 1);
                assert!(Timestamp::parse(&past).is_err(), "{past}");
            }
        }
        for bad in
            ["2026-00-10T00:00:00Z", "2026-13-10T00:00:00Z", "2026-01-00T00:00:00Z", "2026-1x-10T00:00:00Z"]
        {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips_and_keeps_order(a in 0..=MAX_MICROS, b in 0..=MAX_MICROS) {
            let (a, b) = (Timestamp(a), Timestamp(b));
            prop_assert_eq!(Timestamp::from_text(&a.to_text()), Some(a));
            prop_assert_eq!(Timestamp::parse(&a.to_string()), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_text().cmp(&b.to_text()));
        }
    }
}
