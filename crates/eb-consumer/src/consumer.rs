//! A consumer: starting, looking at, stopping.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::TransactionalStore;
use eb_contract::{ConsumerName, Error, Health, Result, Timestamp, Topic};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::builder::{ConsumerBuilder, ConsumerSource, OnTheirOwn, Settings, Within};
use crate::config::{CopyGuard, Mode, Ordering};
use crate::context::{Context, Stores};
use crate::error::ConsumerError;
use crate::lane::RunLane;
use crate::metrics::ConsumerMetrics;
use crate::redrive::Redrive;
use crate::room::Room;
use crate::source::{GroupSource, LogSource, Source};
use crate::status::{Board, PartitionStatus};
use crate::team::{Team, write_down_start};

/// How long a look at what a consumer needs may take.
const PROBE: Duration = Duration::from_secs(10);

/// A consumer that is put together, and not running yet.
pub struct EventConsumer {
    pub(crate) name: ConsumerName,
    source: ConsumerSource,
    pub(crate) stores: Stores,
    settings: Settings,
    lanes: Arc<dyn RunLane>,
    pub(crate) redrive: Arc<dyn Redrive>,
}

impl EventConsumer {
    /// A consumer whose handlers work on their own. `subscriber_name` is the name of its checkpoints, marks, leases and dead letters: 1 to 128
    /// of `[A-Za-z0-9._-]`.
    pub fn builder(subscriber_name: &str) -> ConsumerBuilder<OnTheirOwn> {
        ConsumerBuilder::plain(subscriber_name)
    }

    /// A consumer whose handlers work within transactions of `store`.
    pub fn transactional<S: TransactionalStore>(
        subscriber_name: &str,
        store: Arc<S>,
    ) -> ConsumerBuilder<Within<S>> {
        ConsumerBuilder::within(subscriber_name, store)
    }

    pub(crate) fn new(
        name: ConsumerName,
        source: ConsumerSource,
        stores: Stores,
        settings: Settings,
        lanes: Arc<dyn RunLane>,
        redrive: Arc<dyn Redrive>,
    ) -> Self {
        Self { name, source, stores, settings, lanes, redrive }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ConsumerName {
        &self.name
    }

    /// Starts a worker: looks at the bus and the stores, then takes its share of the partitions. Must be called within a tokio runtime with its
    /// clock, which also runs the worker.
    ///
    /// Dropping the future leaves nothing running. Where the consumer was new to a topic and starts elsewhere than at the oldest
    /// record, that place may have been written down.
    ///
    /// # Errors
    /// [`ConsumerError::CannotStart`]: the bus cannot be used (in mode `required`), a topic does not exist, or a store would take nothing.
    pub async fn start(self) -> Result<RunningConsumer, ConsumerError> {
        let cannot = |what: &'static str| {
            let consumer = self.name.to_string();
            move |source: Error| ConsumerError::CannotStart { consumer, what, source }
        };
        let mut degraded = None;
        let (source, stores) = match look(&self.source, &self.settings.topics).await {
            Ok(()) => (self.source.clone(), self.stores.clone()),
            Err(error) => match (self.settings.mode, self.settings.substitute.clone()) {
                (Mode::Degraded, Some((source, stores))) => {
                    look(&source, &self.settings.topics)
                        .await
                        .map_err(cannot("its substitute bus cannot be used"))?;
                    let why = format!("the bus cannot be used, this runs on a substitute: {error}");
                    tracing::error!(consumer = %self.name, %error, "DEGRADED: the bus cannot be used; consuming from a substitute that holds none of its events");
                    degraded = Some(why);
                    (source, stores)
                }
                _ => return Err(cannot("its bus cannot be used, and it is required")(error)),
            },
        };
        let ctx = Arc::new(self.context(source, stores));
        if let Some(why) = degraded {
            ctx.board.set_degraded(why);
        }
        probe(ctx.stores.checkpoints.probe()).await.map_err(cannot("its checkpoint store cannot be used"))?;
        probe(ctx.stores.processed.probe()).await.map_err(cannot("its processed store cannot be used"))?;
        probe(ctx.stores.dead_letters.probe())
            .await
            .map_err(cannot("its dead-letter store cannot be used"))?;
        if ctx.in_order {
            probe(ctx.stores.leases.probe()).await.map_err(cannot("its lease store cannot be used"))?;
            probe(ctx.stores.registers.probe()).await.map_err(cannot("its registers cannot be used"))?;
        }
        for topic in &self.settings.topics {
            write_down_start(&ctx, topic)
                .await
                .map_err(cannot("its starting place could not be written down"))?;
        }
        let (stop, stopped) = watch::channel(None);
        let teams = self.settings.topics.iter().map(|topic| {
            let team = Team::new(Arc::clone(&ctx), topic.clone(), Arc::clone(&self.lanes), stopped.clone());
            tokio::spawn(team.run())
        });
        let teams = teams.collect();
        let retention = self.settings.keep_marks.map(|keep| tokio::spawn(forget(Arc::clone(&ctx), keep)));
        tracing::info!(consumer = %self.name, owner = %ctx.owner, "started");
        Ok(RunningConsumer { ctx, stop, teams, retention })
    }

    fn context(&self, source: ConsumerSource, stores: Stores) -> Context {
        let settings = &self.settings;
        let capabilities = source.reader().capabilities().clone();
        let in_order = settings.ordering == Ordering::PerKey;
        let copies = match settings.copies {
            CopyGuard::On => true,
            CopyGuard::Off => false,
            CopyGuard::AsTheBusNeeds => capabilities.unknown_outcomes,
        };
        let source: Box<dyn Source> = match source {
            ConsumerSource::Log(reader) => Box::new(LogSource::new(reader)),
            ConsumerSource::Groups { groups, reader } => Box::new(GroupSource {
                groups,
                reader,
                group: self.name.clone(),
                in_order,
                claim_idle: settings.claim_idle,
            }),
        };
        let owner = settings.leases.owner.clone();
        Context {
            consumer: self.name.clone(),
            owner: owner.unwrap_or_else(|| format!("pid-{}-{:016x}", std::process::id(), fastrand::u64(..))),
            source,
            stores,
            start: settings.start,
            limits: settings.limits,
            commit: settings.commit,
            leases: settings.leases.clone(),
            retry: settings.retry,
            in_order,
            by_event: copies,
            forgets: capabilities.retention,
            claim_idle: settings.claim_idle,
            room: Room::new(settings.limits.total_records, settings.limits.total_bytes),
            slots: Arc::new(Semaphore::new(settings.limits.concurrency.min(Semaphore::MAX_PERMITS))),
            board: Board::default(),
            metrics: ConsumerMetrics::new(&self.name),
        }
    }
}

async fn look(source: &ConsumerSource, topics: &[Topic]) -> Result<()> {
    for topic in topics {
        probe(async { source.reader().partitions(topic).await.map(drop) }).await?;
    }
    Ok(())
}

async fn probe(work: impl Future<Output = Result<()>>) -> Result<()> {
    use eb_contract::ErrorKind::Timeout;
    let late = || Err(Error::new(Timeout, "probe", format!("no answer within {} s", PROBE.as_secs())));
    tokio::time::timeout(PROBE, work).await.unwrap_or_else(|_| late())
}

/// How often old marks are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// How many are removed at once.
const FORGET_AT_ONCE: usize = 10_000;

/// Removes old marks, again and again.
async fn forget(ctx: Arc<Context>, keep: Duration) {
    let mut hours = tokio::time::interval(FORGET_EVERY);
    loop {
        hours.tick().await;
        let micros = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        let Some(before) = Timestamp::from_micros(Timestamp::now().as_micros().saturating_sub(micros)) else {
            continue;
        };
        loop {
            match ctx.stores.processed.forget_before(&ctx.consumer, before, FORGET_AT_ONCE).await {
                Ok(gone) if gone >= FORGET_AT_ONCE as u64 => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(consumer = %ctx.consumer, %error, "old marks could not be removed; tried again in an hour");
                    ctx.metrics.store_failed("processed", &error);
                    break;
                }
            }
        }
    }
}

/// A worker of a consumer.
///
/// Dropping it without [`RunningConsumer::shutdown`] is a crash, politely put: handlers are dropped where they await, what was handled and not
/// recorded is handled again, and its partitions stay unread until its leases end.
pub struct RunningConsumer {
    ctx: Arc<Context>,
    stop: watch::Sender<Option<Instant>>,
    teams: Vec<JoinHandle<()>>,
    retention: Option<JoinHandle<()>>,
}

impl Drop for RunningConsumer {
    fn drop(&mut self) {
        self.teams.iter().chain(&self.retention).for_each(JoinHandle::abort);
    }
}

impl RunningConsumer {
    /// The consumer's name.
    #[must_use]
    pub fn name(&self) -> &ConsumerName {
        &self.ctx.consumer
    }

    /// What this worker is called.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.ctx.owner
    }

    /// The partitions that this worker holds, and how they are doing.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionStatus> {
        self.ctx.board.statuses()
    }

    /// How it is, by what it has met.
    #[must_use]
    pub fn health(&self) -> Health {
        self.ctx.board.health()
    }

    /// Begins what [`RunningConsumer::shutdown`] waits for. The grace time counts from the first call.
    pub fn stop(&self) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert_with(|| Instant::now() + self.ctx.leases.grace);
            first
        });
    }

    /// Reads nothing more, lets handlers that run finish within [`LeasePolicy::grace`](crate::LeasePolicy::grace), commits, gives its leases
    /// back and leaves.
    ///
    /// Dropping the future is dropping the worker.
    ///
    /// # Errors
    /// [`ConsumerError::Unrecorded`]: stores took no more steps in time, so that handled records will be handled again.
    pub async fn shutdown(mut self) -> Result<(), ConsumerError> {
        self.stop();
        for team in &mut self.teams {
            // A team that was aborted or panicked has nothing left to give back.
            _ = team.await;
        }
        let unrecorded = self.ctx.board.left_unrecorded();
        tracing::info!(consumer = %self.ctx.consumer, owner = %self.ctx.owner, unrecorded, "stopped");
        if unrecorded > 0 {
            return Err(ConsumerError::Unrecorded { consumer: self.ctx.consumer.to_string(), unrecorded });
        }
        Ok(())
    }
}
