//! The worker: takes the lead, copies window by window, and rests when its epoch ends.

mod copying;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eb_contract::{
    Cut, ErrorKind, EventBusPublisher, EventBusReader, Offset, PartitionId, PublishRecord, ReadLimit,
    ReadState, Record, Result, StartAt, Timestamp, Topic,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::doc::is_conflict;
use crate::error::within;
use crate::latency::Whose;
use crate::mirror::doc::{Finding, FindingKind, MirrorState, TopicMirror};
use crate::mirror::follow::{Follower, Id, chain_reader, heads_on, open_heads, segment_of, topics};
use crate::shared::{Lease, Shared};
use crate::slot::Use;
use crate::state::{EndState, Side, State};

const OP: &str = "mirror";

/// The longest pause after a window that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a record that the mirror refuses for now is published again before the window fails.
const ATTEMPTS: usize = 3;

/// Mirrors whenever there is something to mirror and nobody else does, until the process's last handle is gone.
pub(crate) async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let me = name(&shared);
    let mut seen = None;
    loop {
        let lease = shared.lease();
        tokio::select! {
            () = shared.changed(&lease, shared.config.mirror.idle.max(lease.length() / 3)) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let lease = shared.lease();
        if !lease.state.is_active() || !lease.state.phase.is_mirrored() {
            continue;
        }
        match take_lead(&shared, &lease, &me, &mut seen).await {
            Ok(Some((version, mirror))) => {
                tracing::info!(run = mirror.run, from = %mirror.from, "mirroring");
                let mut worker = Worker {
                    shared: shared.clone(),
                    stop: stop.clone(),
                    version,
                    mirror,
                    work: HashMap::new(),
                };
                worker.lead().await;
                seen = None;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the mirror's register cannot be used"),
        }
    }
}

/// Two openings in one process are two workers.
fn name(shared: &Shared) -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let now = Timestamp::now().as_micros();
    format!("{} {now:x}-{}", shared.config.owner, MADE.fetch_add(1, Ordering::Relaxed))
}

/// Takes the lead where nobody has it, or nobody has heard of whoever has it for long enough.
async fn take_lead(
    shared: &Shared,
    lease: &Lease,
    me: &str,
    seen: &mut Option<(u64, Instant)>,
) -> Result<Option<(u64, MirrorState)>> {
    let (version, stands) = match shared.mirror.load().await? {
        Some((version, stands)) => (version, Some(stands)),
        None => (0, None),
    };
    let state = &lease.state;
    let next = match stands {
        Some(stands) if stands.run == state.mirror_run => {
            if stands.leader.is_some() {
                let now = Instant::now();
                match seen {
                    Some((of, since)) if *of == version => {
                        if now.saturating_duration_since(*since) < shared.config.mirror.patience {
                            return Ok(None);
                        }
                        tracing::warn!(former = ?stands.leader, "nothing is heard of the mirror's worker: taking over");
                    }
                    _ => {
                        *seen = Some((version, now));
                        return Ok(None);
                    }
                }
            }
            stands
        }
        // A later run than this process has heard of.
        Some(stands) if stands.run > state.mirror_run => return Ok(None),
        _ => MirrorState::new(state.mirror_run, state.primary()),
    };
    let next = MirrorState { leader: Some(me.to_owned()), ..next };
    match shared.mirror.swap(version, next, "a worker takes the lead").await {
        Ok(led) => Ok(Some(led)),
        Err(error) if is_conflict(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

struct Worker {
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
    version: u64,
    mirror: MirrorState,
    work: HashMap<Topic, TopicWork>,
}

/// What a worker has open of one topic.
struct TopicWork {
    source: Follower,
    target: Follower,
    /// Records found in the mirror's log that are not matched yet, by key, in order.
    there: HashMap<u64, VecDeque<(Id, u32, Offset)>>,
    /// Records found in the mirror's log that are not due there, and not explained yet.
    odd: Vec<(Id, u32, Offset)>,
    /// When the mirror's log was read last.
    looked: Instant,
}

impl TopicWork {
    fn keep(&mut self, found: &[Record]) {
        for record in found {
            let id = Id::of(record);
            let at = (id, record.eb_ref.partition_id.0, record.eb_ref.offset);
            self.there.entry(id.key).or_default().push_back(at);
        }
    }
}

/// Why a worker stops.
enum Stop {
    /// The epoch or run is over, or the process ends: it gives the lead back.
    Rest,
    /// Somebody else has taken over.
    Overtaken,
}

impl Worker {
    fn target(&self) -> Side {
        self.mirror.from.other()
    }

    /// Whether this run goes on, for sure: asked before anything is published.
    async fn may_write(&mut self) -> Result<bool> {
        if *self.stop.borrow() {
            return Ok(false);
        }
        let mut lease = self.shared.lease();
        if !lease.is_valid(Instant::now()) {
            lease = self.shared.refresh().await?;
        }
        Ok(lease.is_valid(Instant::now()) && self.goes_on(&lease))
    }

    fn goes_on(&self, lease: &Lease) -> bool {
        let state = &lease.state;
        state.is_active() && state.mirror_run == self.mirror.run && state.phase.is_mirrored()
    }

    async fn lead(&mut self) {
        let (shared, target) = (self.shared.clone(), self.target());
        let slot = &shared.side(target).slot;
        let mut publisher: Option<Arc<dyn EventBusPublisher>> = None;
        let stop = self.turns(&mut publisher).await;
        self.work.clear();
        if publisher.is_some()
            && let Err(error) = slot.release(Use::Mirror).await
        {
            tracing::warn!(%error, "the mirror's publisher could not be closed in order");
        }
        if let Stop::Rest = stop {
            self.mirror.leader = None;
            // If it cannot be told, the next worker waits a little.
            if let Err(error) = self.store("the worker rests").await {
                tracing::warn!(%error, "the mirror's lead could not be given back");
            }
        }
    }

    async fn turns(&mut self, publisher: &mut Option<Arc<dyn EventBusPublisher>>) -> Stop {
        let config = self.shared.config.mirror.clone();
        let (mut failing_since, mut pause): (Option<Instant>, _) = (None, config.idle);
        let (mut at_head, mut stored) = (Instant::now(), Instant::now());
        loop {
            let turn = match self.may_write().await {
                Ok(false) => return Stop::Rest,
                Ok(true) => self.turn(publisher).await,
                Err(error) => Err(error),
            };
            let now = Instant::now();
            let (idle, changed) = match turn {
                Ok(copied) => {
                    let was_failing = failing_since.take().is_some();
                    (self.mirror.error, self.mirror.failing_ms, pause) = (None, 0, config.idle);
                    if copied < config.window {
                        at_head = now;
                    }
                    (copied == 0, copied > 0 || was_failing)
                }
                Err(error) => {
                    if !self.goes_on(&self.shared.lease()) {
                        return Stop::Rest;
                    }
                    tracing::warn!(%error, "a window of the mirror has failed; trying again");
                    metrics::counter!("eb_rollout_mirror_failures_total").increment(1);
                    let since = *failing_since.get_or_insert(now);
                    self.mirror.failures += 1;
                    self.mirror.failing_ms = millis(now.saturating_duration_since(since));
                    self.mirror.error = Some(error.to_string().chars().take(500).collect());
                    // What was open may be of no use; what was published is looked for.
                    self.work.clear();
                    if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Poisoned)
                        && publisher.take().is_some()
                    {
                        let released = self.shared.side(self.target()).slot.release(Use::Mirror).await;
                        tracing::debug!(?released, "the mirror's publisher is opened anew");
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    (true, true)
                }
            };
            self.mirror.lag_ms = millis(now.saturating_duration_since(at_head));
            self.measure();
            if changed || stored.elapsed() >= config.patience / 4 {
                match self.store("mirrored").await {
                    Ok(()) => stored = now,
                    Err(error) if is_conflict(&error) => return Stop::Overtaken,
                    Err(error) => tracing::warn!(%error, "how far the mirror is could not be stored"),
                }
            }
            if idle {
                let lease = self.shared.lease();
                let mut stop = self.stop.clone();
                tokio::select! {
                    () = self.shared.changed(&lease, pause) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
        }
    }

    fn measure(&mut self) {
        if let Some((window, summary)) = self.shared.latencies.last(self.target(), Whose::Mirror) {
            self.mirror.p99_us = u64::try_from(summary.p99.as_micros()).ok();
            self.mirror.samples = summary.samples;
            self.mirror.window = window;
        }
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("eb_rollout_mirror_lag_seconds").set(self.mirror.lag_ms as f64 / 1000.0);
    }

    async fn store(&mut self, reason: &str) -> Result<()> {
        let (version, mirror) = self.shared.mirror.swap(self.version, self.mirror.clone(), reason).await?;
        (self.version, self.mirror) = (version, mirror);
        Ok(())
    }

    /// A window of each topic. Gives back how many records were copied.
    async fn turn(&mut self, publisher: &mut Option<Arc<dyn EventBusPublisher>>) -> Result<usize> {
        let lease = self.shared.lease();
        let (mut copied, rested) = (0, rests_for(&self.shared, &lease.state).is_none());
        let mut due = topics(&self.shared, &lease.state).await?;
        due.retain(|topic| rested || self.mirror.topics.contains_key(topic));
        if due.is_empty() {
            return Ok(0);
        }
        let publisher = match publisher {
            Some(publisher) => publisher.clone(),
            None => {
                let opened = self.shared.side(self.target()).slot.acquire(Use::Mirror).await?;
                publisher.insert(opened).clone()
            }
        };
        for topic in due {
            let Some(segment) = segment_of(&lease.state, &topic) else { continue };
            // Positions of an epoch whose end is not known may not be written behind.
            let chain = lease.state.topics.get(&topic).map_or(&[][..], Vec::as_slice);
            if chain.iter().any(|s| s.side == self.target() && s.end == EndState::Pending) {
                crate::switch::settle_topic(&self.shared, &topic).await?;
            }
            let mut work = match self.work.remove(&topic) {
                Some(work) => work,
                None => self.open(&lease, &topic, segment).await?,
            };
            let mut of = self.mirror.topics.remove(&topic).unwrap_or_default();
            let before = of.clone();
            let window = self.window(&publisher, &topic, &mut work, &mut of).await;
            let done = window.is_ok();
            self.mirror.topics.insert(topic.clone(), if done { of } else { before });
            copied += window?;
            self.work.insert(topic, work);
        }
        Ok(copied)
    }

    /// Opens a topic where the mirror stands; where it has not begun, decides where it begins and stores that first.
    async fn open(&mut self, lease: &Lease, topic: &Topic, segment: usize) -> Result<TopicWork> {
        if !self.mirror.topics.contains_key(topic) {
            let state = &lease.state;
            let of_side = state.topics.get(topic).and_then(|c| c.get(segment));
            // In reverse the whole epoch is copied; else what comes from now on.
            let source: BTreeMap<u32, Cut> = match (state.primary(), of_side) {
                (Side::New, Some(open)) => open.partitions.iter().map(|p| (p.id, Cut::Begin)).collect(),
                _ => open_heads(&self.shared, state, topic).await?,
            };
            let base = crate::chain::logical(segment, 0)?.0;
            let source: BTreeMap<u32, Cut> = source.into_iter().map(|(id, cut)| (base + id, cut)).collect();
            let mirror = heads_on(&self.shared, self.target(), topic).await?;
            let of = TopicMirror {
                source_start: source.clone(),
                mirror_start: mirror.clone(),
                source,
                mirror,
                records: 0,
            };
            self.mirror.topics.insert(topic.clone(), of);
            self.store("a topic's mirror begins").await?;
        }
        let of = self.mirror.topics.get(topic).cloned().unwrap_or_default();
        let reader = self.shared.side(self.target()).reader.clone();
        let mut target = Follower::open(reader, topic, None, of.mirror).await?;
        let source = Follower::open(chain_reader(&self.shared), topic, Some(segment), of.source).await?;
        // What a former worker, or a window that failed, has copied beyond the stored cuts.
        let found = target.read(4 * self.shared.config.mirror.window).await?;
        let (there, odd) = (HashMap::new(), Vec::new());
        let mut work = TopicWork { source, target, there, odd, looked: Instant::now() };
        work.keep(&found);
        Ok(work)
    }

    /// Copies and compares the next records of a topic.
    async fn window(
        &mut self,
        publisher: &Arc<dyn EventBusPublisher>,
        topic: &Topic,
        work: &mut TopicWork,
        of: &mut TopicMirror,
    ) -> Result<usize> {
        let window = self.shared.config.mirror.window;
        let records = work.source.read(window).await?;
        let count = records.len();
        if count > 0 {
            work.looked = Instant::now();
        } else if work.looked.elapsed() >= self.shared.config.triggers.check_every {
            // Also where nothing is to be copied it is noticed that the bus is gone, or that somebody else writes to it.
            let found = work.target.read(window).await?;
            work.keep(&found);
            work.looked = Instant::now();
        }
        let mut due = Vec::with_capacity(count);
        for record in records {
            let id = Id::of(&record);
            if !work.is_there(id) {
                let record = PublishRecord::new(record.partition_key, record.envelope);
                due.push((id, record));
            }
        }
        if count < window {
            // The primary's log holds nothing more: what is left in the mirror's is explained, or wrong.
            work.odd.extend(std::mem::take(&mut work.there).into_values().flatten());
        }
        let missing = self.copy(publisher, topic, work, of, due).await?;
        let again = missing.len() as u64;
        if again > 0 {
            tracing::warn!(%topic, records = again, "records that the mirror has ACKed are not there: copying them again");
            for (id, partition, offset) in self.copy_missing(publisher, topic, work, of, missing).await? {
                tracing::debug!(?id, "still missing");
                self.mirror.found(Finding {
                    topic: topic.clone(),
                    partition,
                    offset,
                    kind: FindingKind::Missing,
                });
            }
            self.mirror.repaired += again;
        }
        self.explain(topic, of, work).await?;
        of.records += count as u64;
        of.source.clone_from(&work.source.cuts);
        of.mirror.clone_from(&work.target.cuts);
        self.mirror.copied += count as u64;
        Ok(count)
    }

    /// What lies in the mirror's log and is not due there: late copies of what came before, or findings. All of them are looked for at once: the
    /// primary's log may be long.
    async fn explain(&mut self, topic: &Topic, of: &TopicMirror, work: &mut TopicWork) -> Result<()> {
        if work.odd.is_empty() {
            return Ok(());
        }
        let mut nobodys: HashSet<Id> = work.odd.iter().map(|(id, ..)| *id).collect();
        in_source(&self.shared, topic, of, &work.source.cuts, &mut nobodys).await?;
        for (id, partition, offset) in work.odd.drain(..) {
            if !nobodys.contains(&id) {
                self.mirror.duplicates += 1;
                continue;
            }
            let offset = offset.to_string();
            let finding = Finding { topic: topic.clone(), partition, offset, kind: FindingKind::Differing };
            self.mirror.found(finding);
        }
        Ok(())
    }
}

impl TopicWork {
    /// Whether a record is in the mirror's log already; what lies before it there is odd.
    fn is_there(&mut self, id: Id) -> bool {
        let Some(found) = self.there.get_mut(&id.key) else { return false };
        let Some(at) = found.iter().position(|(there, ..)| *there == id) else { return false };
        self.odd.extend(found.drain(..=at).take(at));
        if found.is_empty() {
            self.there.remove(&id.key);
        }
        true
    }
}

/// Takes away the records that the primary's log holds: looked for from where mirroring began to where it has come, and what is not there, in
/// the whole chain before; a copy of an earlier run, or a record of an earlier epoch, may land late.
async fn in_source(
    shared: &Arc<Shared>,
    topic: &Topic,
    of: &TopicMirror,
    cuts: &BTreeMap<u32, Cut>,
    wanted: &mut HashSet<Id>,
) -> Result<()> {
    let reader: Arc<dyn EventBusReader> = chain_reader(shared);
    for (partition, to) in cuts {
        let from = of.source_start.get(partition).copied().unwrap_or(Cut::Begin);
        look_through(&*reader, topic, *partition, StartAt::Cut(from), Some(to), wanted).await?;
    }
    if !wanted.is_empty() {
        for partition in reader.partitions(topic).await?.partitions {
            let id = partition.id.0;
            let to = cuts.get(&id);
            if to.is_some() || partition.closed {
                look_through(&*reader, topic, id, StartAt::Earliest, to, wanted).await?;
            }
        }
    }
    Ok(())
}

/// Takes away what a stretch of a partition holds.
async fn look_through(
    reader: &dyn EventBusReader,
    topic: &Topic,
    partition: u32,
    from: StartAt,
    to: Option<&Cut>,
    wanted: &mut HashSet<Id>,
) -> Result<()> {
    let mut cursor = reader.cursor(topic, PartitionId(partition), from).await?;
    let past = |cut: &Cut| to.is_some_and(|to| cut.compare(to).is_some_and(std::cmp::Ordering::is_ge));
    while !wanted.is_empty() && !past(&cursor.position()) {
        let batch = within(OP, Duration::from_secs(30), cursor.next(ReadLimit::default())).await?;
        for record in &batch.records {
            if to.is_none_or(|to| to.is_before(&record.eb_ref.offset) == Some(false)) {
                wanted.remove(&Id::of(record));
            }
        }
        if batch.state != ReadState::More {
            break;
        }
    }
    Ok(())
}

/// How much longer something may land on the mirror's bus that was sent while it was primary; `None` for not at all. Such a record lies behind the end of its
/// epoch, in no log, and would be taken for somebody else's if the mirror had begun before it.
pub(crate) fn rests_for(shared: &Shared, state: &State) -> Option<Duration> {
    let since = Timestamp::now().saturating_since(state.switched_at?);
    shared.config.rest.checked_sub(since).filter(|left| !left.is_zero())
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
