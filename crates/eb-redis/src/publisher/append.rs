//! One append: sent until it was, judged by what came back.

use std::sync::Arc;

use eb_contract::{Effect, Error, ErrorKind, Offset, Result};
use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, sleep};

use super::OP;
use super::door::PAUSE;
use super::lane::LaneContext;
use super::pending::Pending;
use crate::bus::Shared;
use crate::error;
use crate::link::{Session, is_forgotten};
use crate::marks::Mark;
use crate::reply;
use crate::settings::{SYNC_SETTINGS, Server, synced};

/// What became of a group: the first of it lie at `ids`, and what `failed` says holds for the others.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) ids: Vec<Offset>,
    pub(super) failed: Option<Error>,
}

impl Appended {
    fn none(error: Error) -> Self {
        Self { ids: Vec::new(), failed: Some(error) }
    }
}

/// Appends the groups of one partition, one after the other.
pub(super) struct Appender {
    shared: Arc<Shared>,
    place: String,
    stream: String,
    hash: String,
    incarnation: String,
    mark: Arc<Mark>,
    /// The last offset that this line was answered.
    last: Option<Offset>,
}

/// What one attempt led to.
enum Attempt {
    Done(Appended),
    /// Nothing was appended, and it may be tried again.
    Again(Error),
}

impl Appender {
    pub(super) fn new(context: &LaneContext) -> Self {
        let shared = context.shared.clone();
        Self {
            place: error::place(&context.topic, context.partition),
            stream: shared.keys.stream(&context.topic, context.partition),
            hash: shared.keys.topic(&context.topic),
            incarnation: context.incarnation.as_str().to_owned(),
            mark: shared.marks.of(&context.topic, context.partition),
            last: None,
            shared,
        }
    }

    /// Appends a group. While nothing was appended and that may change, it is tried again until the oldest record of the
    /// group has waited long enough.
    pub(super) async fn append(&mut self, group: &[Pending]) -> Appended {
        let called = group.iter().map(|record| record.called).min().unwrap_or_else(Instant::now);
        let deadline = called + self.shared.config.publish.give_up_after;
        loop {
            match self.attempt(group).await {
                Attempt::Done(appended) => return appended,
                Attempt::Again(e) if Instant::now() >= deadline => return Appended::none(e),
                Attempt::Again(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn attempt(&mut self, group: &[Pending]) -> Attempt {
        if let Err(poisoned) = self.mark.check(OP, &self.place) {
            return Attempt::Done(Appended::none(poisoned));
        }
        let session = match self.shared.writes.session(OP).await {
            Ok(session) => session,
            Err(e) => return self.again_or_done(e),
        };
        self.send(&session, group).await
    }

    fn again_or_done(&self, e: Error) -> Attempt {
        // The place of an error of the connection is the server's address, which says more.
        let e = if e.place().is_some() { e } else { e.at(&self.place) };
        if e.is_retryable() && e.effect() == Effect::None && *e.kind() != ErrorKind::StorageFull {
            Attempt::Again(e)
        } else {
            Attempt::Done(Appended::none(e))
        }
    }

    fn missing(&self, why: String) -> Error {
        self.mark.poison(&self.place, &why);
        error::facts_missing(OP, why).at(&self.place)
    }

    async fn send(&mut self, session: &Session, group: &[Pending]) -> Attempt {
        let bytes: usize = group.iter().map(Pending::bytes).sum();
        let mut cmd = Cmd::with_capacity(6 + 2 * group.len(), bytes + 256);
        cmd.arg("EVALSHA").arg(&session.scripts.append).arg(2).arg(&self.stream).arg(&self.hash);
        // Sampled before the stream is looked at: what others ACK meanwhile lies behind it.
        let acked = self.mark.last().map(|acked| acked.to_string()).unwrap_or_default();
        cmd.arg(&self.incarnation).arg(&acked);
        for pending in group {
            cmd.arg(pending.record.partition_key.as_str()).arg(pending.record.envelope.as_bytes());
        }
        let checks = !self.shared.config.accept_weaker_ack;
        let mut pipe = Pipeline::with_capacity(3);
        pipe.add_command(cmd);
        if checks {
            pipe.cmd("CONFIG").arg("GET").arg(&SYNC_SETTINGS[..]);
            pipe.cmd("INFO").arg("persistence");
        }
        let answers = match session.pipeline(&pipe).await {
            Ok(answers) => answers,
            Err(failure) => return self.again_or_done(failure.writing(OP)),
        };
        let mut answers = answers.into_iter();
        let appended = match answers.next() {
            Some(answer) if is_forgotten(&answer) => {
                return match session.load_scripts(OP).await {
                    Ok(_) => Attempt::Again(error::unavailable(OP, "the server has forgotten its scripts")),
                    Err(e) => self.again_or_done(e),
                };
            }
            Some(answer) => answer,
            None => {
                return self.again_or_done(error::violation(OP, "no answer").with_effect(Effect::Unknown));
            }
        };
        let appended = match reply::array(OP, appended) {
            Ok(words) => self.read(words, group.len(), &acked),
            Err(e) => return self.again_or_done(e),
        };
        if checks
            && !appended.ids.is_empty()
            && let Err(e) = was_synced(session, answers).await
        {
            // Judged anew, the server is refused until it is right again.
            session.retire();
            return Attempt::Done(Appended::none(e.with_effect(Effect::Unknown).at(&self.place)));
        }
        match appended {
            Appended { ids, failed: Some(e) } if ids.is_empty() => self.again_or_done(e),
            appended => {
                if let Some(last) = appended.ids.last() {
                    self.mark.acked(*last);
                    self.last = Some(*last);
                }
                Attempt::Done(appended)
            }
        }
    }

    /// What the script says.
    fn read(&self, words: Vec<Value>, count: usize, acked: &str) -> Appended {
        let mut words = words.into_iter();
        let said = words.next().map_or_else(
            || Err(error::violation(OP, "the script answered nothing")),
            |said| reply::text(OP, said),
        );
        let ids: Result<Vec<Offset>> = words.map(|id| reply::id(OP, id)).collect();
        let (said, ids) = match said.and_then(|said| Ok((said, ids?))) {
            Ok(both) => both,
            Err(e) => return self.unbelievable(e),
        };
        if said == "lost" {
            let ends = ids.first().map_or_else(|| "nothing".to_owned(), ToString::to_string);
            return Appended::none(self.missing(format!("the stream ends at {ends}, and {acked} was ACKed")));
        }
        let mut before = self.last;
        for id in &ids {
            if before.is_some_and(|b| b >= *id) {
                return self.unbelievable(error::violation(OP, format!("the id {id} does not rise")));
            }
            before = Some(*id);
        }
        let failed = match said.as_str() {
            "ok" if ids.len() == count => None,
            "ok" => {
                let message = format!("{count} records were sent and {} ids came", ids.len());
                return self.unbelievable(error::violation(OP, message));
            }
            "incarnation" => Some(self.missing("the topic was deleted, or deleted and made anew".to_owned())),
            "gone" => Some(self.missing("the partition's stream is gone".to_owned())),
            stated => Some(error::stated_text(OP, stated).at(&self.place)),
        };
        Appended { ids, failed }
    }

    /// The server does what it never should: nothing it says of this partition is believed any more.
    fn unbelievable(&self, e: Error) -> Appended {
        self.mark.poison(&self.place, e.message());
        Appended::none(e.at(&self.place).with_effect(Effect::Unknown))
    }
}

/// Whether what came behind an append makes its answer an ACK.
async fn was_synced(session: &Session, mut answers: impl Iterator<Item = Value>) -> Result<()> {
    let mut answer = || answers.next().ok_or_else(|| error::violation(OP, "no answer"));
    synced(&reply::texts(OP, answer()?)?)?;
    let now = Server::new(&reply::text(OP, answer()?)?, None);
    match now.rewrite() {
        None => Ok(()),
        Some(rewrite) => session.was_on_before(OP, rewrite).await,
    }
}
