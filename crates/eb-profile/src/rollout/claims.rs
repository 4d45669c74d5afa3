//! Who else admits to either bus of a rollout.
//!
//! A gate's claim belongs on both buses: whichever takes the records, a gate that does not know of this one must not admit. It is
//! made before the gate reads the log. A bus that cannot be asked then (a rollout opens without it) is claimed as soon as it answers,
//! and at the latest before its first record:
//!
//! | the claim is made | by a gate whose index is its own | by one of several with a shared index |
//! |---|---|---|
//! | before the gate reads the log | it holds | it holds |
//! | later, nothing was switched since | it holds: only the other bus has taken records meanwhile, and no other gate's | it holds |
//! | later, and something was switched | `Fenced`: another gate may have admitted there meanwhile; opened anew, this one reads what | it holds |

use std::sync::{Arc, Weak};
use std::time::Duration;

use eb_contract::stores::RegisterStore;
use eb_contract::{Error, ErrorKind, RegisterName, Result};
use eb_rollout::State;
use tokio::sync::Mutex;

use super::opened::Lazy;
use crate::backend::Claims;

const OP: &str = "open gate";

/// How long the opening of a gate waits for a bus that is to be claimed and is not open yet.
const OPENING: Duration = Duration::from_secs(1);
/// How often a bus that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The register of the rollout's state.
pub(crate) type Register = (Arc<dyn RegisterStore>, RegisterName);

/// The claims of a gate on both buses.
pub(crate) struct RolloutClaims {
    sides: [Arc<Lazy>; 2],
}

impl RolloutClaims {
    pub(crate) fn new(sides: [Arc<Lazy>; 2]) -> Self {
        Self { sides }
    }

    /// Claims both buses; one that does not answer later.
    ///
    /// # Errors
    /// `Locked` while another gate is open that this one excludes.
    pub(crate) async fn make(&self, shared: bool) -> Result<()> {
        for side in &self.sides {
            side.claim.wanted(shared).await?;
        }
        let [old, new] = &self.sides;
        let (old, new) = tokio::join!(first(old), first(new));
        if let Err(error) = old.and(new) {
            self.give_up().await;
            return Err(error);
        }
        for side in &self.sides {
            if side.claim.is_wanted().await {
                tracing::warn!(
                    bus = side.claim.bus,
                    "the bus does not answer: a gate's claim on it is made later"
                );
                tokio::spawn(later(Arc::downgrade(side)));
            }
        }
        Ok(())
    }

    /// Gives up what was claimed.
    pub(crate) async fn give_up(&self) {
        for side in &self.sides {
            *side.claim.stands.lock().await = Stands::No;
            if let Some(opened) = side.opened() {
                opened.claims.give_up().await;
            }
        }
    }
}

/// The claim on a bus when the gate is opened.
async fn first(side: &Lazy) -> Result<()> {
    let Ok(opened) = tokio::time::timeout(OPENING, side.get()).await else { return Ok(()) };
    let claimed = match opened {
        Ok(opened) => side.claim.is_made(&opened.claims).await,
        Err(error) => Err(error),
    };
    match claimed {
        // Later, then.
        Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => Ok(()),
        claimed => claimed,
    }
}

/// Claims a bus once it answers.
async fn later(side: Weak<Lazy>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        let Some(side) = side.upgrade() else { return };
        if !side.claim.is_wanted().await {
            return;
        }
        let claimed = match side.get().await {
            Ok(opened) => side.claim.is_made(&opened.claims).await,
            Err(error) => Err(error),
        };
        match claimed {
            Ok(()) => tracing::info!(bus = side.claim.bus, "a gate's claim was made"),
            Err(error) => {
                tracing::warn!(%error, bus = side.claim.bus, "a gate's claim could not be made yet");
            }
        }
    }
}

/// The claim on one of the two.
pub(crate) struct SideClaim {
    bus: String,
    state: Register,
    stands: Mutex<Stands>,
}

enum Stands {
    /// No gate is open.
    No,
    /// To be made; decided on in this epoch.
    Wanted {
        shared: bool,
        epoch: u64,
    },
    Made,
    Lost(Error),
}

impl SideClaim {
    pub(crate) fn new(bus: String, state: Register) -> Self {
        Self { bus, state, stands: Mutex::new(Stands::No) }
    }

    async fn wanted(&self, shared: bool) -> Result<()> {
        let epoch = self.epoch().await?;
        *self.stands.lock().await = Stands::Wanted { shared, epoch };
        Ok(())
    }

    async fn is_wanted(&self) -> bool {
        matches!(*self.stands.lock().await, Stands::Wanted { .. })
    }

    /// Makes the claim that is wanted, if any; nothing may be published without it.
    ///
    /// # Errors
    /// As for [`Claims::make`], and as in the table of this module.
    pub(crate) async fn is_made(&self, of: &Claims) -> Result<()> {
        let mut stands = self.stands.lock().await;
        let (shared, epoch) = match &*stands {
            Stands::No | Stands::Made => return Ok(()),
            Stands::Lost(error) => return Err(error.clone()),
            Stands::Wanted { shared, epoch } => (*shared, *epoch),
        };
        of.make(shared).await?;
        if !shared && of.is_kept() && self.epoch().await? != epoch {
            let what = "another gate may have admitted to this bus while it did not answer this one";
            let error = Error::new(ErrorKind::Fenced, OP, what)
                .at(&self.bus)
                .advise("open the gate anew: it reads the log then");
            of.give_up().await;
            *stands = Stands::Lost(error.clone());
            return Err(error);
        }
        *stands = Stands::Made;
        Ok(())
    }

    /// How often the rollout was switched.
    async fn epoch(&self) -> Result<u64> {
        let (store, name) = &self.state;
        let Some(stands) = store.load(name).await? else { return Ok(0) };
        let state: State = serde_json::from_slice(&stands.value).map_err(|e| {
            let kind = ErrorKind::Corrupt { file: format!("register {name}"), line: None, byte: None };
            Error::new(kind, OP, "the rollout's state cannot be read").with_source(e)
        })?;
        Ok(state.epoch)
    }
}

#[cfg(all(test, unix, feature = "redis", feature = "memory"))]
mod tests {
    use eb_testkit::services::{Redis, RedisOptions};

    use super::*;

    async fn epoch(store: &Arc<dyn RegisterStore>, name: &RegisterName, version: u64, epoch: u64) {
        let at = "2026-01-29T10:00:00.000000Z";
        let state = format!(
            r#"{{"format":1,"buses":["a","b"],"lease_ms":500,"phase":"baseline","since":"{at}","reason":"r","epoch":{epoch},"mirror_run":0,"stamp":"s"}}"#
        );
        store.swap(name, version, state.into(), "a test").await.expect("a register in memory");
    }

    #[tokio::test]
    async fn a_claim_that_comes_after_a_switch_is_good_for_a_shared_index_alone() {
        let server = Redis::start(&RedisOptions::default()).expect("a Redis to test with");
        for (shared, switched) in [(false, false), (false, true), (true, true)] {
            let store: Arc<dyn RegisterStore> = Arc::new(eb_memory::MemoryRegisterStore::new());
            let name = RegisterName::new("rollout").unwrap();
            epoch(&store, &name, 0, 2).await;
            let claim = SideClaim::new("new redis".to_owned(), (store.clone(), name.clone()));
            claim.wanted(shared).await.unwrap();
            if switched {
                epoch(&store, &name, 1, 3).await;
            }
            let url = eb_redis::RedisUrl::parse(&server.url()).unwrap();
            let bus = eb_redis::RedisBus::open(eb_redis::RedisConfig::new(url)).await.unwrap();
            let claims = Claims::Redis(Arc::new(bus));
            let made = claim.is_made(&claims).await;
            if switched && !shared {
                assert_eq!(*made.unwrap_err().kind(), ErrorKind::Fenced);
                assert_eq!(*claim.is_made(&claims).await.unwrap_err().kind(), ErrorKind::Fenced, "for good");
            } else {
                made.unwrap();
                assert!(!claim.is_wanted().await);
            }
            claims.give_up().await;
        }
    }
}
