//! The writer of one partition: takes groups from the queue, makes them durable, answers them (FORMAT.md, section 5).
//!
//! One thread per partition that is published to, started by the first publish. It alone touches the log. While it syncs a group, the next one
//! forms; a group that is smaller than the calls just answered suggest is given a moment to grow, since one sync costs as much
//! as hundreds of records.
//!
//! # States
//! *cold* (nothing open; records wait) → *running* → *closed*. A failed sync, or a failed write that could not be undone, leads to *failed*, as does
//! a log that recovery refuses: every call then gets that error, until the publisher is closed and a new one opens the log again.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use eb_contract::{Error, ErrorKind, PublishRecord, Result, Timestamp};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::bus::{BusShared, PartitionState};
use crate::commit::{Open, close_log};
use crate::layout::TopicMeta;
use crate::lock::{LeavingSoon, WriterId};
use crate::publisher::OP;
use crate::queue::{Completion, Queue, Run, answer_all};
use crate::recovery::{RecoveryReport, open_log};
use crate::reserve::Reserve;
use crate::state::TailState;
use crate::watch::{Arrivals, Worth};

/// Up to so many calls in a group, handing them to another thread costs more than it brings.
const INLINE_CALLS: usize = 1;

/// A partition as this process writes it.
pub(crate) struct PartitionWriter {
    id: WriterId,
    pub(crate) shared: Arc<BusShared>,
    meta: TopicMeta,
    pub(crate) partition: Arc<PartitionState>,
    pub(crate) state: Mutex<State>,
    /// Rings for the thread.
    work: Condvar,
    /// The open log. Held while it is opened, written, synced, closed; never while `state` is.
    log: Mutex<Option<Open>>,
    closed: Completion<Result<()>>,
    /// Calls in the front group.
    pub(crate) arrivals: Arrivals,
}

pub(crate) struct State {
    pub(crate) queue: Queue,
    pub(crate) phase: Phase,
    /// Whether there is a thread to take what is queued.
    thread: bool,
    /// The thread sleeps until the front group has this many calls.
    sleeping_for: Option<usize>,
    /// How many calls the next group is likely to have.
    pub(crate) expected: usize,
    watching: Worth,
    closing: Option<LeavingSoon>,
}

#[derive(Clone)]
pub(crate) enum Phase {
    Cold,
    Running,
    Failed(Error),
    Closed,
}

impl fmt::Debug for PartitionWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionWriter({})", self.partition)
    }
}

impl PartitionWriter {
    pub(crate) fn new(shared: Arc<BusShared>, meta: TopicMeta, partition: Arc<PartitionState>) -> Arc<Self> {
        let queue = Queue::new(shared.config.max_group_bytes, shared.config.max_waiting_bytes);
        let state = State {
            queue,
            phase: Phase::Cold,
            thread: false,
            sleeping_for: None,
            expected: 1,
            watching: Worth::default(),
            closing: None,
        };
        Arc::new(Self {
            id: WriterId::fresh(),
            shared,
            meta,
            partition,
            state: Mutex::new(state),
            work: Condvar::new(),
            log: Mutex::new(None),
            closed: Completion::default(),
            arrivals: Arrivals::default(),
        })
    }

    pub(crate) fn partition(&self) -> &Arc<PartitionState> {
        &self.partition
    }

    /// Queues one record. Its place in the log is fixed when this returns. The caller sees to it that [`Unattended::see_to`]
    /// is called for what comes back.
    pub(crate) fn enqueue_one(
        self: &Arc<Self>,
        record: &PublishRecord,
        may_block: bool,
    ) -> Result<(Run, Unattended)> {
        let now = Timestamp::now();
        let mut state = self.state.lock();
        self.prepare(&mut state, std::iter::once(record))?;
        let run = state.queue.push_one(record, now);
        Ok((run, self.attend(state, may_block)))
    }

    /// Queues the records of one call, in order, all or none; otherwise as [`PartitionWriter::enqueue_one`].
    pub(crate) fn enqueue_all<'r>(
        self: &Arc<Self>,
        records: impl Iterator<Item = &'r PublishRecord> + Clone,
    ) -> Result<(Vec<Run>, Unattended)> {
        let now = Timestamp::now();
        let mut state = self.state.lock();
        self.prepare(&mut state, records.clone())?;
        let runs = state.queue.push_all(records, now);
        Ok((runs, self.attend(state, false)))
    }

    /// Checks that these records may be queued and that there is a thread to take them.
    fn prepare<'r>(
        self: &Arc<Self>,
        state: &mut State,
        records: impl Iterator<Item = &'r PublishRecord>,
    ) -> Result<()> {
        state.accepts()?;
        state.queue.admits(records).map_err(|waiting| {
            let what = format!("{waiting} bytes of records wait for the disk already");
            Error::new(ErrorKind::Throttled { after: None }, OP, what)
                .at(&self.partition)
                .advise("wait for earlier publishes before making new ones")
        })?;
        if !state.thread {
            let writer = self.clone();
            thread::Builder::new().name(self.thread_name()).spawn(move || writer.run()).map_err(|e| {
                Error::new(ErrorKind::Unavailable, OP, "cannot start the writer's thread")
                    .at(&self.partition)
                    .with_source(e)
            })?;
            state.thread = true;
        }
        Ok(())
    }

    fn thread_name(&self) -> String {
        format!("eb-file {}", self.partition)
    }

    /// After queueing: leaves the records to the caller's own thread if few are about, and to the writer's thread otherwise.
    fn attend(self: &Arc<Self>, state: MutexGuard<'_, State>, may_block: bool) -> Unattended {
        let inline = (may_block || self.shared.config.inline_commit.is_some())
            && matches!(state.phase, Phase::Running)
            && state.expected <= INLINE_CALLS
            && state.queue.front_calls() <= INLINE_CALLS;
        if inline {
            return Unattended(Some(self.clone()));
        }
        self.ring(state);
        Unattended(None)
    }

    /// Wakes the thread if what is queued is what it sleeps for.
    fn ring(&self, mut state: MutexGuard<'_, State>) {
        let queue = &state.queue;
        if queue.front_is_full() {
            self.arrivals.stop();
        } else {
            self.arrivals.set(queue.front_calls());
        }
        if state.sleeping_for.is_some_and(|calls| queue.front_calls() >= calls || queue.front_is_full()) {
            state.sleeping_for = None;
            drop(state);
            self.work.notify_one();
        }
    }

    /// Writes and syncs what is queued on this thread, if that is allowed here and nobody else is at it.
    fn commit_inline(&self) {
        let inline = self.shared.config.inline_commit.as_ref();
        if !inline.is_some_and(|inline| inline.run(|| self.commit_here())) {
            self.ring(self.state.lock());
        }
    }

    /// Writes and syncs what is queued on this thread, if nobody else is at it.
    fn commit_here(&self) {
        // Whoever holds it looks at the queue again after giving it up, so what is queued is not forgotten.
        if let Some(log) = self.log.try_lock() {
            self.commit(log);
            self.ring(self.state.lock());
        }
    }

    /// Locks and recovers the log if that has not been done. Blocking.
    pub(crate) fn ensure_open(&self) -> Result<RecoveryReport> {
        let mut log = self.log.lock();
        self.state.lock().accepts_or_closing()?;
        if let Some(open) = &*log {
            return Ok(open.report.clone());
        }
        let disk = &*self.shared.disk;
        let opened = open_log(
            disk,
            &self.partition.files,
            &self.meta,
            self.partition.id,
            self.shared.boot_id,
            self.id,
        );
        let mut state = self.state.lock();
        match opened {
            Ok((opened, report)) => {
                if report.torn.is_some() || report.rebuilt.is_some() {
                    tracing::warn!("recovered {report}");
                } else {
                    tracing::debug!("opened {report}");
                }
                state.queue.go_on_from(opened.end, opened.spacing);
                state.phase = Phase::Running;
                let tail = Arc::new(TailState::new(opened.end));
                self.partition.set_tail(Some(tail.clone()));
                *log = Some(Open {
                    log: opened,
                    tail,
                    report: report.clone(),
                    appended: false,
                    padded_to: 0,
                    reserve: Reserve::default(),
                });
                Ok(report)
            }
            Err(error) => {
                // What a restored log or an upgrade cures needs a new open anyway; anything else may pass by itself.
                let lasting = matches!(
                    error.kind(),
                    ErrorKind::Corrupt { .. } | ErrorKind::FactsMissing | ErrorKind::WrongVersion
                );
                if lasting {
                    state.phase = Phase::Failed(error.clone());
                }
                let waiting = state.queue.drain();
                drop(state);
                answer_all(waiting, &error);
                Err(error)
            }
        }
    }

    fn run(self: Arc<Self>) {
        let _guard = PanicGuard(&self);
        while self.ensure_open().is_err() {
            let mut state = self.state.lock();
            if state.queue.is_empty() {
                // Decided under the lock: whoever queues or closes later sees that there is no thread.
                if state.closing.is_none() {
                    state.thread = false;
                    return;
                }
                break;
            }
        }
        while self.wait_for_work() {
            self.commit(self.log.lock());
        }
        self.finish();
    }

    /// Waits until there is a group worth writing; false when there will be none any more.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state.lock();
        let wait = self.shared.config.group_wait;
        if state.expected > 1 && !wait.is_zero() {
            // One wake-up for all who come back, instead of one for the first and one for the last of them.
            let until = Instant::now() + wait;
            let enough = |s: &State| {
                s.queue.front_calls() >= s.expected || s.queue.front_is_full() || s.closing.is_some()
            };
            if !enough(&state) && state.watching.again() {
                let expected = state.expected;
                let came = MutexGuard::unlocked(&mut state, || self.arrivals.watch(expected, until));
                if let Some(came) = came {
                    state.watching.learn(came);
                }
            }
            while !enough(&state) {
                state.sleeping_for = Some(state.expected);
                let timed_out = self.work.wait_until(&mut state, until).timed_out();
                state.sleeping_for = None;
                if timed_out {
                    break;
                }
            }
        }
        while state.queue.is_empty() {
            if state.closing.is_some() || matches!(state.phase, Phase::Failed(_)) {
                // A failed writer takes no more calls, so its thread can go; close finds the log by itself.
                return false;
            }
            state.sleeping_for = Some(1);
            self.work.wait(&mut state);
            state.sleeping_for = None;
        }
        true
    }

    /// Refuses calls from now on; what was called before is still done, and then the log closed. Does not block.
    pub(crate) fn begin_close(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.closing.is_some() || matches!(state.phase, Phase::Closed) {
            return;
        }
        state.closing = Some(LeavingSoon::announce(&self.partition.files.lock, self.id));
        self.arrivals.stop();
        if state.thread {
            drop(state);
            self.work.notify_one();
            return;
        }
        if matches!(state.phase, Phase::Cold) {
            // Nothing was ever opened; a probe that opens it right now gives it up again when it sees this.
            state.phase = Phase::Closed;
        }
        state.thread = true;
        drop(state);
        let writer = self.clone();
        let spawned = thread::Builder::new().name(self.thread_name()).spawn(move || writer.finish());
        if spawned.is_err() {
            // Nothing is in flight without a thread; what is left takes two syncs at most.
            self.finish();
        }
    }

    /// Closes the log: sidecar marked clean and synced, readers told, lock given up. Without a close, a failed writer only leaves its thread.
    fn finish(&self) {
        {
            let mut state = self.state.lock();
            if state.closing.is_none() {
                state.thread = false;
                return;
            }
        }
        let mut log = self.log.lock();
        let failed = matches!(self.state.lock().phase, Phase::Failed(_));
        let mut outcome = Ok(());
        if let Some(mut open) = log.take() {
            self.partition.set_tail(None);
            if !failed && (open.appended || !open.report.clean) {
                outcome = close_log(&mut open);
            }
            open.tail.end();
        }
        let leaving = {
            let mut state = self.state.lock();
            state.phase = Phase::Closed;
            state.thread = false;
            state.closing.take()
        };
        drop(log);
        drop(leaving);
        self.closed.complete(outcome);
    }

    /// Waits for the end of what [`PartitionWriter::begin_close`] began.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>, slot: &mut Option<usize>) -> Poll<Result<()>> {
        self.closed.poll(cx, slot).map(Clone::clone)
    }
}

impl State {
    fn accepts(&self) -> Result<()> {
        if self.closing.is_some() {
            return Err(closed(OP));
        }
        self.accepts_or_closing()
    }

    fn accepts_or_closing(&self) -> Result<()> {
        match &self.phase {
            Phase::Cold | Phase::Running => Ok(()),
            Phase::Failed(error) => Err(error.clone()),
            Phase::Closed => Err(closed(OP)),
        }
    }
}

/// Queued records that nobody was told of yet. Whoever polls for them first commits them; dropped before that, the
/// writer's thread does, since dropping a publish does not withdraw it.
#[derive(Default)]
pub(crate) struct Unattended(Option<Arc<PartitionWriter>>);

impl Unattended {
    /// To be called on a thread that may block as long as it likes.
    pub(crate) fn see_to_now(&mut self) {
        if let Some(writer) = self.0.take() {
            writer.commit_here();
        }
    }

    /// To be called when the records are first polled for.
    pub(crate) fn see_to(&mut self) {
        if let Some(writer) = self.0.take() {
            writer.commit_inline();
        }
    }
}

impl Drop for Unattended {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take() {
            writer.ring(writer.state.lock());
        }
    }
}

/// The error of a call after `close`.
pub(crate) fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op, "this publisher was closed").advise("take a new one from the bus")
}

/// A writer that panics must not leave its callers waiting: those in the group at hand are answered by the group itself.
struct PanicGuard<'a>(&'a PartitionWriter);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let error = Error::new(ErrorKind::Poisoned, OP, "the writer's thread panicked")
            .at(&self.0.partition)
            .advise("report this as a bug; close this publisher and open a new one");
        let waiting = {
            let mut state = self.0.state.lock();
            state.phase = Phase::Failed(error.clone());
            state.thread = false;
            state.queue.drain()
        };
        answer_all(waiting, &error);
        self.0.finish();
    }
}
