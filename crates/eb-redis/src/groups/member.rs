//! One member of a group, on one partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    BoxFuture, BusIncarnation, ConsumerName, Delivery, DeliveryLimit, EbRef, Error, ErrorKind, GroupMember,
    Offset, OffsetKind, Result,
};
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::{Standing, no_group};
use crate::bus::Shared;
use crate::link::Session;
use crate::reader::{Stream, Waits};
use crate::{error, reply};

/// The most records of one script, so that none holds the server up for long.
const MOST: usize = 1000;
/// How many bytes of records one script hands out, by eight records more at most; one record always goes.
const ROOM: usize = 1 << 20;
/// How many pending records of others are looked at in one go.
const PAGE: usize = 1000;

pub(super) struct Member {
    shared: Arc<Shared>,
    waits: Arc<Waits>,
    stream: Stream,
    group: String,
    name: String,
    progress: Mutex<Progress>,
}

/// What the member knows of its place. No lock is held across an await.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// What was lost lies behind this record: the last one that the caller got.
    last: Option<Offset>,
    /// A call of `next` was sent whose answer was not taken in.
    unsure: bool,
    /// How many records were deleted in all when the horizon was last found to lie behind the group.
    checked: Option<u64>,
}

/// What a script said: a word, and what goes with it.
struct Said {
    word: String,
    more: Vec<Value>,
}

impl Member {
    pub(super) fn new(
        shared: &Arc<Shared>,
        waits: &Arc<Waits>,
        stream: Stream,
        group: &ConsumerName,
        name: &str,
    ) -> Self {
        Self {
            shared: shared.clone(),
            waits: waits.clone(),
            stream,
            group: group.as_str().to_owned(),
            name: name.to_owned(),
            progress: Mutex::default(),
        }
    }

    async fn session(&self, op: &'static str) -> Result<Arc<Session>> {
        self.stream.check(op)?;
        self.shared.reads.session(op).await
    }

    /// Runs a script of this stream: its keys, incarnation, group and member go first.
    async fn run(
        &self,
        op: &'static str,
        script: impl Fn(&Session) -> &str,
        more: &[String],
    ) -> Result<Said> {
        let session = self.session(op).await?;
        let mut cmd = Cmd::new();
        cmd.arg("EVALSHA").arg(script(&session)).arg(2).arg(&self.stream.key).arg(&self.stream.hash);
        cmd.arg(self.stream.incarnation().as_str()).arg(&self.group).arg(&self.name);
        cmd.arg(more);
        let answer = session.script(op, &cmd).await;
        self.said(op, answer).map_err(|e| if e.place().is_some() { e } else { e.at(&self.stream.place) })
    }

    fn said(&self, op: &'static str, answer: Result<Value>) -> Result<Said> {
        let answer = answer?;
        if let Value::ServerError(e) = &answer {
            let text = format!("{} {}", e.code(), e.details().unwrap_or_default());
            if text.contains("NOGROUP") {
                return Err(no_group(op, &self.group));
            }
            if text.contains("no such key") {
                return Err(error::facts_missing(op, "the partition's stream is gone"));
            }
        }
        let mut more = reply::array(op, answer)?.into_iter();
        let word = more.next().ok_or_else(|| error::violation(op, "a script without an answer"))?;
        let said = Said { word: reply::text(op, word)?, more: more.collect() };
        match said.word.as_str() {
            "incarnation" => Err(error::facts_missing(op, "the topic was deleted and made anew")),
            "gone" => {
                let at = said.more.into_iter().next().map(|at| reply::text(op, at)).transpose()?;
                let at = at.unwrap_or_default();
                let message = format!("the pending record at {at} was deleted before it was acknowledged");
                Err(Error::new(ErrorKind::OutOfRange { oldest: None }, op, message)
                    .advise("decide what its loss means, then acknowledge it (XACK)"))
            }
            _ => Ok(said),
        }
    }

    /// Entries of a script's answer, each with how often it was handed out.
    fn deliveries(&self, op: &'static str, entries: Value, counts: Value) -> Result<Vec<Delivery>> {
        let mut times = HashMap::new();
        for count in reply::array(op, counts)? {
            let [id, _member, _idle, count] = reply::items(op, count)?;
            times.insert(reply::id(op, id)?, reply::number(op, count)?);
        }
        let entries = reply::entries(op, entries, &self.stream.key)?;
        entries
            .into_iter()
            .map(|entry| {
                let deliveries = times.get(&entry.id).copied().unwrap_or(1);
                Ok(Delivery { record: self.stream.record(op, entry)?, deliveries })
            })
            .collect()
    }

    async fn pending_behind(
        &self,
        op: &'static str,
        after: Option<Offset>,
        most: usize,
    ) -> Result<Vec<Delivery>> {
        let from = after.unwrap_or(Offset::redis(0, 0));
        let more = [most.clamp(1, MOST).to_string(), ROOM.to_string(), from.to_string()];
        let said = self.run(op, |s| &s.scripts.pending, &more).await?;
        let mut more = said.more.into_iter();
        match (more.next(), more.next()) {
            (Some(entries), Some(counts)) => self.deliveries(op, entries, counts),
            _ => Err(error::violation(op, "a script that left out its answer")),
        }
    }

    /// Finds out whether anything that nobody was handed is gone, and how many records are gone in all.
    async fn check_horizon(&self, op: &'static str) -> Result<u64> {
        let (moment, _) = self.stream.look(op, None).await?;
        let session = self.session(op).await?;
        let standing = Standing::of(op, &session, &self.stream.key, &self.group).await;
        let standing = standing.and_then(|s| s.ok_or_else(|| no_group(op, &self.group)));
        let last = standing.map_err(|e| e.at(&self.stream.place))?.last_delivered;
        let place =
            if last == Offset::redis(0, 0) { eb_contract::Cut::Begin } else { eb_contract::Cut::After(last) };
        self.stream.check_cut(op, &place, &moment).await?;
        Ok(moment.stream.gone)
    }

    async fn fresh(&self, limit: DeliveryLimit) -> Result<Vec<Delivery>> {
        const OP: &str = "read group";
        let most = limit.max_records.clamp(1, MOST);
        let deadline = Instant::now().checked_add(limit.wait);
        let before = *self.progress.lock();
        if before.unsure {
            let lost = self.pending_behind(OP, before.last, most).await?;
            if let Some(last) = lost.last() {
                self.progress.lock().last = Some(last.record.eb_ref.offset);
                return Ok(lost);
            }
            self.progress.lock().unsure = false;
        }
        loop {
            let checked = self.progress.lock().checked;
            let gone = match checked {
                Some(gone) => gone,
                None => {
                    let gone = self.check_horizon(OP).await?;
                    self.progress.lock().checked = Some(gone);
                    gone
                }
            };
            self.progress.lock().unsure = true;
            let said = self
                .run(OP, |s| &s.scripts.next, &[most.to_string(), ROOM.to_string(), gone.to_string()])
                .await?;
            if said.word == "look" {
                let mut progress = self.progress.lock();
                (progress.unsure, progress.checked) = (false, None);
                continue;
            }
            let mut more = said.more.into_iter();
            let (Some(entries), Some(newest)) = (more.next(), more.next()) else {
                return Err(error::violation(OP, "a script that left out its answer"));
            };
            let entries = reply::entries(OP, entries, &self.stream.key)?;
            let newest = reply::id(OP, newest)?;
            let fresh = entries
                .into_iter()
                .map(|entry| Ok(Delivery { record: self.stream.record(OP, entry)?, deliveries: 1 }));
            let fresh = fresh.collect::<Result<Vec<_>>>()?;
            {
                let mut progress = self.progress.lock();
                progress.unsure = false;
                if let Some(last) = fresh.last() {
                    progress.last = Some(last.record.eb_ref.offset);
                }
            }
            if !fresh.is_empty() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(fresh);
            }
            self.waits.wait(&self.shared.reads, &self.stream.key, newest, deadline).await;
        }
    }

    /// The pending records of other members that are idle for so long, oldest first, by pages.
    async fn idle_of_others(&self, op: &'static str, idle: u64, most: usize) -> Result<Vec<String>> {
        let mut from = "-".to_owned();
        let mut found = Vec::new();
        loop {
            let session = self.session(op).await?;
            let mut cmd = Cmd::new();
            cmd.arg("XPENDING").arg(&self.stream.key).arg(&self.group);
            cmd.arg("IDLE").arg(idle).arg(&from).arg("+").arg(PAGE);
            let answer = session.command(&cmd).await.map_err(|f| f.reading(op).at(&self.stream.place))?;
            if matches!(&answer, Value::ServerError(e) if e.code() == "NOGROUP") {
                return Err(no_group(op, &self.group).at(&self.stream.place));
            }
            let page = reply::array(op, answer).map_err(|e| e.at(&self.stream.place))?;
            let is_last = page.len() < PAGE;
            for one in page {
                let [id, holder, _idle, _count] = reply::items(op, one)?;
                let id = reply::text(op, id)?;
                from = format!("({id}");
                if reply::bytes(op, holder)? != self.name.as_bytes() {
                    found.push(id);
                    if found.len() == most {
                        return Ok(found);
                    }
                }
            }
            if is_last {
                return Ok(found);
            }
        }
    }

    async fn taken_over(&self, idle: Duration, most: usize) -> Result<Vec<Delivery>> {
        const OP: &str = "claim";
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        loop {
            let ids = self.idle_of_others(OP, idle, most.clamp(1, MOST)).await?;
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let more: Vec<_> = [idle.to_string(), ROOM.to_string()].into_iter().chain(ids).collect();
            let said = self.run(OP, |s| &s.scripts.claim, &more).await?;
            let mut more = said.more.into_iter();
            let (Some(entries), Some(counts)) = (more.next(), more.next()) else {
                return Err(error::violation(OP, "a script that left out its answer"));
            };
            let claimed = self.deliveries(OP, entries, counts)?;
            // Where another member was quicker with all of them, there may be others.
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
    }

    /// The ids of records of this partition.
    fn ids(&self, op: &'static str, records: &[EbRef]) -> Result<Vec<String>> {
        let id = |r: &EbRef| {
            let ours = r.topic == self.stream.topic
                && r.partition_id == self.stream.partition
                && r.offset.kind() == OffsetKind::RedisStreamId;
            if ours {
                return Ok(r.offset.to_string());
            }
            let message = format!("{r} is no record of this partition");
            Err(Error::new(ErrorKind::InvalidInput, op, message).at(&self.stream.place))
        };
        records.iter().map(id).collect()
    }

    async fn acknowledged(&self, records: &[EbRef]) -> Result<u64> {
        const OP: &str = "acknowledge";
        let ids = self.ids(OP, records)?;
        let mut done = 0;
        for ids in ids.chunks(MOST) {
            let session = self.session(OP).await?;
            let mut cmd = Cmd::new();
            cmd.arg("XACK").arg(&self.stream.key).arg(&self.group).arg(ids);
            let answer = session.command(&cmd).await.map_err(|f| f.writing(OP).at(&self.stream.place))?;
            done += reply::number(OP, answer).map_err(|e| e.at(&self.stream.place))?;
        }
        Ok(done)
    }

    async fn kept(&self, records: &[EbRef]) -> Result<()> {
        const OP: &str = "keep";
        let ids = self.ids(OP, records)?;
        for ids in ids.chunks(MOST) {
            self.run(OP, |s| &s.scripts.keep, ids).await?;
        }
        Ok(())
    }
}

impl GroupMember for Member {
    fn incarnation(&self) -> &BusIncarnation {
        self.stream.incarnation()
    }

    fn pending<'a>(
        &'a self,
        after: Option<&'a EbRef>,
        limit: DeliveryLimit,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        const OP: &str = "read pending";
        Box::pin(async move {
            if let Some(after) = after {
                self.ids(OP, std::slice::from_ref(after))?;
            }
            let pending = self.pending_behind(OP, after.map(|r| r.offset), limit.max_records).await?;
            let mut progress = self.progress.lock();
            if let Some(last) = pending.last().map(|d| d.record.eb_ref.offset)
                && !progress.unsure
                && progress.last.is_none_or(|before| before < last)
            {
                // Whatever nobody was handed yet comes behind it.
                progress.last = Some(last);
            }
            drop(progress);
            Ok(pending)
        })
    }

    fn claim(&self, idle: Duration, limit: DeliveryLimit) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(self.taken_over(idle, limit.max_records))
    }

    /// At most 1,000 records a call, and a mebibyte of them, or up to eight records more. Dropping the future while it waits leaves nothing behind; otherwise what it was
    /// handed is pending, and the next call brings it.
    fn next(&self, limit: DeliveryLimit) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(self.fresh(limit))
    }

    fn acknowledge<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<u64>> {
        Box::pin(self.acknowledged(records))
    }

    fn keep<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.kept(records))
    }
}
