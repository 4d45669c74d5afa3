//! The bus as a whole.

use std::sync::{Arc, Weak};
use std::time::Duration;

use eb_contract::{Capabilities, Durability, Error, ErrorKind, OffsetKind, Result};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::claim::{Claim, GateClaim};
use crate::config::RedisConfig;
use crate::keys::Keys;
use crate::link::Link;
use crate::marks::Marks;
use crate::settings::Weakness;
use crate::{RedisAdmin, RedisGroups, RedisPublisher, RedisReader, tls};

const OP: &str = "open redis";

/// How long to wait before somebody who is in the way is looked for again.
const PAUSE: Duration = Duration::from_millis(25);

/// What all handles of one opening share.
pub(crate) struct Shared {
    pub(crate) config: Arc<RedisConfig>,
    pub(crate) keys: Keys,
    pub(crate) capabilities: Capabilities,
    /// Where background work runs, whichever thread a handle is called from.
    pub(crate) runtime: Handle,
    /// For appends and everything else that changes something.
    pub(crate) writes: Link,
    /// For reads, so that they hold up no append.
    pub(crate) reads: Link,
    pub(crate) marks: Marks,
}

/// A bus on Redis: two connections, and the handles made from it.
pub struct RedisBus {
    shared: Arc<Shared>,
}

impl RedisBus {
    /// Opens the bus: connects, and reads the server's settings. Must be called on a tokio runtime with its clock and
    /// I/O enabled.
    ///
    /// Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] naming the field of the config that cannot be; or what to set on the server so that its
    /// answers are ACKs. [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] where it cannot be reached, is still
    /// loading or is a replica; [`ErrorKind::WrongVersion`] for one older than 7.0.
    pub async fn open(config: RedisConfig) -> Result<Self> {
        config.check()?;
        let tls =
            if config.url.is_tls() {
                let files = config.tls.clone();
                let read = tokio::task::spawn_blocking(move || tls::connector(&files)).await;
                Some(read.map_err(|e| {
                    Error::new(ErrorKind::Io, OP, "reading certificates failed").with_source(e)
                })??)
            } else {
                None
            };
        let config = Arc::new(config);
        let writes = Link::new(config.clone(), tls.clone());
        let session = writes.session(OP).await?;
        let mut capabilities = capabilities(&config);
        if config.accept_weaker_ack {
            for Weakness { fact, loss, .. } in session.server.weaknesses() {
                tracing::warn!(server = %config.url, "{fact}: {loss}");
                capabilities.notes.push(format!("{fact}: {loss}"));
            }
        }
        Ok(Self {
            shared: Arc::new(Shared {
                keys: Keys::new(&config.prefix),
                capabilities,
                runtime: Handle::current(),
                writes,
                reads: Link::new(config.clone(), tls),
                marks: Marks::default(),
                config,
            }),
        })
    }

    /// A handle that publishes. Its calls may come from any thread; its work runs on the runtime on which the bus was
    /// opened.
    #[must_use]
    pub fn publisher(&self) -> RedisPublisher {
        RedisPublisher::new(self.shared.clone())
    }

    /// A reader.
    #[must_use]
    pub fn reader(&self) -> RedisReader {
        RedisReader::new(self.shared.clone())
    }

    /// The consumer groups that the server keeps.
    #[must_use]
    pub fn groups(&self) -> RedisGroups {
        RedisGroups::new(self.shared.clone())
    }

    /// A handle that makes and trims topics.
    #[must_use]
    pub fn admin(&self) -> RedisAdmin {
        RedisAdmin::new(self.shared.clone())
    }

    /// Says that a gate publishes through this opening, and how it shares the bus. To be called before the gate reads the
    /// log, so that it knows all that others have admitted. From then on the claim is asserted on every connection that
    /// records go over; where it does not hold any more, publishing fails, with no effect.
    ///
    /// A gate that has just been closed may be in the way for a moment, and a connection may have broken while nobody used
    /// it: it is tried for as long as a connection may take. A gate that has said nothing for [`claim`](crate::Timeouts::claim) is shut out.
    /// Dropping the future leaves the claim made or not.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] naming the other gate's address, while one is open that this one excludes. Where a claim was
    /// lost and others may have admitted meanwhile, publishing answers [`ErrorKind::Fenced`].
    pub async fn claim(&self, kind: GateClaim) -> Result<()> {
        const OP: &str = "open gate";
        let shared = &self.shared;
        let deadline = Instant::now() + shared.config.timeouts.connect;
        loop {
            let claim = Arc::new(Claim::new(kind, &shared.config, shared.keys.gate()));
            match shared.writes.make_claim(OP, claim.clone()).await {
                Err(e) if e.is_retryable() && Instant::now() < deadline => sleep(PAUSE).await,
                Ok(()) => {
                    shared.runtime.spawn(keep(Arc::downgrade(shared), Arc::downgrade(&claim)));
                    return Ok(());
                }
                failed => return failed,
            }
        }
    }

    /// Gives the claim up, once the gate is closed; without a claim nothing happens. Dropping the bus and all its handles
    /// does it, too.
    pub async fn give_up_claim(&self) {
        self.shared.writes.drop_claim("close gate").await;
    }

    /// What the bus promises. Where a weaker ACK is accepted the notes say what was found.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }
}

/// Says something over the gate's connection often enough that nobody takes it for dead, as long as its claim is the bus's.
async fn keep(shared: Weak<Shared>, claim: Weak<Claim>) {
    const OP: &str = "keep gate";
    loop {
        let Some(pause) = shared.upgrade().map(|shared| shared.config.timeouts.claim / 3) else { return };
        sleep(pause).await;
        let (Some(shared), Some(_claim)) = (shared.upgrade(), claim.upgrade()) else { return };
        // A connection that broke while nobody used it is made again, with its name.
        let kept = match shared.writes.session(OP).await {
            Ok(session) => session.ask(OP).await.map(drop),
            Err(e) => Err(e),
        };
        if let Err(e) = kept {
            // Publishing says it, too, to whoever is concerned.
            tracing::debug!("{e}");
        }
    }
}

/// What a bus of this config promises, before it is opened.
#[must_use]
pub fn capabilities(config: &RedisConfig) -> Capabilities {
    let mut c = Capabilities::new("redis", OffsetKind::RedisStreamId);
    c.max_envelope_bytes = config.publish.max_envelope_bytes;
    c.multi_writer = true;
    c.retention = true;
    c.unknown_outcomes = true;
    // A probe goes over a connection whose predecessor has been ended on the server.
    c.probe_settles = true;
    if config.accept_weaker_ack {
        c.durability = Durability::Weaker;
        c.notes.push(
            "accept_weaker_ack is set: a crash or a failover of the server can take ACKed records".to_owned(),
        );
    } else {
        c.notes.push("an ACK is the server's answer after its fsync (appendfsync always)".to_owned());
    }
    c.notes.push(
        "nothing expires by itself; trim through the bus, so that readers know exactly what is gone"
            .to_owned(),
    );
    c
}
