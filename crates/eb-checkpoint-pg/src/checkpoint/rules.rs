//! When a commit is refused. The statement of the one-row path says the same in SQL.

use eb_contract::stores::{Checkpoint, Lease};
use eb_contract::{Error, ErrorKind, Result};

use super::OP_COMMIT as OP;

pub(super) fn place(c: &Checkpoint) -> String {
    format!("{} {}/{}", c.consumer, c.topic, c.partition_id)
}

fn refuse(kind: ErrorKind, c: &Checkpoint, message: String) -> Result<()> {
    Err(Error::new(kind, OP, message).at(place(c)))
}

/// Whether anybody may commit under this lease.
pub(super) fn check_lease(c: &Checkpoint, lease: &Lease) -> Result<()> {
    if (1..=256).contains(&lease.owner.chars().count()) {
        Ok(())
    } else {
        refuse(ErrorKind::InvalidInput, c, "a lease owner has 1 to 256 characters".to_owned())
    }
}

/// Whether `c` may replace what is stored.
pub(super) fn check(stored: Option<&Checkpoint>, c: &Checkpoint, lease: &Lease) -> Result<()> {
    let Some(stored) = stored else {
        return match c.version {
            0 => Ok(()),
            seen => refuse(
                ErrorKind::VersionConflict { current: 0 },
                c,
                format!("version {seen} was expected, nothing is stored"),
            ),
        };
    };
    if let Some(newest) = &stored.lease
        && (lease.epoch < newest.epoch || lease.epoch == newest.epoch && lease.owner != newest.owner)
    {
        return refuse(
            ErrorKind::Fenced,
            c,
            format!("epoch {} of `{}` has taken over from epoch {}", newest.epoch, newest.owner, lease.epoch),
        );
    }
    if c.bus_incarnation != stored.bus_incarnation {
        return refuse(
            ErrorKind::WrongIncarnation,
            c,
            format!("the checkpoint belongs to {}, not {}", stored.bus_incarnation, c.bus_incarnation),
        );
    }
    if c.version != stored.version {
        return refuse(
            ErrorKind::VersionConflict { current: stored.version },
            c,
            format!("version {} was expected, version {} is stored", c.version, stored.version),
        );
    }
    match c.cut.compare(&stored.cut) {
        None => refuse(
            ErrorKind::InvalidInput,
            c,
            "the cut is of another offset kind than the stored one".to_owned(),
        ),
        Some(order) if order.is_lt() => refuse(
            ErrorKind::BackwardCommit { current: stored.cut },
            c,
            format!("{} lies before the stored {}", c.cut, stored.cut),
        ),
        Some(_) => Ok(()),
    }
}

/// What the innocent ones of a refused commit are told.
pub(super) fn not_attempted(c: &Checkpoint) -> Error {
    Error::new(ErrorKind::NotAttempted, OP, "another checkpoint of the commit was refused").at(place(c))
}
