//! Records that end the process of whoever handles them.
//!
//! Attempts are counted in memory, so a record under which the process dies (an abort, a stack that overflows, a handler that the system kills for its
//! memory) would come for ever. What is known of such ends is a *note* for each partition ([`note`]), in a register beside the leases.
//!
//! # Protocol
//! - **Taking** a partition: the note is read, judged, and replaced by one that names the new holder and the stored cut. A note that still names
//!   another holder was left by one that died, or was stopped past its lease: a *crash*. Crashes are counted as long as the stored cut
//!   stays where it is.
//! - **Giving back**: the note no longer names a holder. That is all as long as nobody dies: two writes for each taking of a partition.
//! - After [`RetryPolicy::max_crashes`](crate::RetryPolicy::max_crashes) crashes the partition is worked on **with care**: what the dead holder may have
//!   read is handled one record at a time, alone, and the note names the record, durably, before its handler is called (the record is *on trial*). When
//!   nothing is left to call, the note names none. Care ends at the head, or after as many records as a holder has room for.
//! - A crash with a record on trial is counted for that record, until it survives a call. A record with so many is not called again: all its attempts are
//!   used up, and what becomes of it is said by [`RetryPolicy::after_max`](crate::RetryPolicy::after_max).
//!
//! # What that comes to
//! - A record that always ends its process does so at most twice [`RetryPolicy::max_crashes`](crate::RetryPolicy::max_crashes) times, as long as the stored cut does not move
//!   meanwhile; each time it does, the first count starts over.
//! - A record that does no harm is given up only if its worker happened to die that often during its very call, each time the next one tried it, while under
//!   care. Restarts that finish what runs are no crashes.
//! - Killing workers at random slows the next holder down at the worst.
//!
//! # Failure cases
//! | what | outcome |
//! |---|---|
//! | the register cannot be read when a partition is taken | the partition is not opened; tried again as any that could not be |
//! | it cannot be written under care | no handler is called until it can: an end that nobody could tell would not count |
//! | it cannot be written when a partition is given back | the next holder counts a crash, of no record |
//! | the holder's lease ended while it lives (it was stopped, the store was away) | it says so if the note is still its own; if another was quicker, that is a crash |
//! | the answer to a write is lost | the note tells: its versions rise by one, and only its holder writes |
//! | another worker has taken over | the write conflicts, and the lane ends, fenced |

mod note;

use std::sync::Arc;

use bytes::Bytes;
use eb_contract::stores::{Lease, LeaseKey, RegisterStore};
use eb_contract::{BoxFuture, BusIncarnation, Cut, EbRef, Effect, Error, ErrorKind, RegisterName, Result};

use self::note::Note;
use crate::context::Context;
use crate::partition::{Partition, Seq};

/// What is known of the crashes of a partition, and the care that follows.
pub(crate) struct Care {
    /// `None` where nothing is counted.
    kept: Option<Kept>,
    /// Records before this one are worked on with care; all, until it is known where that ends.
    until: Option<Until>,
    /// How many records a holder may have read.
    room: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Unknown,
    Known(Seq),
}

struct Kept {
    registers: Arc<dyn RegisterStore>,
    name: RegisterName,
    version: u64,
    note: Note,
    limit: u32,
    /// The note has changed since it was written.
    dirty: bool,
    writing: bool,
}

impl Care {
    /// Takes a partition, at the cut that is stored.
    pub(crate) async fn take(
        ctx: &Context,
        key: &LeaseKey,
        lease: &Lease,
        incarnation: &BusIncarnation,
        cut: Cut,
    ) -> Result<Self> {
        let room = ctx.limits.partition_records as u64;
        let Some(limit) = ctx.retry.max_crashes.filter(|_| ctx.in_order) else {
            return Ok(Self { kept: None, until: None, room });
        };
        let (registers, name) = (Arc::clone(&ctx.stores.registers), note::name(key)?);
        let stored = registers.load(&name).await?;
        let before = stored.as_ref().map(|stored| Note::read(&name, key, &stored.value)).transpose()?;
        if before.as_ref().is_some_and(|before| before.epoch > lease.epoch) {
            return Err(taken_over(&name));
        }
        let note = Note::taken(before, key, lease, incarnation, cut);
        let version = stored.map_or(0, |stored| stored.version);
        let version = swap(&*registers, &name, version, note.bytes(), "taken").await?;
        let careful = note.calls_for_care(limit);
        if careful {
            tracing::warn!(
                consumer = %ctx.consumer, topic = %key.topic, partition = %key.partition_id, crashes = note.crashes,
                "its holders ended, one after the other, without getting on: worked on with care, one record at a time"
            );
        }
        let kept = Kept { registers, name, version, note, limit, dirty: false, writing: false };
        Ok(Self { kept: Some(kept), until: careful.then_some(Until::Unknown), room })
    }

    /// So much was read, and whether that is up to the head: nobody before can have read further.
    pub(crate) fn read_to(&mut self, end: Seq, head: bool) {
        if self.until == Some(Until::Unknown) && (head || end >= self.room) {
            self.until = Some(Until::Known(end));
        }
    }

    /// Whether the record is to be called alone, and on trial.
    pub(crate) fn covers(&self, seq: Seq) -> bool {
        match self.until {
            None => false,
            Some(Until::Unknown) => true,
            Some(Until::Known(end)) => seq < end,
        }
    }

    /// How often holders ended under a record that is not to be called any more.
    pub(crate) fn condemned(&self, record: &EbRef) -> Option<u32> {
        self.until?;
        let kept = self.kept.as_ref()?;
        Some(kept.note.deaths(record)).filter(|deaths| *deaths >= kept.limit)
    }

    /// Puts a record on trial, in place of the last one. It may be called once [`Care::is_on_trial`] says so.
    pub(crate) fn try_record(&mut self, record: &EbRef) {
        self.set_trial(Some(record));
    }

    /// Nothing is left to call.
    pub(crate) fn rest(&mut self) {
        if self.until.is_some() {
            self.set_trial(None);
        }
    }

    fn set_trial(&mut self, record: Option<&EbRef>) {
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.note.trial.as_ref() != record) {
            kept.note.trial = record.cloned();
            kept.dirty = true;
        }
    }

    /// Whether it is durable that this record is on trial.
    pub(crate) fn is_on_trial(&self, record: &EbRef) -> bool {
        self.is_settled() && self.kept.as_ref().is_some_and(|kept| kept.note.trial.as_ref() == Some(record))
    }

    /// Whether the note is durable as it stands.
    pub(crate) fn is_settled(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| !kept.dirty && !kept.writing)
    }

    /// The record survived a call.
    pub(crate) fn survived(&mut self, record: &EbRef) {
        if let (true, Some(kept)) = (self.until.is_some(), &mut self.kept) {
            kept.note.acquit(record);
        }
    }

    /// Ends the care once everything that calls for it is finished.
    pub(crate) fn end_if_done(&mut self, partition: &mut Partition) {
        let (Some(Until::Known(end)), Some(kept)) = (self.until, &mut self.kept) else { return };
        if partition.is_finished_to(end) {
            tracing::info!(register = %kept.name, "worked on with care to the end; on as usual");
            self.until = None;
            kept.note.clear();
            kept.dirty = true;
        }
    }

    /// Whether there is something to write, and nothing on its way.
    pub(crate) fn is_due(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.dirty && !kept.writing)
    }

    /// Writes the note as it stands. Answered by [`Care::written`]. Dropping the future leaves it written or not.
    pub(crate) fn write(&mut self) -> Option<BoxFuture<'static, Result<u64>>> {
        let kept = self.kept.as_mut()?;
        (kept.dirty, kept.writing) = (false, true);
        let (registers, name, version) = (Arc::clone(&kept.registers), kept.name.clone(), kept.version);
        let (value, reason) = (kept.note.bytes(), kept.note.reason());
        Some(Box::pin(async move { swap(&*registers, &name, version, value, &reason).await }))
    }

    /// The note was written as this version, or was not.
    pub(crate) fn written(&mut self, version: Option<u64>) {
        let Some(kept) = &mut self.kept else { return };
        kept.writing = false;
        match version {
            Some(version) => kept.version = version,
            None => kept.dirty = true,
        }
    }

    /// The holder lives, and gives the partition back. After a halt everything starts over: a restart is to try the record again.
    pub(crate) fn give_back(self, halted: bool) -> Option<BoxFuture<'static, Result<()>>> {
        let Kept { registers, name, mut version, mut note, .. } = self.kept?;
        let (epoch, holder) = (note.epoch, note.holder.take());
        note.trial = None;
        if halted {
            note.clear();
        }
        Some(Box::pin(async move {
            let value = note.bytes();
            match swap(&*registers, &name, version, value.clone(), "given back").await {
                // A write that was given up on the way may have been made.
                Err(error) if matches!(error.kind(), ErrorKind::Fenced) => {
                    let Some(stored) = registers.load(&name).await? else { return Err(error) };
                    let there = Note::parse(&name, &stored.value)?;
                    if there.epoch != epoch || there.holder != holder {
                        return Err(error);
                    }
                    version = stored.version;
                    swap(&*registers, &name, version, value, "given back").await.map(drop)
                }
                answer => answer.map(drop),
            }
        }))
    }
}

/// Replaces the note, and finds out what became of it where nobody said.
async fn swap(
    registers: &dyn RegisterStore,
    name: &RegisterName,
    expected: u64,
    value: Bytes,
    reason: &str,
) -> Result<u64> {
    let error = match registers.swap(name, expected, value.clone(), reason).await {
        Ok(made) => return Ok(made.version),
        Err(error) => error,
    };
    let conflict = matches!(error.kind(), ErrorKind::VersionConflict { .. });
    if !conflict && error.effect() != Effect::Unknown {
        return Err(error);
    }
    match registers.load(name).await? {
        Some(there) if there.version == expected + 1 && there.value == value => Ok(there.version),
        _ if conflict => Err(taken_over(name)),
        _ => Err(error),
    }
}

fn taken_over(name: &RegisterName) -> Error {
    Error::new(ErrorKind::Fenced, "note crash", "another worker has taken the partition over").at(name)
}
