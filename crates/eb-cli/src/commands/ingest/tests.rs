//! What `eb ingest` does when the gate has no answer.

use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex};

use eb_contract::{
    Error, ErrorKind, EventBusAdmin as _, EventBusReaderExt as _, PartitionId, StartAt, Topic,
};
use eb_memory::{Fate, MemoryAdmissionIndex, MemoryBus, MemoryConfig};
use eb_profile::{Env, Profile, ProfileSource};
use ig_gate::{GateConfig, GateParts, LogQuarantine};
use serde_json::Value;

use super::*;

const PROFILE: &str = include_str!("../../../../../config/platform/profiles/local.yaml");
const AUDIT: &str = "fp.bus.audit.v1";

/// What a run printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Printed {
    fn ids(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        lines
            .map(|l| serde_json::from_slice::<Value>(l).unwrap()["event_id"].as_str().unwrap().to_owned())
            .collect()
    }
}

async fn gate(bus: &MemoryBus) -> Gate {
    let profile =
        Profile::parse(ProfileSource::built_in("/"), PROFILE, &Env::only::<&str, &str>([])).unwrap();
    let policy = profile.load_policy().unwrap();
    for topic in policy.streams() {
        bus.admin().create_topic(&topic, 1).await.unwrap();
    }
    let evidence = MemoryBus::with_config(MemoryConfig { max_envelope_bytes: 8 << 20, ..Default::default() });
    let topic = Topic::new("evidence").unwrap();
    evidence.admin().create_topic(&topic, 1).await.unwrap();
    Gate::open(GateParts {
        publisher: Arc::new(bus.publisher()),
        reader: Arc::new(bus.reader()),
        index: Arc::new(MemoryAdmissionIndex::new()),
        quarantine: Arc::new(LogQuarantine::new(
            Arc::new(evidence.publisher()),
            Arc::new(evidence.reader()),
            topic,
            1024,
        )),
        policy,
        config: GateConfig::default(),
    })
    .await
    .unwrap()
}

fn events(n: usize) -> String {
    let world = "a".repeat(64);
    (1..=n)
        .map(|i| {
            format!(
                "{{\"event_id\":\"e{i}\",\"event_type\":\"audit.access.granted\",\"ts_utc\":\"2026-01-29T10:00:00.000000Z\",\
                 \"manifest_fingerprint\":\"{world}\",\"schema_version\":\"1.0.0\",\"payload\":{{\"n\":{i}}}}}\n"
            )
        })
        .collect()
}

struct Ran {
    result: Result<(), Failure>,
    summary: Summary,
    printed: Vec<String>,
    logged: Vec<String>,
}

/// Ingests `input` over a bus, with the time as it is simulated.
async fn ingest(bus: &MemoryBus, input: String, concurrency: usize, retry_for: u64, stop: &Stop) -> Ran {
    let printed = Printed::default();
    let mut ui = Ui::silent(printed.clone());
    let mut run = Run {
        ui: &mut ui,
        gate: gate(bus).await,
        stop: stop.clone(),
        bar: ProgressBar::hidden(),
        summary: Summary::default(),
        concurrency,
        retry_for: Duration::from_secs(retry_for),
    };
    let input = Input::start("test".to_owned(), None, Cursor::new(input), 1).unwrap();
    let result = run.all(input).await;
    let summary = run.summary;
    ui.flush().unwrap();
    let topic = Topic::new(AUDIT).unwrap();
    bus.faults().recover();
    let log = bus.reader().read_to_head(&topic, PartitionId(0), StartAt::Earliest).await.unwrap();
    let logged = log.iter().map(|r| r.partition_key.to_string()).collect();
    Ran { result, summary, printed: printed.ids(), logged }
}

fn ids(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    range.map(|i| format!("e{i}")).collect()
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "publish", "the bus is away")
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_sent_again_and_receipts_keep_the_order_of_the_input() {
    let bus = MemoryBus::new();
    bus.faults().fail_next(7, &unavailable());
    let ran = ingest(&bus, events(20), 5, 30, &Stop::deaf()).await;
    assert!(ran.result.is_ok(), "{:?}", ran.result);
    assert_eq!((ran.summary.admitted, ran.summary.lines), (20, 20));
    assert_eq!(ran.printed, ids(1..=20));
    let mut logged = ran.logged;
    logged.sort();
    logged.dedup();
    assert_eq!(logged.len(), 20, "each is in the log");
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_ends_the_run_naming_the_line_to_go_on_from() {
    let bus = MemoryBus::new();
    let acks = std::iter::repeat_n(Fate::Ack, 3);
    let fails = std::iter::repeat_with(|| Fate::Fail(unavailable())).take(100_000);
    bus.faults().next_records(acks.chain(fails));
    let ran = ingest(&bus, events(20), 1, 5, &Stop::deaf()).await;
    let failure = ran.result.unwrap_err();
    assert_eq!(failure.exit(), Exit::TryAgain);
    assert!(failure.to_string().starts_with("line 4: EB_UNAVAILABLE"), "{failure}");
    assert_eq!((ran.summary.last_line, ran.summary.failed_line), (3, Some(4)));
    assert_eq!((ran.printed, ran.logged), (ids(1..=3), ids(1..=3)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_sending_again_cannot_mend_ends_the_run_at_once() {
    let bus = MemoryBus::new();
    let broken = Error::new(ErrorKind::Io, "publish", "broken for good");
    bus.faults().next_records([Fate::Ack, Fate::Fail(broken)]);
    let ran = ingest(&bus, events(5), 5, 30, &Stop::deaf()).await;
    let failure = ran.result.unwrap_err();
    assert_eq!(failure.exit(), Exit::Failed);
    assert!(failure.to_string().contains("line 2: "), "{failure}");
    assert_eq!(ran.printed, ["e1", "e3", "e4", "e5"], "those in flight were answered");
    assert_eq!(ran.summary.last_line, 1, "but only line 1 is known to need nothing more");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_admit_twice() {
    let bus = MemoryBus::new();
    bus.faults().next_records([Fate::LoseAck(unavailable()), Fate::Ack]);
    let ran = ingest(&bus, events(6), 2, 120, &Stop::deaf()).await;
    assert!(ran.result.is_ok(), "{:?}", ran.result);
    assert_eq!(ran.printed, ids(1..=6));
    assert_eq!(ran.logged.iter().filter(|id| *id == "e1").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_to_stop_ends_the_waiting_for_a_bus_that_is_away() {
    let bus = MemoryBus::new();
    bus.faults().fail_next(100_000, &unavailable());
    let stop = Stop::deaf();
    let (asker, faults) = (stop.clone(), bus.faults());
    let asking = tokio::spawn(async move {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        // Once it was refused some times, it waits between two attempts.
        while faults.fates_left() > 99_990 {
            looks.tick().await;
        }
        asker.ask();
    });
    let ran = ingest(&bus, events(3), 2, 1_000_000, &stop).await;
    assert!(ran.result.is_err());
    assert_eq!(ran.summary.last_line, 0);
    asking.await.unwrap();
}
