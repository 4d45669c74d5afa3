//! Metrics and spans.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eb_contract::{Error, ErrorKind};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use parking_lot::Mutex;
use tracing::span::{Attributes, Id, Record};

use crate::support::{World, event};

/// Keeps everything under `name{label=value,…}`.
#[derive(Default)]
struct Kept {
    cells: Mutex<BTreeMap<String, Arc<Cell>>>,
}

/// The bits of a float: counters add, gauges set, histograms count.
#[derive(Default)]
struct Cell(AtomicU64);

impl Cell {
    fn update(&self, change: impl Fn(f64) -> f64) {
        let set = |bits| Some(change(f64::from_bits(bits)).to_bits());
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set).unwrap();
    }
}

impl CounterFn for Cell {
    fn increment(&self, by: u64) {
        self.update(|value| value + by as f64);
    }
    fn absolute(&self, value: u64) {
        self.update(|_| value as f64);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, by: f64) {
        self.update(|value| value + by);
    }
    fn decrement(&self, by: f64) {
        self.update(|value| value - by);
    }
    fn set(&self, to: f64) {
        self.update(|_| to);
    }
}

impl HistogramFn for Cell {
    fn record(&self, _value: f64) {
        self.update(|count| count + 1.0);
    }
}

impl Kept {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        self.cells.lock().entry(name).or_default().clone()
    }

    fn value(&self, name: &str) -> f64 {
        self.cells.lock().get(name).map_or(f64::NAN, |cell| f64::from_bits(cell.0.load(Ordering::SeqCst)))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

#[test]
fn admissions_failures_phases_and_heads_are_counted() {
    let kept = Kept::default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&kept, || {
        runtime.block_on(async {
            let world = World::new().await;
            let gate = world.open().await;
            for n in 0..3 {
                gate.admit(event(&format!("e-{n}"))).await.unwrap();
            }
            gate.admit(event("e-0")).await.unwrap();
            gate.admit("junk").await.unwrap();
            world.bus.faults().fail_next(1, &Error::new(ErrorKind::Unavailable, "publish", "down"));
            gate.admit(event("e-9")).await.unwrap_err();
            tokio::time::sleep(Duration::from_secs(6)).await;
        });
    });
    for (name, expected) in [
        ("ig_gate_admissions_total{decision=ADMIT,reason=none}", 3.0),
        ("ig_gate_admissions_total{decision=DUPLICATE,reason=DUPLICATE}", 1.0),
        ("ig_gate_admissions_total{decision=QUARANTINE,reason=ENVELOPE_INVALID}", 1.0),
        ("ig_gate_errors_total{code=EB_UNAVAILABLE}", 1.0),
        ("ig_gate_publish_failures_total{kind=unavailable,effect=none}", 1.0),
        ("ig_gate_phase_seconds{phase=decide}", 6.0),
        ("ig_gate_phase_seconds{phase=publish}", 4.0),
        ("ig_gate_phase_seconds{phase=index}", 8.0),
        ("ig_gate_phase_seconds{phase=evidence}", 1.0),
        ("ig_gate_head_offset{topic=fp.bus.traffic.v1,partition=0}", 2.0),
        ("ig_gate_in_flight{}", 0.0),
    ] {
        assert!((kept.value(name) - expected).abs() < 0.5, "{name} is {}, not {expected}", kept.value(name));
    }
}

#[test]
fn the_gauges_go_on_while_a_checkpoint_waits_for_a_blocked_key() {
    let kept = Kept::default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&kept, || {
        runtime.block_on(async {
            let world = World::new().await;
            let gate = world.open().await;
            gate.admit(event("e-0")).await.unwrap();
            world.index.refuse_confirm.store(true, Ordering::SeqCst);
            gate.admit(event("e-1")).await.unwrap();
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!((kept.value("ig_gate_in_flight{}") - 1.0).abs() < f64::EPSILON);
            gate.admit(event("e-2")).await.unwrap();
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!((kept.value("ig_gate_in_flight{}") - 2.0).abs() < f64::EPSILON);
            assert!((kept.value("ig_gate_index_lag_records{}") - 3.0).abs() < f64::EPSILON);
        });
    });
}

/// Keeps the fields of the spans named `admit`.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<BTreeMap<String, String>>>>);

struct Fields<'f>(&'f mut BTreeMap<String, String>);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.name() == "admit"
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let mut spans = self.0.lock();
        spans.push(fields);
        Id::from_u64(spans.len() as u64)
    }
    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut spans = self.0.lock();
        let at = usize::try_from(span.into_u64()).unwrap() - 1;
        values.record(&mut Fields(&mut spans[at]));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_span_leads_from_the_event_id_to_its_place_in_the_log() {
    // While it is the only one, `tracing` asks whichever thread comes first, and other tests' threads have none.
    let _another = tracing::Dispatch::new(Spans::default());
    let spans = Spans::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tracing::subscriber::with_default(spans.clone(), || {
        runtime.block_on(async {
            let world = World::new().await;
            let gate = world.open().await;
            gate.admit(event("e-1")).await.unwrap();
            gate.close().await.unwrap();
            gate.admit(event("e-2")).await.unwrap_err();
        });
    });
    let spans = spans.0.lock();
    assert_eq!(spans[0]["event_id"], "\"e-1\"");
    assert_eq!(spans[0]["decision"], "\"ADMIT\"");
    assert_eq!(spans[0]["eb_ref"], "fp.bus.traffic.v1/0@0");
    assert!(spans[1]["error"].starts_with("GATE_CLOSED"));
}
