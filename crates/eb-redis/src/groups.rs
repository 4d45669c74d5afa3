//! Consumer groups: the server remembers who was handed what, until each record is acknowledged.
//!
//! # Protocol
//! A group of a consumer on a partition is the stream's group of the same name. It is made where the oldest record left lies,
//! and never by reading. Everything that hands records out or around is a script, so that looking and acting are of one
//! moment:
//!
//! | call | on the server |
//! |---|---|
//! | `next` | unless records were deleted since the horizon was looked at: `XREADGROUP … >` |
//! | `pending` | `XREADGROUP … <id>` over the member's own pending records, and their counts by `XPENDING` |
//! | `claim` | `XPENDING … IDLE` by pages, without the member's own; then, for those whose entries are all there, `XCLAIM` |
//! | `acknowledge` | `XACK` |
//! | `keep` | `XCLAIM … JUSTID` of those that are still the member's: their idle time begins anew, they count as delivered no more often |
//!
//! `XAUTOCLAIM` and a plain `XCLAIM` are not used on what was not looked at: since 7.0 they take a pending record whose entry was deleted off the
//! group's list without a word. Nor is a plain `XREADGROUP >`, which steps over deleted entries that nobody was handed.
//! Here both are [`OutOfRange`](eb_contract::ErrorKind::OutOfRange), again and again, until somebody decides what to do:
//! acknowledge the record, or set the group on (`XGROUP SETID`).
//!
//! # Lost answers
//! What `next` handed out in an answer that was lost, or that a dropped future did not take, is pending. The member's next
//! call of `next` brings it first.
//!
//! # What a crash leaves
//! The server writes every step of a group into its append-only file as it does with records, so with a durable ACK the
//! group's state is durable as well. A record that was acknowledged is not handed out again; where the answer to
//! an acknowledgement was lost it may be.

mod member;

use std::collections::HashMap;
use std::sync::Arc;

use eb_contract::{
    BoxFuture, ConsumerName, Error, ErrorKind, EventBusGroups, GroupBacklog, GroupMember, Offset,
    PartitionId, Result, StartAt, Topic,
};
use redis::{Cmd, Value};

use self::member::Member;
use crate::bus::Shared;
use crate::link::Session;
use crate::reader::{Stream, Waits, wait_start};
use crate::{error, reply, topics};

/// The groups of a bus on Redis; see [`RedisBus::groups`](crate::RedisBus::groups). One active member of a partition keeps the order
/// of the log.
pub struct RedisGroups {
    shared: Arc<Shared>,
    waits: Arc<Waits>,
}

/// What the server says of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The last record that any member was handed.
    pub(crate) last_delivered: Offset,
    pending: u64,
    undelivered: Option<u64>,
}

impl Standing {
    /// The group as it stands; `None` where there is none.
    async fn of(op: &'static str, session: &Session, key: &str, group: &str) -> Result<Option<Self>> {
        for mut described in described(op, session, key).await? {
            let mut take = |name: &str| {
                described
                    .remove(name)
                    .ok_or_else(|| error::violation(op, format!("XINFO GROUPS has no {name}")))
            };
            if reply::text(op, take("name")?)? != group {
                continue;
            }
            let undelivered = match take("lag")? {
                Value::Nil => None,
                lag => Some(reply::number(op, lag)?),
            };
            return Ok(Some(Self {
                last_delivered: reply::id(op, take("last-delivered-id")?)?,
                pending: reply::number(op, take("pending")?)?,
                undelivered,
            }));
        }
        Ok(None)
    }
}

/// What the server says of the stream's groups.
async fn described(op: &'static str, session: &Session, key: &str) -> Result<Vec<HashMap<String, Value>>> {
    let mut cmd = Cmd::new();
    cmd.arg("XINFO").arg("GROUPS").arg(key);
    let answer = session.command(&cmd).await.map_err(|f| f.reading(op))?;
    if is_without_key(&answer) {
        return Err(error::facts_missing(op, "the partition's stream is gone"));
    }
    reply::array(op, answer)?.into_iter().map(|group| reply::pairs(op, group)).collect()
}

fn is_without_key(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(e) if e.details().is_some_and(|d| d.contains("no such key") || d.contains("requires the key to exist")))
}

/// A group that was there and is not.
fn no_group(op: &'static str, group: &str) -> Error {
    Error::new(ErrorKind::NotFound, op, format!("the group {group} is gone from the stream"))
        .advise("join again: it is made anew at the oldest record left")
}

impl RedisGroups {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let waits = Arc::new(Waits::new(&shared.config.read));
        Self { shared, waits }
    }

    async fn stream(&self, op: &'static str, topic: &Topic, partition: PartitionId) -> Result<Stream> {
        let session = self.shared.reads.session(op).await?;
        let described = topics::describe(op, &session, &self.shared.keys, topic).await?;
        described.has(op, topic, partition)?;
        Ok(Stream::new(&self.shared, topic, partition, described.incarnation))
    }

    async fn join_as(
        &self,
        group: &ConsumerName,
        topic: &Topic,
        partition: PartitionId,
        member: &str,
    ) -> Result<Member> {
        const OP: &str = "join group";
        let length = member.chars().count();
        if length == 0 || length > 256 {
            let message = format!("a member's name has 1 to 256 characters, not {length}");
            return Err(Error::new(ErrorKind::InvalidInput, OP, message).at(topic));
        }
        let stream = self.stream(OP, topic, partition).await?;
        let session = self.shared.reads.session(OP).await?;
        let standing = Standing::of(OP, &session, &stream.key, group.as_str()).await;
        if standing.map_err(|e| e.at(&stream.place))?.is_none() {
            let oldest = stream.resolve(OP, StartAt::Earliest).await?;
            let mut cmd = Cmd::new();
            cmd.arg("XGROUP").arg("CREATE").arg(&stream.key).arg(group.as_str());
            cmd.arg(wait_start(&oldest).to_string());
            let answer = session.command(&cmd).await.map_err(|f| f.writing(OP).at(&stream.place))?;
            match &answer {
                // Another member was first.
                Value::ServerError(e) if e.code() == "BUSYGROUP" => {}
                _ if is_without_key(&answer) => {
                    return Err(error::facts_missing(OP, "the partition's stream is gone").at(&stream.place));
                }
                _ => drop(reply::stated(OP, answer).map_err(|e| e.at(&stream.place))?),
            }
        }
        Ok(Member::new(&self.shared, &self.waits, stream, group, member))
    }

    async fn backlog_of(
        &self,
        group: &ConsumerName,
        topic: &Topic,
        partition: PartitionId,
    ) -> Result<Option<GroupBacklog>> {
        const OP: &str = "group backlog";
        let stream = self.stream(OP, topic, partition).await?;
        let session = self.shared.reads.session(OP).await?;
        let standing = Standing::of(OP, &session, &stream.key, group.as_str()).await;
        let Some(standing) = standing.map_err(|e| e.at(&stream.place))? else { return Ok(None) };
        let mut cmd = Cmd::new();
        cmd.arg("XPENDING").arg(&stream.key).arg(group.as_str());
        let answer = session.command(&cmd).await.map_err(|f| f.reading(OP).at(&stream.place))?;
        let [_, _, _, holders] = reply::items(OP, answer).map_err(|e| e.at(&stream.place))?;
        let mut members = match holders {
            Value::Nil => Vec::new(),
            holders => reply::array(OP, holders)?
                .into_iter()
                .map(|holder| {
                    let [name, count] = reply::items(OP, holder)?;
                    let count = reply::text(OP, count)?;
                    let count =
                        count.parse().map_err(|_| error::violation(OP, format!("{count:?} is no number")))?;
                    Ok((reply::text(OP, name)?, count))
                })
                .collect::<Result<Vec<_>>>()
                .map_err(|e| e.at(&stream.place))?,
        };
        members.sort();
        let redelivered = redelivered(OP, &session, &stream.key, group.as_str()).await;
        let redelivered = redelivered.map_err(|e| e.at(&stream.place))?;
        let Standing { pending, undelivered, .. } = standing;
        Ok(Some(GroupBacklog { pending, redelivered, undelivered, members }))
    }

    async fn names(&self, topic: &Topic, partition: PartitionId) -> Result<Vec<ConsumerName>> {
        const OP: &str = "list groups";
        let stream = self.stream(OP, topic, partition).await?;
        let session = self.shared.reads.session(OP).await?;
        let mut names = Vec::new();
        for mut described in described(OP, &session, &stream.key).await.map_err(|e| e.at(&stream.place))? {
            let name = described.remove("name").map(|name| reply::text(OP, name)).transpose()?;
            names.extend(name.and_then(|name| ConsumerName::new(&name).ok()));
        }
        names.sort();
        Ok(names)
    }
}

/// How many pending records the group has handed out more than once, by pages.
async fn redelivered(op: &'static str, session: &Session, key: &str, group: &str) -> Result<u64> {
    const PAGE: usize = 1000;
    let (mut from, mut count) = ("-".to_owned(), 0);
    loop {
        let mut cmd = Cmd::new();
        cmd.arg("XPENDING").arg(key).arg(group).arg(&from).arg("+").arg(PAGE);
        let answer = session.command(&cmd).await.map_err(|f| f.reading(op))?;
        if matches!(&answer, Value::ServerError(e) if e.code() == "NOGROUP") {
            return Err(no_group(op, group));
        }
        let page = reply::array(op, answer)?;
        let is_last = page.len() < PAGE;
        for one in page {
            let [id, _holder, _idle, times] = reply::items(op, one)?;
            from = format!("({}", reply::text(op, id)?);
            count += u64::from(reply::number(op, times)? > 1);
        }
        if is_last {
            return Ok(count);
        }
    }
}

impl EventBusGroups for RedisGroups {
    /// A group that is not there is made at the oldest record left. Dropping the future leaves it made or not.
    fn join<'a>(
        &'a self,
        group: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
        member: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn GroupMember>>> {
        Box::pin(async move {
            let member = self.join_as(group, topic, partition, member).await?;
            Ok(Box::new(member) as Box<dyn GroupMember>)
        })
    }

    fn backlog<'a>(
        &'a self,
        group: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Result<Option<GroupBacklog>>> {
        Box::pin(self.backlog_of(group, topic, partition))
    }

    fn groups<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Result<Vec<ConsumerName>>> {
        Box::pin(self.names(topic, partition))
    }
}
