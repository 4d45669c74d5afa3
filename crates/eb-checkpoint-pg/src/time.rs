//! Times as the database holds them: `timestamptz`, microseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eb_contract::{Result, Timestamp};

use crate::position::corrupt;

pub(crate) fn to_system(at: Timestamp) -> SystemTime {
    // No timestamp of the contract lies before 1970; one that did would be stored as 1970.
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0))
}

pub(crate) fn from_system(op: &'static str, place: &str, at: SystemTime) -> Result<Timestamp> {
    let micros = at.duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_micros()).ok());
    micros.and_then(Timestamp::from_micros).ok_or_else(|| corrupt(op, place, format!("the time {at:?}")))
}
