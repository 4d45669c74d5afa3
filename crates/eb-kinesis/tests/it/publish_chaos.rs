//! Random faults of a whole service, by seed: what was promised holds for every record.

use std::time::Duration;

use eb_contract::{Effect, ErrorKind, EventBusPublisher};
use eb_kinesis::{KinesisBus, Ordering};
use eb_testkit::kinesis_fake::{Chaos, KinesisFake, Op, StoredRecord};
use proptest::prelude::*;

use crate::publish_support::{STREAM, config, number, record, topic};

/// One key's callers in turn: a record is published once the one before it was answered or has a place in line.
#[derive(Debug, Clone)]
struct Load {
    keys: usize,
    rounds: usize,
    /// Records of a key that are called for at once.
    run: usize,
    batched_calls: bool,
}

fn chaos() -> impl Strategy<Value = Chaos> {
    (0u64..40, 0u64..20, 0u64..50, 0u64..15, 0u64..10, 0u64..15, 0u64..4).prop_map(
        |(refused_entries, denied_entries, reordered, refused, lost, unanswered, late)| Chaos {
            refused_entries,
            denied_entries,
            reordered,
            refused,
            lost,
            unanswered,
            late,
        },
    )
}

fn loads() -> impl Strategy<Value = Load> {
    (1usize..6, 1usize..4, 1usize..6, any::<bool>()).prop_map(|(keys, rounds, run, batched_calls)| Load {
        keys,
        rounds,
        run,
        batched_calls,
    })
}

/// What became of a record, and in which round it was called for.
struct Told {
    key: String,
    n: usize,
    round: usize,
    answer: eb_contract::Result<eb_contract::EbRef>,
}

async fn run(load: &Load, chaos: Chaos, seed: u64, ordering: Ordering) {
    let fake = KinesisFake::start().await.unwrap();
    fake.create_stream(STREAM, 2);
    let mut config = config(&fake.endpoint_url());
    config.timeouts.attempt = Duration::from_millis(200);
    config.publish.ordering = ordering;
    config.publish.max_records_per_call = 4;
    config.publish.calls_in_flight = 3;
    let publisher = KinesisBus::open(config).await.unwrap().publisher();
    fake.script_by(Op::PutRecords, chaos.rule(seed));
    let mut all: Vec<Told> = Vec::new();
    let mut n = 0;
    for round in 0..load.rounds {
        let mut calls = Vec::new();
        for key in 0..load.keys {
            let key = format!("k{key}");
            let numbers: Vec<usize> = (n..n + load.run).collect();
            n += load.run;
            if load.batched_calls {
                let records = numbers.iter().map(|n| record(&key, *n)).collect();
                calls.push((key, numbers, vec![publisher.publish_batch(&topic(), records)]));
            } else {
                for n in numbers {
                    let one = publisher.publish_batch(&topic(), vec![record(&key, n)]);
                    calls.push((key.clone(), vec![n], vec![one]));
                }
            }
        }
        for (key, numbers, futures) in calls {
            let mut answers = Vec::new();
            for future in futures {
                answers.extend(future.await);
            }
            assert_eq!(answers.len(), numbers.len(), "one answer per record");
            for (n, answer) in numbers.into_iter().zip(answers) {
                all.push(Told { key: key.clone(), n, round, answer });
            }
        }
    }
    // What was lost may still land.
    drop(publisher.close().await);
    let calls = fake.count(Op::PutRecords);
    fake.wait_finished(Op::PutRecords, calls).await;
    check(&all, &fake.records(STREAM), load, ordering);
}

fn check(all: &[Told], log: &[StoredRecord], load: &Load, ordering: Ordering) {
    let mut by_number = log.to_vec();
    by_number.sort_by(|a, b| a.sequence_number.cmp(&b.sequence_number));
    let first = |n: usize| by_number.iter().position(|r| number(&r.entry.data) == n);
    for told in all {
        match &told.answer {
            Ok(at) => {
                let there = log.iter().any(|r| {
                    r.shard_id == format!("shardId-{:012}", at.partition_id.0)
                        && r.sequence_number.as_str() == at.offset.to_string()
                        && r.entry.partition_key == told.key
                        && number(&r.entry.data) == told.n
                });
                assert!(there, "{} is ACKed at {at} and is not there", told.n);
            }
            Err(e) if e.effect() == Effect::None => {
                assert!(first(told.n).is_none(), "{} is there though: {e}", told.n);
            }
            Err(_) => {}
        }
    }
    if ordering == Ordering::Batched {
        return;
    }
    for (i, earlier) in all.iter().enumerate() {
        for later in all[i + 1..].iter().filter(|l| l.key == earlier.key) {
            let unknown = earlier.answer.as_ref().is_err_and(|e| e.effect() == Effect::Unknown);
            // A caller that knows of an unknown outcome and goes on has been warned.
            if unknown && later.round > earlier.round {
                continue;
            }
            if let (Some(a), Some(b)) = (first(earlier.n), first(later.n)) {
                assert!(a < b, "{} has overtaken {}", later.n, earlier.n);
            }
            let same_batch = load.batched_calls && earlier.round == later.round;
            if earlier.answer.is_err() && same_batch {
                let error = later.answer.as_ref().expect_err("behind a failed one of its batch");
                assert_eq!(error.kind(), &ErrorKind::NotAttempted);
            }
        }
    }
}

fn play(load: &Load, chaos: Chaos, seed: u64, ordering: Ordering) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(load, chaos, seed, ordering));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn strict_order_and_one_true_answer_per_record(load in loads(), chaos in chaos(), seed: u64) {
        play(&load, chaos, seed, Ordering::Strict);
    }

    #[test]
    fn batched_gives_one_true_answer_per_record(load in loads(), chaos in chaos(), seed: u64) {
        play(&load, chaos, seed, Ordering::Batched);
    }
}
