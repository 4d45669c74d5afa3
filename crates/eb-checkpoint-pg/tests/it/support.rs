//! A schema of its own for each test, and a connection that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use eb_checkpoint_pg::PgConfig;
use eb_contract::stores::{
    AdmissionEntry, AdmissionKey, Checkpoint, Confirmation, Lease, PolicyRev, ReservationId, ReserveRequest,
    Reserved,
};
use eb_contract::{
    BusIncarnation, ConsumerName, Cut, EbRef, Offset, OffsetKind, PartitionId, Timestamp, Topic,
};
use eb_testkit::services::{PgWire, postgres_url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A schema's name; what is in it goes with it.
pub(crate) struct Schema {
    name: String,
    url: String,
}

impl Schema {
    /// On the server that the tests share.
    pub(crate) fn new() -> Self {
        Self::on(&postgres_url().expect("a Postgres to test with"))
    }

    pub(crate) fn on(url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("t{}_{number}", std::process::id()), url: url.to_owned() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn port(&self) -> u16 {
        let port = self.url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
        port.expect("an address with a port")
    }

    /// Patient with a machine that is busy with everything else: a caller that is halted within a transaction holds its locks
    /// for as long.
    pub(crate) fn config(&self) -> PgConfig {
        PgConfig {
            schema: self.name.clone(),
            max_connections: 4,
            pool_wait: PATIENCE,
            connect_timeout: PATIENCE,
            statement_timeout: PATIENCE,
            lock_timeout: PATIENCE,
            // So that the sessions of one test can be told from those of the others.
            application_name: self.name.clone(),
            ..PgConfig::new(&self.url)
        }
    }

    /// Ends the sessions of this test's stores, as the server does when it goes down.
    pub(crate) fn end_sessions(&self) -> usize {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name";
        self.sql(&format!("{sql} = '{}'", self.name)).len()
    }

    /// Runs statements beside the stores, in the schema; gives back the first column of each row.
    pub(crate) fn sql(&self, sql: &str) -> Vec<String> {
        self.session().query(sql).expect("the statement is right")
    }

    /// A session beside the stores, in the schema.
    pub(crate) fn session(&self) -> PgWire {
        let mut wire = PgWire::connect(self.port(), "postgres", "postgres").expect("a connection");
        wire.query(&format!("SET search_path = {}", self.name)).expect("the statement is right");
        wire
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.sql(&format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name));
        }
    }
}

/// A way to the server that can lose an answer: once armed, the next request goes through, its answer does not come
/// back, and the connection ends.
pub(crate) struct Proxy {
    address: SocketAddr,
    lose_next: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let lose_next = Arc::new(AtomicBool::new(false));
        let armed = lose_next.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                    tokio::spawn(carry(client, server, armed.clone()));
                }
            }
        });
        Self { address, lose_next }
    }

    pub(crate) fn config(&self, schema: &Schema) -> PgConfig {
        let url = format!("postgres://postgres@{}/postgres", self.address);
        PgConfig { url, ..schema.config() }
    }

    pub(crate) fn lose_next_answer(&self) {
        self.lose_next.store(true, Ordering::SeqCst);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, lose_next: Arc<AtomicBool>) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(n @ 1..) = read else { return };
                losing |= lose_next.swap(false, Ordering::SeqCst);
                if server.write_all(&asked[..n]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(n @ 1..) = read else { return };
                if losing || client.write_all(&answered[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

pub(crate) fn topic() -> Topic {
    Topic::new("fp.bus.traffic.v1").expect("a valid name")
}

pub(crate) fn line(n: u64) -> Offset {
    Offset::from_u64(OffsetKind::FileLine, n)
}

pub(crate) fn next(n: u64) -> Cut {
    Cut::Next(line(n))
}

pub(crate) fn lease(owner: &str, epoch: u64) -> Lease {
    Lease { owner: owner.to_owned(), epoch }
}

/// A checkpoint that was not committed yet.
pub(crate) fn fresh(consumer: &str, partition: u32, cut: Cut) -> Checkpoint {
    Checkpoint {
        consumer: ConsumerName::new(consumer).expect("a valid name"),
        topic: topic(),
        partition_id: PartitionId(partition),
        cut,
        caught_up_at: None,
        version: 0,
        bus_incarnation: BusIncarnation::new("life-1").expect("printable ASCII"),
        lease: None,
        committed_at: None,
    }
}

/// The `n`-th event's key: spread, and different for every `n`.
pub(crate) fn key(n: u64) -> AdmissionKey {
    let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut dedupe = [7; 32];
    dedupe[..8].copy_from_slice(&spread.to_be_bytes());
    dedupe[8..16].copy_from_slice(&n.to_be_bytes());
    AdmissionKey { event: spread.to_be_bytes(), dedupe }
}

pub(crate) fn request(n: u64) -> ReserveRequest {
    ReserveRequest {
        key: key(n),
        payload_hash: [3; 32],
        topic: topic(),
        start: vec![(PartitionId(0), next(n)), (PartitionId(1), Cut::Begin)],
        policy: Arc::new(PolicyRev {
            policy_id: "ig.\0policy\\v0".to_owned(),
            revision: "r1".to_owned(),
            content_digest: "ab".repeat(32),
        }),
    }
}

pub(crate) fn entry(n: u64, partition: u32, offset: u64) -> AdmissionEntry {
    AdmissionEntry {
        key: key(n),
        payload_hash: [3; 32],
        eb_ref: EbRef {
            topic: topic(),
            partition_id: PartitionId(partition),
            offset: line(offset),
            published_at_utc: Timestamp::from_micros(1_700_000_000_000_001).expect("a time in 2023"),
        },
    }
}

pub(crate) fn confirmation(reservation: ReservationId, entry: AdmissionEntry) -> Confirmation {
    Confirmation { reservation, entry }
}

pub(crate) fn fresh_id(answer: &Reserved) -> ReservationId {
    match answer {
        Reserved::Fresh(id) => *id,
        other => panic!("fresh was expected, not {other:?}"),
    }
}
