//! Registers: small durable values that several processes agree on.
//!
//! A register holds one value and its version. It changes by compare-and-set alone, and all calls of all processes on one
//! register are **linearizable**: each takes effect at one moment between its call and its answer. What a `load`
//! has shown, or a `swap` has answered, survives a power cut: nobody ever acts on a value that goes away again.
//!
//! Whoever needs a lock, a leader or an agreed plan among processes builds it on this (see `eb-rollout`).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BoxFuture, Error, ErrorKind, RegisterName, Result, Timestamp};

/// The most bytes of a register's value: 1 MiB.
pub const MAX_REGISTER_BYTES: usize = 1 << 20;

/// How many of a register's newest changes its history keeps at the least.
pub const REGISTER_HISTORY: usize = 100;

/// The most characters of a change's reason.
const MAX_REASON: usize = 1024;

/// A register's value and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// 1 for the first value, one more with each swap.
    pub version: u64,
    /// The value.
    pub value: Bytes,
}

/// What a swap has left for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterChange {
    /// The version that it made.
    pub version: u64,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// Named registers.
pub trait RegisterStore: Send + Sync + 'static {
    /// The value that stands; `None` where there never was one. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when what is stored cannot be read: never "none".
    fn load<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Versioned>>>;

    /// Replaces the value if its version is still `expected` (0: if there is none), durably before the answer.
    /// Dropping the future leaves it done or not done.
    ///
    /// # Errors
    /// [`ErrorKind::VersionConflict`] when another version stands; nothing was changed then.
    /// [`ErrorKind::InvalidInput`] without a reason of 1 to 1,024 characters, [`ErrorKind::TooLarge`] for more than
    /// [`MAX_REGISTER_BYTES`]. With [`Effect::Unknown`](crate::Effect::Unknown) a `load` tells: a value that only this caller
    /// can have made stands, or it does not.
    fn swap<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: u64,
        value: Bytes,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Versioned>>;

    /// The newest changes, at most `max`, newest first. At least the last [`REGISTER_HISTORY`] are kept.
    ///
    /// # Errors
    /// When it cannot be read.
    fn history<'a>(
        &'a self,
        name: &'a RegisterName,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<RegisterChange>>>;

    /// Checks that a swap could succeed now, without making one; for health.
    ///
    /// # Errors
    /// Why it would fail.
    fn probe(&self) -> BoxFuture<'_, Result<()>>;
}

/// What every store checks of a swap before it looks at versions.
///
/// # Errors
/// As [`RegisterStore::swap`], for the value and the reason.
pub fn check_swap(name: &RegisterName, value: &Bytes, reason: &str) -> Result<()> {
    const OP: &str = "swap register";
    if value.len() > MAX_REGISTER_BYTES {
        let kind = ErrorKind::TooLarge { size: value.len(), limit: MAX_REGISTER_BYTES };
        let what = format!("the value has {} bytes, the limit is {MAX_REGISTER_BYTES}", value.len());
        return Err(Error::new(kind, OP, what).at(name));
    }
    let characters = reason.chars().count();
    if reason.trim().is_empty() || characters > MAX_REASON {
        let what = format!("a change needs a reason of 1 to {MAX_REASON} characters");
        return Err(Error::new(ErrorKind::InvalidInput, OP, what).at(name));
    }
    Ok(())
}

/// The refusal of a swap that expected another version.
#[must_use]
pub fn version_conflict(name: &RegisterName, expected: u64, current: u64) -> Error {
    let what = format!("version {current} stands, {expected} was expected");
    Error::new(ErrorKind::VersionConflict { current }, "swap register", what)
        .at(name)
        .advise("load it and decide again")
}
