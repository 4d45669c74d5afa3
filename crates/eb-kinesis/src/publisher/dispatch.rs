//! The task of a topic: takes records in, keeps calls under way, gives answers out.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{BusIncarnation, Error, ErrorKind, Offset, PartitionId, Result, Timestamp, Topic};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::OP;
use super::call::{self, Answer, Outcome};
use super::intake::{Intake, Pending};
use super::pace::Backoff;
use super::scheduler::{CallId, Scheduler};
use super::stats::Counters;
use crate::bus::Shared;
use crate::shards::{self, Layout};

/// How the topic's work has ended, once it has.
pub(super) type Ended = watch::Receiver<Option<Result<()>>>;

/// Starts the topic's task. It ends when the intake is closed and all is answered, or with the runtime.
pub(super) fn start(
    shared: Arc<Shared>,
    topic: Topic,
    intake: Arc<Intake>,
    counters: Arc<Counters>,
) -> Ended {
    let (ended, end) = watch::channel(None);
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let outcome = Dispatcher::new(shared, topic, intake, counters).run().await;
        ended.send_replace(Some(outcome));
    });
    end
}

enum Done {
    /// With when it was sent, and how long it took.
    Call(CallId, Answer, (Timestamp, Duration)),
    Look(Result<Layout>),
}

struct Dispatcher {
    shared: Arc<Shared>,
    topic: Topic,
    stream: Arc<str>,
    intake: Arc<Intake>,
    counters: Arc<Counters>,
    scheduler: Scheduler,
    work: JoinSet<Done>,
    /// Which call a task makes, for the case that it ends without saying what became of it.
    tasks: HashMap<Id, CallId>,
    look: Look,
    entering: Vec<Pending>,
    closing: bool,
    /// The first failure since the closing began.
    unfinished: Option<Error>,
}

/// What is known of the stream's shape.
struct Look {
    /// Records wait for the first look's end, whatever it is.
    wanted_first: bool,
    under_way: bool,
    /// When to look again, where something did not fit or a look failed.
    again: Option<Instant>,
    failures: Backoff,
    incarnation: Option<BusIncarnation>,
}

impl Dispatcher {
    fn new(shared: Arc<Shared>, topic: Topic, intake: Arc<Intake>, counters: Arc<Counters>) -> Self {
        let now = Instant::now();
        let seed = RandomState::new().hash_one(topic.as_str());
        let scheduler = Scheduler::new(topic.clone(), shared.config.publish.clone(), now, seed);
        let stream = shared.config.streams.stream_of(&topic).into();
        let look = Look {
            wanted_first: true,
            under_way: false,
            again: None,
            failures: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
            incarnation: None,
        };
        Self {
            shared,
            topic,
            stream,
            intake,
            counters,
            scheduler,
            work: JoinSet::new(),
            tasks: HashMap::new(),
            look,
            entering: Vec::new(),
            closing: false,
            unfinished: None,
        }
    }

    async fn run(mut self) -> Result<()> {
        loop {
            self.take_in();
            self.start_work();
            self.give_answers();
            if self.closing && self.scheduler.is_idle() {
                return self.unfinished.take().map_or(Ok(()), Err);
            }
            let wake = self.wake_at();
            tokio::select! {
                Some(done) = self.work.join_next_with_id() => {
                    self.done(done);
                    while let Some(done) = self.work.try_join_next_with_id() {
                        self.done(done);
                    }
                    if self.give_answers() > 1 {
                        // Those who were answered publish again, as a rule: the next call is to have their records too.
                        tokio::task::yield_now().await;
                    }
                }
                () = self.intake.arrived() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn take_in(&mut self) {
        {
            let mut door = self.intake.door();
            door.take(&mut self.entering);
            self.closing = door.is_closed();
        }
        self.entering.drain(..).for_each(|pending| self.scheduler.enqueue(pending));
    }

    fn start_work(&mut self) {
        if !self.scheduler.has_work() {
            return;
        }
        let now = Instant::now();
        let due = self.look.wanted_first || self.look.again.is_some_and(|at| at <= now);
        if due && !self.look.under_way {
            self.look.under_way = true;
            self.look.again = None;
            let (shared, topic, stream) = (self.shared.clone(), self.topic.clone(), self.stream.clone());
            let look = async move { Done::Look(shards::look(&shared.client, OP, &topic, &stream).await) };
            self.work.spawn(look);
        }
        if self.look.wanted_first {
            return;
        }
        while let Some((id, records)) = self.scheduler.next_call(now) {
            let (shared, topic, stream) = (self.shared.clone(), self.topic.clone(), self.stream.clone());
            let call = async move {
                let (sent_at, started) = (Timestamp::now(), Instant::now());
                let answer = call::put(&shared.client, &topic, &stream, &records).await;
                Done::Call(id, answer, (sent_at, started.elapsed()))
            };
            let task = self.work.spawn(call);
            self.tasks.insert(task.id(), id);
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.look.wanted_first {
            return None;
        }
        let now = Instant::now();
        let look = self.look.again.filter(|_| self.scheduler.has_work() && !self.look.under_way);
        match (self.scheduler.wake_at(now), look) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn done(&mut self, done: Result<(Id, Done), tokio::task::JoinError>) {
        let now = Instant::now();
        match done {
            Ok((task, Done::Call(id, answer, (sent_at, took)))) => {
                self.tasks.remove(&task);
                if let Answer::All(Outcome::Failed(error)) = &answer {
                    // Such as a stream that is gone: its shape is not what it was, if there is one.
                    self.look.wanted_first |= matches!(error.kind(), ErrorKind::NotFound);
                }
                self.tell_readers(&answer, sent_at);
                let (records, sent_again) = self.scheduler.answered(id, answer, now);
                self.counters.count(records, sent_again, took);
                if self.scheduler.take_surprise() && self.look.again.is_none() {
                    self.look.again = Some(self.look.failures.until(now).unwrap_or(now));
                }
            }
            Ok((_, Done::Look(result))) => self.looked(result, now),
            Err(failed) => {
                let what = format!("the call's task ended without an answer: {failed}");
                let error = Error::new(ErrorKind::Unavailable, OP, what)
                    .at(&self.topic)
                    .with_effect(eb_contract::Effect::Unknown);
                match self.tasks.remove(&failed.id()) {
                    Some(id) => drop(self.scheduler.answered(id, Answer::All(Outcome::Lost(error)), now)),
                    None => self.looked(Err(error), now),
                }
            }
        }
    }

    /// How far each shard now goes at least: who asks for its end need not look for it. Others may have published right
    /// behind, also long before the answer came: what lies after these records arrived after the call was sent.
    fn tell_readers(&self, answer: &Answer, sent_at: Timestamp) {
        let (Answer::Each(at, outcomes), Some(life)) = (answer, &self.look.incarnation) else { return };
        let mut furthest: BTreeMap<PartitionId, Offset> = BTreeMap::new();
        for outcome in outcomes {
            if let Outcome::Stored(partition, offset) = outcome {
                let known = furthest.entry(*partition).or_insert(*offset);
                if *offset > *known {
                    *known = *offset;
                }
            }
        }
        for (partition, offset) in furthest {
            let shard = self.shared.reads.shard(&self.shared.config.read, &self.topic, partition);
            shard.saw(life, offset, sent_at, *at);
        }
    }

    fn looked(&mut self, result: Result<Layout>, now: Instant) {
        self.look.under_way = false;
        // Another look comes a while after this one at the earliest, whatever seems to call for it.
        self.look.failures.fail(now, 0.0);
        match result {
            Ok(layout) => {
                self.look.failures.succeed();
                let known = self.look.incarnation.replace(layout.incarnation.clone());
                let remade = known.is_some_and(|known| known != layout.incarnation);
                if remade {
                    tracing::warn!(topic = %self.topic, "the stream was made anew");
                }
                let open = layout.shards.iter().filter(|s| !s.closed).count();
                tracing::debug!(topic = %self.topic, open, "the stream's shards are known");
                self.scheduler.shape(&layout, remade, now);
                self.look.wanted_first = false;
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => {
                // Asked anew for whatever is published next: it may have been mended.
                self.look.wanted_first = true;
                self.scheduler.refuse_all(&error);
            }
            Err(error) => {
                // Pacing by shard has to wait; whether records can be written is for the writing to find out.
                tracing::warn!(topic = %self.topic, %error, "the stream's shards are not known: it is paced as a whole");
                self.look.wanted_first = false;
                self.look.again = self.look.failures.until(now);
            }
        }
    }

    /// Gives back how many there were.
    fn give_answers(&mut self) -> usize {
        let closing = self.closing;
        let unfinished = &mut self.unfinished;
        let (mut freed, mut given) = (0, 0);
        let mut answer = |settled: Vec<super::scheduler::Settled>| {
            given = settled.len();
            for one in settled {
                freed += one.cost;
                if closing && let Err(error) = &one.result {
                    unfinished.get_or_insert_with(|| error.clone());
                }
                one.reply.answer(one.result);
            }
        };
        if self.scheduler.has_lost() {
            // Nobody comes in from here until the callers know: who was called for before must not pass what is lost.
            let mut door = self.intake.door();
            door.take(&mut self.entering);
            self.entering.drain(..).for_each(|pending| self.scheduler.enqueue(pending));
            answer(self.scheduler.take_settled());
            self.scheduler.answers_given();
            door.release(freed);
            return given;
        }
        let settled = self.scheduler.take_settled();
        if !settled.is_empty() {
            answer(settled);
            self.intake.door().release(freed);
        }
        given
    }
}

impl Drop for Dispatcher {
    /// Nobody would take in what arrives from now on: it is refused, and what is at the door is answered with the rest.
    fn drop(&mut self) {
        self.intake.close();
        self.intake.door().take(&mut self.entering);
        self.entering.drain(..).for_each(|pending| self.scheduler.enqueue(pending));
    }
}
