//! Where a file bus lives, and its limits.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::format::line::MAX_ENVELOPE_BYTES;
use eb_contract::{EnvelopeLimits, Error, ErrorKind, Result};

/// How to open a file bus.
#[derive(Debug, Clone)]
pub struct FileBusConfig {
    /// The folder that holds `bus.json` and a folder per topic.
    pub root: PathBuf,
    /// Make the folder and `bus.json` when they are not there. Readers that must not create anything turn it off. Default: on.
    pub create: bool,
    /// The most bytes of one envelope, at most [`MAX_ENVELOPE_BYTES`]. Default: 1 MiB.
    pub max_envelope_bytes: usize,
    /// The most records of one `publish_batch` call. Default: 10,000.
    pub max_batch_records: usize,
    /// About how many bytes one group (one write and one sync) may have, per partition. Two groups of encoded lines are in memory at
    /// most, one being filled and one being written. Default: 4 MiB.
    pub max_group_bytes: usize,
    /// How many bytes of records may wait, per partition, beyond the group being filled; their futures stay pending, which is the
    /// back-pressure. A call beyond that answers `Throttled` and has no effect. Default: 64 MiB.
    pub max_waiting_bytes: usize,
    /// The longest that a writer with nothing to do but a small group waits for as many callers as it had before to come back. It waits
    /// only while a group is smaller than the calls that were just answered suggest; awake, so that it costs a processor, as long as they do come.
    /// Default: 100 µs; zero turns it off.
    pub group_wait: Duration,
    /// The longest that a reader waits for another process that recovers a log, or makes durable what a dead writer left above the
    /// watermark. After that it shows the records below the watermark only, and waits for that process no more. Default: 5 s.
    pub settle_patience: Duration,
    /// How many bytes of blank lines to write ahead of the records, which then overwrite them: a sync of bytes that are there already costs less
    /// than one of a growing file. Every JSON-lines reader skips them, and close and recovery cut them, but a program that follows the file's
    /// end (`tail -f`) sees only them. 0, the default, turns it off; 1 MiB is a good value.
    pub preallocate_bytes: u64,
    /// The most room to ask of the file system beyond the end of a log that is written to, so that not every sync has to find some: never more
    /// than the log holds itself, never part of its length, given back when it is closed, or opened again after a crash. Where the file
    /// system cannot, or has no such room, it grows without; so it does with groups below a 32nd of this. Default: 16 MiB;
    /// 0 turns it off. Not used beside `preallocate_bytes`.
    pub reserve_bytes: u64,
    /// Lets a lone publisher's own thread write and sync, instead of handing over to the writer's thread, which costs more than
    /// a fast device's sync. Only whoever starts the runtime knows where that is allowed: see [`InlineCommit`]. Default: none.
    pub inline_commit: Option<InlineCommit>,
}

/// Runs blocking work on a thread that polls a publish future, if that is allowed there.
///
/// It is given work that takes as long as one sync, while few publishers are busy. It runs it at once and exactly once, having told
/// the runtime that this thread will block; or it returns without running it, where blocking is not allowed, and the writer's
/// thread does it. For tokio's multi-thread runtime it is `block_in_place`, after a look at the runtime's flavour (which does not tell
/// whether the thread runs a `LocalSet`, where `block_in_place` panics: do not use it there).
#[derive(Clone)]
pub struct InlineCommit(Arc<RunBlocking>);

type RunBlocking = dyn Fn(&mut dyn FnMut()) + Send + Sync;

impl InlineCommit {
    /// Runs blocking work through this function.
    pub fn new(run: impl Fn(&mut dyn FnMut()) + Send + Sync + 'static) -> Self {
        Self(Arc::new(run))
    }

    /// Whether the work was run.
    pub(crate) fn run(&self, work: impl FnOnce()) -> bool {
        let mut work = Some(work);
        (self.0)(&mut || {
            if let Some(work) = work.take() {
                work();
            }
        });
        work.is_none()
    }
}

impl fmt::Debug for InlineCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InlineCommit")
    }
}

impl FileBusConfig {
    /// A bus in this folder, with the defaults.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            create: true,
            max_envelope_bytes: EnvelopeLimits::DEFAULT_BYTES,
            max_batch_records: 10_000,
            max_group_bytes: 4 << 20,
            max_waiting_bytes: 64 << 20,
            group_wait: Duration::from_micros(100),
            settle_patience: Duration::from_secs(5),
            preallocate_bytes: 0,
            reserve_bytes: 16 << 20,
            inline_commit: None,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::new(ErrorKind::InvalidInput, "open", what));
        if self.max_envelope_bytes < 2 || self.max_envelope_bytes > MAX_ENVELOPE_BYTES {
            return bad(format!("max_envelope_bytes must be from 2 to {MAX_ENVELOPE_BYTES}"));
        }
        if self.max_batch_records == 0 || self.max_group_bytes == 0 || self.max_waiting_bytes == 0 {
            return bad("max_batch_records, max_group_bytes and max_waiting_bytes must not be 0".to_owned());
        }
        if self.preallocate_bytes > 1 << 30 || self.reserve_bytes > 1 << 30 {
            return bad("preallocate_bytes and reserve_bytes must not exceed 1 GiB".to_owned());
        }
        if self.group_wait > Duration::from_millis(100) {
            return bad("group_wait must not exceed 100 ms".to_owned());
        }
        Ok(())
    }
}
