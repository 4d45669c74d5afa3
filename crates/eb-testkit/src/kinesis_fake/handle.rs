//! The test's hold on the fake.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::{self, Handle};
use tokio::sync::{oneshot, watch};

use super::log::Log;
use super::model::World;
use super::script::Book;
use super::server::{self, Shared};
use super::{
    Entry, Fault, Limits, Op, Outcome, Reaction, Request, SequenceNumber, SequenceStyle, ShardInfo,
    StoredRecord,
};

/// How long the waiting helpers wait before they fail the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a fake is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The limits in force at the start.
    pub limits: Limits,
    /// What sequence numbers look like.
    pub sequence_style: SequenceStyle,
}

/// A running fake. It serves on a thread and a runtime of its own, so that it goes on whatever the test's runtime does
/// (blocked, paused time, several of them). Dropping it ends it and all its connections.
pub struct KinesisFake {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for KinesisFake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KinesisFake").field("address", &self.address).finish_non_exhaustive()
    }
}

impl KinesisFake {
    /// Starts a fake on a free port of the loopback interface.
    ///
    /// Dropping the future before it is done leaves nothing behind.
    ///
    /// # Errors
    /// When no port, thread or runtime can be had.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// The same, set up otherwise.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(options: Options) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            world: Mutex::new(World::new(options.limits, options.sequence_style)),
            log: Mutex::new(Log::new()),
            book: Book::default(),
            down: watch::Sender::new(false),
        });
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let (ready, started) = oneshot::channel();
        let thread = thread::Builder::new().name("kinesis-fake".to_owned()).spawn(move || {
            runtime.block_on(async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        tokio::spawn(server::serve(serving, listener));
                        // The starter may have lost interest; then `stop` is gone too.
                        let _ = ready.send(Ok(()));
                        let _ = stopped.await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        })?;
        let fake = Self { shared, address, runtime: handle, stop: Some(stop), thread: Some(thread) };
        started.await.map_err(|_| io::Error::other("the fake's thread ended"))??;
        Ok(fake)
    }

    /// What to set as the client's endpoint: `http://127.0.0.1:<port>`. Any region and any credentials will do.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    // ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Creates a stream of evenly split shards, by the limits in force.
    ///
    /// # Panics
    /// When there is one of this name.
    pub fn create_stream(&self, name: &str, shards: u32) {
        expect(self.shared.world.lock().create_stream(name, shards));
    }

    /// Deletes a stream; iterators into it are worth nothing from then on, also when one of its name is created again.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn delete_stream(&self, name: &str) {
        assert!(self.shared.world.lock().delete_stream(name), "there is no stream {name}");
    }

    /// All shards that the stream ever had, in the order of their numbers.
    ///
    /// # Panics
    /// When there is no such stream.
    #[must_use]
    pub fn shards(&self, stream: &str) -> Vec<ShardInfo> {
        expect(self.shared.world.lock().shards(stream))
    }

    /// All records that were ever stored in the stream, trimmed ones too: shard by shard, each in order.
    ///
    /// # Panics
    /// When there is no such stream.
    #[must_use]
    pub fn records(&self, stream: &str) -> Vec<StoredRecord> {
        expect(self.shared.world.lock().records(stream))
    }

    /// The records of one shard, in order.
    ///
    /// # Panics
    /// When there is no such stream.
    #[must_use]
    pub fn shard_records(&self, stream: &str, shard: &str) -> Vec<StoredRecord> {
        let mut records = self.records(stream);
        records.retain(|r| r.shard_id == shard);
        records
    }

    /// Stores a record without a request, untouched by scripts and rates.
    ///
    /// # Panics
    /// When there is no such stream.
    pub fn put(&self, stream: &str, partition_key: &str, data: impl Into<Bytes>) -> StoredRecord {
        let entry =
            Entry { data: data.into(), partition_key: partition_key.to_owned(), explicit_hash_key: None };
        expect(self.shared.world.lock().put_directly(stream, &entry))
    }

    /// The open shard that a partition key's records go to now.
    ///
    /// # Panics
    /// When there is no such stream.
    #[must_use]
    pub fn shard_of(&self, stream: &str, partition_key: &str) -> String {
        expect(self.shared.world.lock().shard_of_key(stream, partition_key))
    }

    /// The `nth` partition key, from 0, of an endless series whose records go to this open shard now.
    ///
    /// # Panics
    /// When there is no such open shard.
    #[must_use]
    pub fn key_in(&self, stream: &str, shard: &str, nth: usize) -> String {
        let open = |s: &ShardInfo| s.id == shard && s.ending.is_none();
        assert!(self.shards(stream).iter().any(open), "there is no open shard {shard}");
        let keys = (0u64..).map(|i| format!("key-{i}"));
        keys.filter(|key| self.shard_of(stream, key) == shard).nth(nth).expect("every range has keys")
    }

    /// Splits an open shard in the middle of its hash keys; the children are the two last of [`shards`](Self::shards).
    ///
    /// # Panics
    /// When there is no such open shard.
    pub fn split(&self, stream: &str, shard: &str) {
        expect(self.shared.world.lock().split_in_half(stream, shard));
    }

    /// Merges two adjacent open shards; the child is the last of [`shards`](Self::shards).
    ///
    /// # Panics
    /// When they are not two adjacent open shards.
    pub fn merge(&self, stream: &str, first: &str, second: &str) {
        expect(self.shared.world.lock().merge_pair(stream, first, second));
    }

    /// Trims what a shard holds below `keep_from`, as if retention had taken it.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn trim(&self, stream: &str, shard: &str, keep_from: &SequenceNumber) {
        expect(self.shared.world.lock().trim(stream, shard, keep_from));
    }

    // ── Time and limits ──────────────────────────────────────────────────────────────────────────────────────────

    /// The fake's clock, in milliseconds of the epoch. It starts at the machine's time and runs with it.
    #[must_use]
    pub fn now_millis(&self) -> i64 {
        self.shared.world.lock().clock.now()
    }

    /// Stops the clock at this time; from then on only [`advance`](Self::advance) moves it.
    pub fn freeze_clock(&self, millis: i64) {
        self.shared.world.lock().clock.freeze(millis);
    }

    /// Moves the clock forward: iterators and tokens expire, retention takes records, rates recover.
    pub fn advance(&self, by: Duration) {
        self.shared.world.lock().clock.advance(by);
    }

    /// Expires all shard iterators given so far.
    pub fn expire_iterators(&self) {
        self.shared.world.lock().expire_iterators();
    }

    /// Changes the limits.
    pub fn set_limits(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.shared.world.lock().limits);
    }

    // ── Scripts ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// What the next requests of an operation meet, in turn, after what is queued already. When the queue is empty the
    /// [rules](Self::script_by) decide, and then the model.
    pub fn script(&self, op: Op, reactions: impl IntoIterator<Item = Reaction>) {
        self.shared.book.queue(op, reactions);
    }

    /// A standing rule: decides by the request; `None` leaves it to the rules set later, and then to the model. It runs
    /// on the fake's thread, one request at a time, and must not block.
    pub fn script_by(&self, op: Op, rule: impl FnMut(&Request) -> Option<Reaction> + Send + 'static) {
        self.shared.book.rule(op, rule);
    }

    /// How many queued reactions are still to come.
    #[must_use]
    pub fn scripted(&self, op: Op) -> usize {
        self.shared.book.queued(op)
    }

    /// Forgets all queues and rules; requests that wait in one go on waiting.
    pub fn clear_scripts(&self) {
        self.shared.book.clear();
    }

    /// Makes the service unreachable: all connections are reset, new ones at once. What was received is carried through.
    pub fn go_down(&self) {
        self.shared.down.send_replace(true);
    }

    /// Makes it reachable again, on the same port.
    pub fn come_back(&self) {
        self.shared.down.send_replace(false);
    }

    // ── Observation ──────────────────────────────────────────────────────────────────────────────────────────────

    /// All requests so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.lock().requests().to_vec()
    }

    /// The requests of one operation so far.
    #[must_use]
    pub fn requests_of(&self, op: Op) -> Vec<Request> {
        self.shared.log.lock().requests().iter().filter(|r| r.op == op).cloned().collect()
    }

    /// How many requests of an operation have arrived.
    #[must_use]
    pub fn count(&self, op: Op) -> usize {
        self.shared.log.lock().arrived(op)
    }

    /// The most requests of an operation that were ever in flight together.
    #[must_use]
    pub fn most_in_flight(&self, op: Op) -> usize {
        self.shared
            .log
            .lock()
            .requests()
            .iter()
            .filter(|r| r.op == op)
            .map(|r| r.in_flight)
            .max()
            .unwrap_or(0)
    }

    /// Waits until `n` requests of an operation have arrived since the start. Dropping the future changes nothing.
    ///
    /// # Panics
    /// When they have not after a minute.
    pub async fn wait_for(&self, op: Op, n: usize) {
        self.wait_log(&format!("{n} requests of {op:?}"), |log| log.arrived(op) >= n).await;
    }

    /// Waits until `n` requests of an operation have ended, one way or another. Dropping the future changes nothing.
    ///
    /// # Panics
    /// When they have not after a minute.
    pub async fn wait_finished(&self, op: Op, n: usize) {
        let ended = |r: &&Request| r.op == op && r.outcome != Outcome::InFlight;
        self.wait_log(&format!("the end of {n} requests of {op:?}"), |log| {
            log.requests().iter().filter(ended).count() >= n
        })
        .await;
    }

    /// Waits until the requests so far satisfy a condition. Dropping the future changes nothing.
    ///
    /// # Panics
    /// When they have not after a minute.
    pub async fn wait_until(&self, condition: impl Fn(&[Request]) -> bool) {
        self.wait_log("the condition", |log| condition(log.requests())).await;
    }

    async fn wait_log(&self, what: &str, condition: impl Fn(&Log) -> bool) {
        let mut changes = self.shared.log.lock().changes();
        // Timed by the fake's runtime: the test's may have its time paused.
        let mut patience = self.runtime.spawn(tokio::time::sleep(PATIENCE));
        loop {
            changes.borrow_and_update();
            if condition(&self.shared.log.lock()) {
                patience.abort();
                return;
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = &mut patience => {
                    let seen: Vec<_> = self
                        .requests()
                        .iter()
                        .map(|r| format!("{} {:?}: {:?}", r.id, r.op, r.outcome))
                        .collect();
                    panic!("waited {PATIENCE:?} in vain for {what}; the requests so far: {seen:#?}");
                }
            }
        }
    }
}

impl Drop for KinesisFake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            // A rule that holds the fake may be the last to let go of it, on the fake's own thread.
            && thread.thread().id() != thread::current().id()
        {
            // It ends at once; its panics are those of rules, and have been printed.
            drop(thread.join());
        }
    }
}

#[track_caller]
fn expect<T>(result: Result<T, Fault>) -> T {
    match result {
        Ok(value) => value,
        Err(fault) => panic!("{}: {}", fault.code, fault.message),
    }
}
