//! The gate against the bare bus at the same concurrency, on real files, as the `local` profile opens them. Both put the same records into
//! the same topics: each topic is a log of its own, with syncs of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use eb_contract::{EnvelopeRef, PartitionKey, PublishRecord, Topic};
use eb_profile::{Env, Platform, Purpose};
use eb_testkit::events::{Generator, Mix};
use ig_gate::Decision;

use crate::Options;
use crate::measure::{Case, Result, Row, Sample, measure};

const CALLERS: usize = 64;

/// What the gate costs over the bus.
pub(crate) fn run(options: &Options, scratch: &Path) -> Result<Vec<Row>> {
    let count = usize::try_from(options.scale(100_000))?;
    let events: Vec<_> = Generator::new(1, Mix::CLEAN).take(count).collect();
    let bytes = events.iter().map(|e| e.bytes.len()).sum::<usize>() / count;
    let inputs: Arc<[Bytes]> = events.iter().map(|e| Bytes::from(e.bytes.clone())).collect();
    let records: Result<Arc<[(Topic, PublishRecord)]>> = events
        .iter()
        .map(|e| {
            let key = PartitionKey::new(e.partition_key.clone())?;
            let topic = Topic::new(&format!("fp.bus.{}.v1", e.event_type.class.name()))?;
            Ok((topic, PublishRecord::new(key, EnvelopeRef::new(e.bytes.clone())?)))
        })
        .collect();
    let records = records?;
    measure(
        &format!("gate, {CALLERS} callers, events of {bytes} B"),
        options.rounds,
        scratch,
        vec![
            Case::new("bare bus", |f| publish(f, &records)),
            Case::new("gate", |f| admit(f, &inputs)).against("bare bus").aim(0.5),
        ],
    )
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

async fn platform(folder: &Path) -> Result<Platform> {
    let runs = ("EB_RUNS", folder.to_string_lossy());
    Ok(Platform::open_with("local", Purpose::Writing, &Env::only([runs])).await?)
}

fn publish(folder: &Path, records: &Arc<[(Topic, PublishRecord)]>) -> Result<Sample> {
    runtime()?.block_on(async {
        let platform = platform(folder).await?;
        let publisher = platform.publisher();
        for class in ["traffic", "control", "audit"] {
            publisher.probe(&Topic::new(&format!("fp.bus.{class}.v1"))?).await?;
        }
        let (next, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (publisher, records, next) = (publisher.clone(), Arc::clone(records), Arc::clone(&next));
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while let Some((topic, record)) = records.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let one = Instant::now();
                        publisher.publish(topic, record.clone()).await?;
                        latencies.push(one.elapsed());
                    }
                    Ok::<_, eb_contract::Error>(latencies)
                })
            })
            .collect();
        let mut latencies = Vec::with_capacity(records.len());
        for caller in callers {
            latencies.extend(caller.await??);
        }
        let elapsed = started.elapsed();
        platform.close().await?;
        Ok(Sample::new(records.len() as u64, elapsed).latencies(latencies))
    })
}

fn admit(folder: &Path, inputs: &Arc<[Bytes]>) -> Result<Sample> {
    runtime()?.block_on(async {
        let platform = platform(folder).await?;
        let gate = platform.gate().await?.clone();
        let (next, started, cpu) = (Arc::new(AtomicUsize::new(0)), Instant::now(), cpu_seconds());
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (gate, inputs, next) = (gate.clone(), Arc::clone(inputs), Arc::clone(&next));
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while let Some(input) = inputs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let one = Instant::now();
                        let receipt = gate.admit(input.clone()).await?;
                        if receipt.decision != Decision::Admit {
                            return Err(
                                format!("a new event was not admitted: {:?}", receipt.reason_codes).into()
                            );
                        }
                        latencies.push(one.elapsed());
                    }
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(latencies)
                })
            })
            .collect();
        let mut latencies = Vec::with_capacity(inputs.len());
        for caller in callers {
            latencies.extend(caller.await??);
        }
        let (elapsed, cpu) = (started.elapsed(), cpu_seconds() - cpu);
        drop(gate);
        platform.close().await?;
        let each = cpu * 1e6 / inputs.len() as f64;
        Ok(Sample::new(inputs.len() as u64, elapsed).latencies(latencies).with("CPU µs per event", each))
    })
}

/// The processor time of this process, user and system; 0 where the system does not tell.
pub(crate) fn cpu_seconds() -> f64 {
    // Fields 14 and 15 of /proc/self/stat, in hundredths of a second; the name before them ends with a bracket.
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / 100.0
}
