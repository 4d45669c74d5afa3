//! A gate in a world of memory, and an index that misbehaves on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, OpenReservation,
    PolicyEpoch, ReservationId, ReserveRequest, Reserved,
};
use eb_contract::{
    BoxFuture, Effect, Error, ErrorKind, EventBusAdmin, EventBusReaderExt, PartitionId, Record, Result,
    StartAt, Topic,
};
use eb_memory::{Fate, MemoryAdmissionIndex, MemoryBus, MemoryConfig};
use ig_gate::policy::{PolicyFile, PolicyFiles};
use ig_gate::{Decision, Gate, GateConfig, GateError, GateParts, LogQuarantine, Policy, Receipt};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

/// The lease of a shared index here.
pub(crate) const LEASE: Duration = Duration::from_secs(8);

pub(crate) const TRAFFIC: &str = "fp.bus.traffic.v1";
pub(crate) const CONTROL: &str = "fp.bus.control.v1";
pub(crate) const AUDIT: &str = "fp.bus.audit.v1";
pub(crate) const HEX64: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub(crate) const HEX32: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub(crate) fn config_dir() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

pub(crate) fn config_file(name: &str) -> Vec<u8> {
    std::fs::read(config_dir().join(name)).unwrap()
}

/// The policy that ships with the project.
pub(crate) fn shipped_policy() -> Policy {
    let files = ["partitioning_profiles_v0.yaml", "class_map_v0.yaml", "schema_policy_v0.yaml"]
        .map(|name| config_file(&format!("ig/{name}")));
    load_policy("v0", &files[0], &files[1], &files[2]).unwrap()
}

/// The shipped policy, but event types without a policy are admitted.
pub(crate) fn open_policy() -> Policy {
    let schema = String::from_utf8(config_file("ig/schema_policy_v0.yaml")).unwrap();
    let schema = schema.replace("default_action: quarantine", "default_action: admit");
    load_policy(
        "open",
        &config_file("ig/partitioning_profiles_v0.yaml"),
        &config_file("ig/class_map_v0.yaml"),
        schema.as_bytes(),
    )
    .unwrap()
}

pub(crate) fn load_policy(
    revision: &str,
    partitioning: &[u8],
    class_map: &[u8],
    schema_policy: &[u8],
) -> Result<Policy, ig_gate::yaml::ConfigError> {
    let file = |name, bytes| PolicyFile { name, bytes };
    let files = PolicyFiles {
        policy_id: "ig.policy",
        revision,
        partitioning: file("partitioning.yaml", partitioning),
        class_map: file("class_map.yaml", class_map),
        schema_policy: file("schema_policy.yaml", schema_policy),
    };
    Policy::load(files, &|path| {
        std::fs::read(config_dir().join("schemas").join(path)).map_err(|e| e.to_string())
    })
}

/// A bus for facts, one for evidence, an index, and gates over them.
pub(crate) struct World {
    pub(crate) bus: MemoryBus,
    pub(crate) evidence: MemoryBus,
    pub(crate) index: Arc<Index>,
    pub(crate) policy: Policy,
    pub(crate) config: GateConfig,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(MemoryConfig::default(), 1, MemoryAdmissionIndex::new()).await
    }

    pub(crate) async fn with(config: MemoryConfig, partitions: u32, index: MemoryAdmissionIndex) -> Self {
        let (bus, evidence) = (MemoryBus::with_config(config), MemoryBus::new());
        for name in [TRAFFIC, CONTROL, AUDIT] {
            bus.admin().create_topic(&topic(name), partitions).await.unwrap();
        }
        evidence.admin().create_topic(&topic("ig.quarantine.v1"), 1).await.unwrap();
        Self { bus, evidence, index: Index::new(index), policy: open_policy(), config: GateConfig::default() }
    }

    pub(crate) fn parts(&self) -> GateParts {
        let quarantine = LogQuarantine::new(
            Arc::new(self.evidence.publisher()),
            Arc::new(self.evidence.reader()),
            topic("ig.quarantine.v1"),
            64 << 10,
        );
        GateParts {
            publisher: Arc::new(self.bus.publisher()),
            reader: Arc::new(self.bus.reader()),
            index: self.index.clone(),
            quarantine: Arc::new(quarantine),
            policy: self.policy.clone(),
            config: self.config.clone(),
        }
    }

    pub(crate) async fn open(&self) -> Gate {
        Gate::open(self.parts()).await.unwrap()
    }

    /// The index comes back with what was durable only.
    pub(crate) fn crash(&mut self) {
        self.index = Index::new(self.index.inner.reopen_after_crash());
    }

    /// What the log of a stream holds.
    pub(crate) async fn log(&self, stream: &str) -> Vec<Record> {
        let (reader, topic) = (self.bus.reader(), topic(stream));
        let mut all = Vec::new();
        for partition in eb_contract::EventBusReader::partitions(&reader, &topic).await.unwrap().partitions {
            all.extend(reader.read_to_head(&topic, partition.id, StartAt::Earliest).await.unwrap());
        }
        all
    }

    pub(crate) fn unknown(&self, appended: bool) {
        let error = Error::new(ErrorKind::Timeout, "publish", "no answer").with_effect(Effect::Unknown);
        self.bus.faults().next_records([if appended { Fate::LoseAck(error) } else { Fate::Fail(error) }]);
    }
}

/// An event in the making.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) payload: String,
    pub(crate) extra: String,
}

pub(crate) fn event(id: &str) -> Event {
    Event {
        id: id.to_owned(),
        event_type: "order.placed".to_owned(),
        payload: r#"{"merchant_id":"m-1","n":1}"#.to_owned(),
        extra: String::new(),
    }
}

impl Event {
    pub(crate) fn of_type(mut self, event_type: &str) -> Self {
        self.event_type = event_type.to_owned();
        self
    }

    pub(crate) fn payload(mut self, payload: &str) -> Self {
        self.payload = payload.to_owned();
        self
    }

    /// With these members more, as JSON with a comma before each.
    pub(crate) fn extra(mut self, extra: &str) -> Self {
        self.extra = extra.to_owned();
        self
    }

    pub(crate) fn bytes(&self) -> Bytes {
        let Self { id, event_type, payload, extra } = self;
        Bytes::from(format!(
            r#"{{"event_id":"{id}","event_type":"{event_type}","ts_utc":"2026-01-29T10:00:00.000001Z","manifest_fingerprint":"{HEX64}","parameter_hash":"{HEX64}","seed":18446744073709551615,"scenario_id":7,"run_id":"{HEX32}","producer":"tests"{extra},"payload":{payload}}}"#
        ))
    }
}

impl From<Event> for Bytes {
    fn from(event: Event) -> Self {
        event.bytes()
    }
}

pub(crate) fn decision(answer: Result<Receipt, GateError>) -> Decision {
    answer.unwrap().decision
}

/// Polls a future once and expects it to wait.
pub(crate) async fn is_pending<F: Future + Unpin>(future: &mut F) {
    let ready = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready())
    });
    assert!(!ready.await, "it should still be waiting");
}

/// Lets the runtime's tasks run until `done`.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

/// The reference index, with faults.
pub(crate) struct Index {
    pub(crate) inner: MemoryAdmissionIndex,
    pub(crate) refuse_confirm: AtomicBool,
    pub(crate) refuse_checkpoint: AtomicBool,
    /// How often a checkpoint was to be committed.
    pub(crate) checkpoints: AtomicUsize,
    held_checkpoint: Mutex<Option<oneshot::Receiver<()>>>,
    slow: watch::Sender<bool>,
    slow_confirm: watch::Sender<bool>,
    slow_looks: watch::Sender<bool>,
    pub(crate) shared: AtomicBool,
    pub(crate) reservations: Mutex<Reservations>,
}

/// What a shared index knows of other gates.
#[derive(Default)]
pub(crate) struct Reservations {
    pub(crate) elsewhere: Vec<OpenReservation>,
    pub(crate) lease_ended: bool,
    pub(crate) asked: Vec<ReserveRequest>,
    /// How often the open ones were looked at.
    pub(crate) looked: usize,
    /// What was given back.
    pub(crate) released: Vec<ReservationId>,
    /// What was renewed, call by call.
    pub(crate) renewed: Vec<Vec<ReservationId>>,
}

impl Index {
    pub(crate) fn new(inner: MemoryAdmissionIndex) -> Arc<Self> {
        Arc::new(Self {
            inner,
            refuse_confirm: AtomicBool::new(false),
            refuse_checkpoint: AtomicBool::new(false),
            checkpoints: AtomicUsize::new(0),
            held_checkpoint: Mutex::default(),
            slow: watch::Sender::new(false),
            slow_confirm: watch::Sender::new(false),
            slow_looks: watch::Sender::new(false),
            shared: AtomicBool::new(false),
            reservations: Mutex::default(),
        })
    }

    /// From now on look-ups wait, or no longer.
    pub(crate) fn slow(&self, slow: bool) {
        self.slow.send_replace(slow);
    }

    /// From now on entries are taken late, or no longer.
    pub(crate) fn slow_confirm(&self, slow: bool) {
        self.slow_confirm.send_replace(slow);
    }

    /// From now on looks at other gates' reservations take long, or no longer.
    pub(crate) fn slow_looks(&self, slow: bool) {
        self.slow_looks.send_replace(slow);
    }

    /// How many entries are on their way.
    pub(crate) fn confirming(&self) -> usize {
        self.slow_confirm.receiver_count()
    }

    /// The next checkpoint is stored only once this is told so.
    pub(crate) fn hold_next_checkpoint(&self) -> oneshot::Sender<()> {
        let (let_go, held) = oneshot::channel();
        *self.held_checkpoint.lock() = Some(held);
        let_go
    }

    fn refused<T: Send + 'static>(op: &'static str) -> BoxFuture<'static, Result<T>> {
        Box::pin(std::future::ready(Err(Error::new(ErrorKind::Io, op, "the disk of the index is gone"))))
    }
}

impl AdmissionIndex for Index {
    fn is_shared(&self) -> bool {
        self.shared.load(Ordering::SeqCst)
    }

    fn lease(&self) -> Option<Duration> {
        self.is_shared().then_some(LEASE)
    }

    fn max_lag(&self) -> u64 {
        self.inner.max_lag()
    }

    fn reserve<'a>(&'a self, requests: &'a [ReserveRequest]) -> BoxFuture<'a, Result<Vec<Reserved>>> {
        Box::pin(async move {
            let mut slow = self.slow.subscribe();
            let _ = slow.wait_for(|slow| !slow).await;
            let mut answers = self.inner.reserve(requests).await?;
            if self.is_shared() {
                let mut known = self.reservations.lock();
                known.asked.extend_from_slice(requests);
                for (request, answer) in requests.iter().zip(&mut answers) {
                    let elsewhere = known.elsewhere.iter().any(|r| r.request.key == request.key);
                    if elsewhere && matches!(answer, Reserved::Fresh(_)) {
                        let lease_left =
                            if known.lease_ended { Duration::ZERO } else { Duration::from_millis(5) };
                        *answer = Reserved::InFlight { owner: "gate-b".to_owned(), lease_left };
                    }
                }
            }
            Ok(answers)
        })
    }

    fn confirm(&self, confirmed: Vec<Confirmation>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        if self.refuse_confirm.load(Ordering::SeqCst) {
            return Self::refused("confirm");
        }
        let mut slow = self.slow_confirm.subscribe();
        Box::pin(async move {
            let _ = slow.wait_for(|slow| !slow).await;
            self.inner.confirm(confirmed).await
        })
    }

    fn renew(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        self.reservations.lock().renewed.push(reservations.clone());
        if self.refuse_confirm.load(Ordering::SeqCst) {
            return Self::refused("renew");
        }
        self.inner.renew(reservations)
    }

    fn release(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        self.reservations.lock().released.extend_from_slice(&reservations);
        self.inner.release(reservations)
    }

    fn give_up(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        let mut known = self.reservations.lock();
        if known.lease_ended {
            known.elsewhere.retain(|r| !reservations.contains(&r.reservation));
        }
        drop(known);
        self.inner.give_up(reservations)
    }

    fn apply(&self, entries: Vec<AdmissionEntry>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        if self.refuse_confirm.load(Ordering::SeqCst) {
            return Self::refused("apply");
        }
        let mut slow = self.slow_confirm.subscribe();
        Box::pin(async move {
            let _ = slow.wait_for(|slow| !slow).await;
            self.reservations.lock().elsewhere.retain(|r| entries.iter().all(|e| e.key != r.request.key));
            self.inner.apply(entries).await
        })
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<Option<IndexCheckpoint>>> {
        self.inner.checkpoint()
    }

    fn commit_checkpoint(&self, checkpoint: IndexCheckpoint) -> BoxFuture<'_, Result<()>> {
        self.checkpoints.fetch_add(1, Ordering::SeqCst);
        if self.refuse_checkpoint.load(Ordering::SeqCst) {
            return Self::refused("commit_checkpoint");
        }
        if let Some(held) = self.held_checkpoint.lock().take() {
            return Box::pin(async move {
                let _ = held.await;
                self.inner.commit_checkpoint(checkpoint).await
            });
        }
        self.inner.commit_checkpoint(checkpoint)
    }

    fn get(&self, key: AdmissionKey) -> BoxFuture<'_, Result<Option<AdmissionEntry>>> {
        self.inner.get(key)
    }

    fn find_event(&self, event: [u8; 8]) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        self.inner.find_event(event)
    }

    fn scan(&self, after: Option<AdmissionKey>, max: usize) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        self.inner.scan(after, max)
    }

    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<OpenReservation>>> {
        Box::pin(async move {
            let mut slow = self.slow_looks.subscribe();
            let _ = slow.wait_for(|slow| !slow).await;
            let mut known = self.reservations.lock();
            known.looked += 1;
            Ok(known.elsewhere.clone())
        })
    }

    fn record_policy(&self, epoch: PolicyEpoch) -> BoxFuture<'_, Result<()>> {
        self.inner.record_policy(epoch)
    }

    fn policy_history(&self) -> BoxFuture<'_, Result<Vec<PolicyEpoch>>> {
        self.inner.policy_history()
    }

    fn approximate_len(&self) -> u64 {
        self.inner.approximate_len()
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.probe()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.close()
    }
}

pub(crate) fn first_partition() -> PartitionId {
    PartitionId(0)
}
