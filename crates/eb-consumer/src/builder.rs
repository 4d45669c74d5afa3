//! Putting a consumer together.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::TransactionalStore;
use eb_contract::{BoxFuture, ConsumerName, EventBusGroups, EventBusReader, StartAt, Topic};
use serde::de::DeserializeOwned;

use crate::config::{self, CommitPolicy, CopyGuard, LeasePolicy, Limits, Mode, Ordering};
use crate::consumer::EventConsumer;
use crate::context::Stores;
use crate::error::{BuildError, HandlerResult};
use crate::event::{Event, RawEvent};
use crate::lane::RunLane;
use crate::lane::plain::PlainLanes;
use crate::lane::tx::TxLanes;
use crate::redrive::Redrive;
use crate::retry::RetryPolicy;
use crate::routes::{Plain, Routes, Unhandled, WithTx, typed, typed_tx, untyped, untyped_tx};

/// Where a consumer reads.
#[derive(Clone)]
pub enum ConsumerSource {
    /// A log, from checkpoints.
    Log(Arc<dyn EventBusReader>),
    /// The groups that a service keeps itself.
    Groups {
        /// The groups.
        groups: Arc<dyn EventBusGroups>,
        /// The same bus, for its partitions and heads.
        reader: Arc<dyn EventBusReader>,
    },
}

impl ConsumerSource {
    pub(crate) fn reader(&self) -> &Arc<dyn EventBusReader> {
        match self {
            Self::Log(reader) | Self::Groups { reader, .. } => reader,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) topics: Vec<Topic>,
    pub(crate) source: Option<ConsumerSource>,
    pub(crate) stores: Option<Stores>,
    pub(crate) start: StartAt,
    pub(crate) limits: Limits,
    pub(crate) commit: CommitPolicy,
    pub(crate) leases: LeasePolicy,
    pub(crate) retry: RetryPolicy,
    pub(crate) ordering: Ordering,
    pub(crate) claim_idle: Duration,
    pub(crate) copies: CopyGuard,
    pub(crate) mode: Mode,
    pub(crate) keep_marks: Option<Duration>,
    pub(crate) substitute: Option<(ConsumerSource, Stores)>,
}

/// How handlers work: on their own ([`OnTheirOwn`]) or within transactions ([`Within`]). Implemented by nobody else.
pub trait Handlers: sealed::Sealed + Send + 'static {}

mod sealed {
    use super::{Arc, RunLane, Stores, Unhandled};

    pub trait Sealed {
        fn set_unhandled(&mut self, unhandled: Unhandled);
        fn check(&self) -> Result<(), String>;
        #[allow(private_interfaces)]
        fn finish(self, stores: &mut Stores) -> super::Finished;
    }

    pub(super) type Lanes = Arc<dyn RunLane>;
}

pub(crate) struct Finished {
    pub(crate) lanes: sealed::Lanes,
    pub(crate) redrive: Arc<dyn Redrive>,
}

/// Handlers on their own: many at once, effects at least once.
#[derive(Default)]
pub struct OnTheirOwn {
    routes: Routes<Plain>,
    twice: Option<String>,
}

/// Handlers within transactions of `S`: one after the other in a partition, effects exactly once.
pub struct Within<S: TransactionalStore> {
    routes: Routes<WithTx<S::Transaction>>,
    store: Arc<S>,
    twice: Option<String>,
}

impl Handlers for OnTheirOwn {}
impl<S: TransactionalStore> Handlers for Within<S> {}

impl sealed::Sealed for OnTheirOwn {
    fn set_unhandled(&mut self, unhandled: Unhandled) {
        self.routes.unhandled = Some(unhandled);
    }

    fn check(&self) -> Result<(), String> {
        check(&self.routes, self.twice.as_deref())
    }

    #[allow(private_interfaces)]
    fn finish(self, _stores: &mut Stores) -> Finished {
        let redrive = Arc::new(self.routes.clone());
        Finished { lanes: Arc::new(PlainLanes { routes: self.routes }), redrive }
    }
}

impl<S: TransactionalStore> sealed::Sealed for Within<S> {
    fn set_unhandled(&mut self, unhandled: Unhandled) {
        self.routes.unhandled = Some(unhandled);
    }

    fn check(&self) -> Result<(), String> {
        check(&self.routes, self.twice.as_deref())
    }

    #[allow(private_interfaces)]
    fn finish(self, stores: &mut Stores) -> Finished {
        stores.processed = Arc::clone(&self.store) as _;
        stores.dead_letters = self.store.dead_letters();
        let lanes = Arc::new(TxLanes { routes: self.routes, store: self.store });
        Finished { lanes: lanes.clone(), redrive: lanes }
    }
}

fn check<H>(routes: &Routes<H>, twice: Option<&str>) -> Result<(), String> {
    match twice {
        Some(event_type) => Err(format!("two handlers for events of type `{event_type}`")),
        None => routes.check(),
    }
}

/// Puts an [`EventConsumer`] together. Start with [`EventConsumer::builder`] or [`EventConsumer::transactional`].
#[must_use]
pub struct ConsumerBuilder<K> {
    settings: Settings,
    handlers: K,
}

impl ConsumerBuilder<OnTheirOwn> {
    pub(crate) fn plain(name: &str) -> Self {
        Self { settings: Settings::new(name), handlers: OnTheirOwn::default() }
    }

    /// The handler of events of a type, whose payload is decoded as a `T`; one that does not decode becomes a dead letter.
    ///
    /// The handler's future may be dropped at an await: when the lease is lost, or the grace time of a shutdown is over. The record is then
    /// delivered again. A handler that computes for long without an await keeps the others of its partition waiting: use
    /// `spawn_blocking` for that.
    pub fn on<T, H, F>(mut self, event_type: &str, handler: H) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        H: Fn(Event<T>) -> F + Send + Sync + 'static,
        F: Future<Output = HandlerResult> + Send + 'static,
    {
        if !self.handlers.routes.add(event_type, typed(handler)) {
            self.handlers.twice = Some(event_type.to_owned());
        }
        self
    }

    /// The handler of events of a type, whose payload is not decoded.
    pub fn on_raw<H, F>(mut self, event_type: &str, handler: H) -> Self
    where
        H: Fn(RawEvent) -> F + Send + Sync + 'static,
        F: Future<Output = HandlerResult> + Send + 'static,
    {
        if !self.handlers.routes.add(event_type, untyped(handler)) {
            self.handlers.twice = Some(event_type.to_owned());
        }
        self
    }

    /// The handler of events of all other types.
    pub fn otherwise<H, F>(mut self, handler: H) -> Self
    where
        H: Fn(RawEvent) -> F + Send + Sync + 'static,
        F: Future<Output = HandlerResult> + Send + 'static,
    {
        self.handlers.routes.set_otherwise(untyped(handler));
        self
    }
}

impl<S: TransactionalStore> ConsumerBuilder<Within<S>> {
    pub(crate) fn within(name: &str, store: Arc<S>) -> Self {
        let handlers = Within { routes: Routes::default(), store, twice: None };
        Self { settings: Settings::new(name), handlers }
    }

    /// As [`ConsumerBuilder::on`]; what the handler writes through the transaction is committed with the mark and the checkpoint, or not at
    /// all. Write `|event, tx| Box::pin(async move { … })`.
    pub fn on<T, H>(mut self, event_type: &str, handler: H) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        H: for<'x> Fn(Event<T>, &'x mut S::Transaction) -> BoxFuture<'x, HandlerResult>
            + Send
            + Sync
            + 'static,
    {
        if !self.handlers.routes.add(event_type, typed_tx(handler)) {
            self.handlers.twice = Some(event_type.to_owned());
        }
        self
    }

    /// As [`ConsumerBuilder::on_raw`], within the transaction.
    pub fn on_raw<H>(mut self, event_type: &str, handler: H) -> Self
    where
        H: for<'x> Fn(RawEvent, &'x mut S::Transaction) -> BoxFuture<'x, HandlerResult>
            + Send
            + Sync
            + 'static,
    {
        if !self.handlers.routes.add(event_type, untyped_tx(handler)) {
            self.handlers.twice = Some(event_type.to_owned());
        }
        self
    }

    /// As [`ConsumerBuilder::otherwise`], within the transaction.
    pub fn otherwise<H>(mut self, handler: H) -> Self
    where
        H: for<'x> Fn(RawEvent, &'x mut S::Transaction) -> BoxFuture<'x, HandlerResult>
            + Send
            + Sync
            + 'static,
    {
        self.handlers.routes.set_otherwise(untyped_tx(handler));
        self
    }
}

impl Settings {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            topics: Vec::new(),
            source: None,
            stores: None,
            start: StartAt::Earliest,
            limits: Limits::default(),
            commit: CommitPolicy::default(),
            leases: LeasePolicy::default(),
            retry: RetryPolicy::default(),
            ordering: Ordering::PerKey,
            claim_idle: Duration::from_secs(60),
            copies: CopyGuard::default(),
            mode: Mode::Required,
            keep_marks: None,
            substitute: None,
        }
    }

    fn check(&self) -> Result<(ConsumerName, ConsumerSource, Stores), String> {
        let name = ConsumerName::new(&self.name).map_err(|e| e.to_string())?;
        if self.topics.is_empty() {
            return Err("no topic; give it at least one".to_owned());
        }
        if let Some(twice) = self.topics.iter().enumerate().find(|(i, t)| self.topics[..*i].contains(t)) {
            return Err(format!("the topic `{}` twice", twice.1));
        }
        let Some(source) = self.source.clone() else {
            return Err("no source; say where it reads".to_owned());
        };
        let Some(stores) = self.stores.clone() else {
            return Err("no stores; say where it keeps what it has done".to_owned());
        };
        self.retry.check().map_err(|e| format!("its retries: {e}"))?;
        config::check(&self.limits, &self.commit, &self.leases)?;
        if matches!(self.start, StartAt::Cut(_) | StartAt::Resume { .. }) {
            return Err("it starts at a cut, which means something in one partition only; reset its checkpoints instead".to_owned());
        }
        match (&source, self.ordering, &self.start) {
            (ConsumerSource::Log(_), Ordering::Unordered, _) => {
                Err("a log is read in order by one worker for each partition; unordered takes a source with groups".to_owned())
            }
            (ConsumerSource::Groups { .. }, _, StartAt::Latest | StartAt::Timestamp(_)) => {
                Err("a group knows its own place: it starts at the oldest record".to_owned())
            }
            _ if self.mode == Mode::Required && self.substitute.is_some() => {
                Err("a substitute for its bus, which mode `required` never uses; use mode `degraded` or leave it out".to_owned())
            }
            _ if self.mode == Mode::Degraded && self.substitute.is_none() => {
                Err("mode `degraded` without a substitute for the bus".to_owned())
            }
            _ => Ok((name, source, stores)),
        }
    }
}

impl<K: Handlers> ConsumerBuilder<K> {
    /// A topic that it consumes; call it for each.
    pub fn topic(mut self, topic: Topic) -> Self {
        self.settings.topics.push(topic);
        self
    }

    /// Where it reads.
    pub fn source(mut self, source: ConsumerSource) -> Self {
        self.settings.source = Some(source);
        self
    }

    /// Where it keeps what it has done. Of a transactional consumer marks and dead letters are in its transactional store, whatever `processed` and
    /// `dead_letters` are.
    pub fn stores(mut self, stores: Stores) -> Self {
        self.settings.stores = Some(stores);
        self
    }

    /// Where it starts on a topic of which it has no checkpoint: at the oldest record unless said otherwise. A cut cannot be given here.
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.settings.start = start;
        self
    }

    /// What becomes of events of types without a handler. Has to be said unless there is a handler for all others.
    pub fn unhandled(mut self, unhandled: Unhandled) -> Self {
        self.handlers.set_unhandled(unhandled);
        self
    }

    /// How much is in work at once.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// When marks and checkpoints are stored. Within transactions: how many records one has at most, and how long it takes new ones in.
    pub fn commit(mut self, commit: CommitPolicy) -> Self {
        self.settings.commit = commit;
        self
    }

    /// How workers share partitions.
    pub fn leases(mut self, leases: LeasePolicy) -> Self {
        self.settings.leases = leases;
        self
    }

    /// When and how often records are tried again.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Whether the order of a key is kept. [`Ordering::Unordered`] takes a source with groups.
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.settings.ordering = ordering;
        self
    }

    /// Without an order: after what time records that another worker has are taken from it. Must exceed what a handler takes; 60 s unless said
    /// otherwise.
    pub fn take_over_after(mut self, idle: Duration) -> Self {
        self.settings.claim_idle = idle.max(Duration::from_millis(100));
        self
    }

    /// Whether copies of an event are handled.
    pub fn copies(mut self, copies: CopyGuard) -> Self {
        self.settings.copies = copies;
        self
    }

    /// Marks older than this are removed, once an hour by each worker. Kept for good unless said otherwise. It must exceed the time in which a
    /// publisher may leave a copy of an event; marks past the checkpoint are kept however old.
    pub fn keep_marks(mut self, keep: Duration) -> Self {
        self.settings.keep_marks = Some(keep);
        self
    }

    /// For development: what it consumes instead when its bus cannot be used at the start. Sets [`Mode::Degraded`].
    pub fn degraded(mut self, source: ConsumerSource, stores: Stores) -> Self {
        self.settings.mode = Mode::Degraded;
        self.settings.substitute = Some((source, stores));
        self
    }

    /// Checks everything that can be checked without the bus.
    ///
    /// # Errors
    /// [`BuildError`], with what is wrong and what to do.
    pub fn build(self) -> Result<EventConsumer, BuildError> {
        let Self { settings, handlers } = self;
        let wrong = |what: String| BuildError { consumer: settings.name.clone(), what };
        handlers.check().map_err(wrong)?;
        let (name, source, mut stores) = settings.check().map_err(wrong)?;
        let Finished { lanes, redrive } = handlers.finish(&mut stores);
        Ok(EventConsumer::new(name, source, stores, settings, lanes, redrive))
    }
}
