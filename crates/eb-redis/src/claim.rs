//! Who else admits to this bus: gates with one index among them, or one gate alone.
//!
//! A gate whose admission index is its own knows nothing of what another gate admits meanwhile, so there must be no
//! other. The connection over which a gate's records go bears a name, `eb-gate:<database>:<prefix>:sole` or `:shared`, and the
//! server's list of clients is the truth about who can append: whoever is not in it cannot.
//!
//! | step, on each new connection | why |
//! |---|---|
//! | take the name, then read the list | of two gates that come at once each sees the other, or one of them does: never neither |
//! | whoever is in the way and has said nothing for [`claim`](crate::Timeouts::claim): its connection is ended | its machine, network or process stands still; what it sent late can land no more |
//! | a `sole` one beside any other is refused, `Locked` with the other's address | |
//! | the first time: write a token into the hash `{prefix}:gate` (all `shared` ones write the same) | |
//! | later: the token must still stand, else `Fenced` | while the connection was broken another gate may have been open, and is gone again; what it admitted this one does not know |
//!
//! A gate whose process died is off the list with its connections. One whose machine died, or was cut off, stays on it until
//! the server's `tcp-keepalive` has noticed, ten minutes by its default. So a gate says something over its connection
//! three times in the time of [`Timeouts::claim`](crate::Timeouts::claim), half a minute by default, and who has been silent for longer has no
//! claim any more. No clock decides about safety in that: ending the connection is the fence, and a gate that was merely slow finds
//! itself `Fenced` when it comes back. The time says how long a halted gate may keep others out, and how long one
//! may stand still without losing its place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eb_contract::{Error, ErrorKind, Result};
use redis::{Pipeline, Value};
use uuid::Uuid;

use crate::config::RedisConfig;
use crate::link::Session;
use crate::reply;

/// How the gate that publishes here shares the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateClaim {
    /// Its admission index is its own: there must be no other gate.
    Sole,
    /// Every gate of the bus has the same admission index.
    Shared,
}

/// What all `Shared` claims write.
const SHARED: &str = "shared";

/// A claim, asserted on every connection that records go over.
#[derive(Debug)]
pub(crate) struct Claim {
    kind: GateClaim,
    /// What it is a claim on: a database and a prefix.
    bus: String,
    /// After how long without a word another one's claim has ended.
    expires: Duration,
    hash: String,
    token: String,
    /// The token was written.
    stands: AtomicBool,
}

impl Claim {
    pub(crate) fn new(kind: GateClaim, config: &RedisConfig, hash: String) -> Self {
        let token = match kind {
            GateClaim::Sole => Uuid::new_v4().simple().to_string(),
            GateClaim::Shared => SHARED.to_owned(),
        };
        let bus = format!("{}:{}", config.url.info().redis_settings().db(), config.prefix);
        let expires = config.timeouts.claim;
        Self { kind, bus, expires, hash, token, stands: AtomicBool::new(false) }
    }

    fn name(&self, kind: GateClaim) -> String {
        let word = if kind == GateClaim::Sole { "sole" } else { "shared" };
        format!("eb-gate:{}:{word}", self.bus)
    }

    /// Takes the name on a connection, and the bus if no other gate is in the way. A connection that was refused must not
    /// be used for records.
    ///
    /// # Errors
    /// `Locked` while another gate is in the way; `Fenced` where one has been meanwhile.
    pub(crate) async fn assert(&self, op: &'static str, session: &Session) -> Result<()> {
        loop {
            let mut pipe = Pipeline::new();
            pipe.cmd("CLIENT").arg("SETNAME").arg(self.name(self.kind));
            pipe.cmd("CLIENT").arg("LIST").arg("TYPE").arg("normal");
            let answers = session.pipeline(&pipe).await.map_err(|f| f.reading(op))?;
            let [named, clients] = reply::items(op, Value::Array(answers))?;
            reply::text(op, named)?;
            let clients = reply::text(op, clients)?;
            let Some(other) = self.in_the_way(&clients, session.client()) else { break };
            if other.idle <= self.expires {
                let kind = ErrorKind::Locked { holder: format!("the gate at {}", other.address) };
                let message = format!("another gate is open on this bus, at {}", other.address);
                return Err(Error::new(kind, op, message)
                    .advise("close it, or give all gates the same admission index"));
            }
            tracing::warn!(gate = other.address, idle = ?other.idle, "a gate that says nothing any more is shut out");
            let mut pipe = Pipeline::new();
            pipe.cmd("CLIENT").arg("KILL").arg("ID").arg(other.client);
            let answers = session.pipeline(&pipe).await.map_err(|f| f.reading(op))?;
            let [killed] = reply::items(op, Value::Array(answers))?;
            reply::number(op, killed)?;
        }
        if self.stands.load(Ordering::Relaxed) {
            return self.must_stand(op, session).await;
        }
        let mut pipe = Pipeline::new();
        pipe.cmd("HSET").arg(&self.hash).arg("token").arg(&self.token);
        let answers = session.pipeline(&pipe).await.map_err(|f| f.reading(op))?;
        let [written] = reply::items(op, Value::Array(answers))?;
        reply::number(op, written)?;
        self.stands.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn must_stand(&self, op: &'static str, session: &Session) -> Result<()> {
        let mut pipe = Pipeline::new();
        pipe.cmd("HGET").arg(&self.hash).arg("token");
        let answers = session.pipeline(&pipe).await.map_err(|f| f.reading(op))?;
        let [token] = reply::items(op, Value::Array(answers))?;
        if reply::optional_text(op, token)?.as_deref() == Some(&self.token) {
            return Ok(());
        }
        let message = "another gate was open on this bus while this one was not connected";
        Err(Error::new(ErrorKind::Fenced, op, message).advise("open the gate anew: it reads the log then"))
    }

    /// A client whose claim and this one exclude each other.
    fn in_the_way<'c>(&self, clients: &'c str, own: u64) -> Option<Other<'c>> {
        let (sole, shared) = (self.name(GateClaim::Sole), self.name(GateClaim::Shared));
        clients.lines().find_map(|line| {
            let field = |name: &str| line.split(' ').find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
            let name = field("name")?;
            let excluded = name == sole || (name == shared && self.kind == GateClaim::Sole);
            let client: u64 = field("id")?.parse().ok()?;
            let idle = field("idle").and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
            (excluded && client != own).then(|| Other {
                client,
                address: field("addr").unwrap_or("an unknown address"),
                idle: Duration::from_secs(idle),
            })
        })
    }

    /// Takes the name off a connection.
    pub(crate) async fn let_go(op: &'static str, session: &Session) -> Result<()> {
        let mut pipe = Pipeline::new();
        pipe.cmd("CLIENT").arg("SETNAME").arg("");
        let answers = session.pipeline(&pipe).await.map_err(|f| f.reading(op))?;
        let [named] = reply::items(op, Value::Array(answers))?;
        reply::text(op, named).map(drop)
    }
}

/// A gate that is in the way.
#[derive(Debug, PartialEq)]
struct Other<'c> {
    client: u64,
    address: &'c str,
    idle: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gate_alone_is_in_the_way_of_every_other_and_shared_ones_of_that_one_only() {
        let config = |url: &str| RedisConfig::new(crate::RedisUrl::parse(url).unwrap());
        let claim = |kind| Claim::new(kind, &config("redis://x/3"), "{eb}:gate".to_owned());
        let list = |name: &str| {
            format!(
                "id=4 addr=1.1.1.1:1 name= cmd=x\nid=7 addr=10.0.0.7:51 laddr=a name={name} age=9 idle=8 db=3\n"
            )
        };
        let (sole, shared) = (list("eb-gate:3:eb:sole"), list("eb-gate:3:eb:shared"));
        let at = Some(Other { client: 7, address: "10.0.0.7:51", idle: Duration::from_secs(8) });
        assert_eq!(claim(GateClaim::Sole).in_the_way(&sole, 9), at);
        assert_eq!(claim(GateClaim::Sole).in_the_way(&shared, 9), at);
        assert_eq!(claim(GateClaim::Shared).in_the_way(&sole, 9), at);
        assert_eq!(claim(GateClaim::Shared).in_the_way(&shared, 9), None);
        assert_eq!(claim(GateClaim::Sole).in_the_way(&sole, 7), None, "itself");
        assert_eq!(claim(GateClaim::Sole).in_the_way(&list("eb-gate:3:other:sole"), 9), None);
        assert_eq!(
            claim(GateClaim::Sole).in_the_way(&list("eb-gate:0:eb:sole"), 9),
            None,
            "another database"
        );
    }
}
