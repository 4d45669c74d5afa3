//! The index against a model: whatever is done to it, it is a view of the log.

use std::collections::BTreeMap;
use std::path::Path;

use eb_contract::stores::{AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, Reserved};
use eb_store_local::{AdmissionIndexConfig, EmbeddedAdmissionIndex};
use proptest::prelude::*;

use crate::support::*;

const EVENTS: u64 = 24;

#[derive(Debug, Clone)]
enum Step {
    /// The gate sees these events, and admits those that it has not seen.
    Admit(Vec<u64>),
    /// A copy that an unknown outcome left in the log, found by reading it.
    Copy(u64),
    /// A publish that failed without effect.
    Fail(u64),
    Checkpoint,
    Crash,
    Close,
    Look(u64),
    Scan(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = 0..EVENTS;
    let step = prop_oneof![
        6 => prop::collection::btree_set(event.clone(), 1..6).prop_map(|s| Step::Admit(s.into_iter().collect())),
        2 => event.clone().prop_map(Step::Copy),
        1 => event.clone().prop_map(Step::Fail),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
        3 => event.prop_map(Step::Look),
        1 => (1usize..30).prop_map(Step::Scan),
    ];
    prop::collection::vec(step, 1..40)
}

/// The log, and what an index over it must say.
#[derive(Default)]
struct Model {
    log: Vec<AdmissionEntry>,
    first: BTreeMap<AdmissionKey, AdmissionEntry>,
    committed: Option<u64>,
}

impl Model {
    fn append(&mut self, event: u64) -> AdmissionEntry {
        let record = entry(event, self.log.len() as u64);
        self.log.push(record.clone());
        self.first.entry(record.key).or_insert_with(|| record.clone());
        record
    }

    async fn check(&self, index: &EmbeddedAdmissionIndex) {
        let all: Vec<_> = self.first.values().cloned().collect();
        assert_eq!(scan_all(index, 5).await, all);
        assert_eq!(index.approximate_len().max(all.len() as u64), index.approximate_len());
    }

    /// What the gate does on open.
    async fn reopen(&self, dir: &Path, closed: bool) -> EmbeddedAdmissionIndex {
        let index = small(dir);
        let stored = index.checkpoint().await.unwrap();
        let cut = stored.as_ref().map(line_of);
        assert_eq!(cut, self.committed, "the newest committed checkpoint, no other");
        let cut = cut.unwrap_or(0) as usize;
        for record in &self.log[..cut] {
            let known = index.get(record.key).await.unwrap();
            assert!(known.is_some(), "the checkpoint is ahead of its entries: {record:?}");
        }
        for known in scan_all(&index, 100).await {
            assert!(self.log.contains(&known), "the index holds what the log does not: {known:?}");
        }
        if closed {
            self.check(&index).await;
        }
        index.apply(self.log[cut..].to_vec()).await.unwrap();
        self.check(&index).await;
        index
    }
}

fn small(dir: &Path) -> EmbeddedAdmissionIndex {
    EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir).with_max_lag(8)).unwrap()
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let mut index = small(dir.path());
    for step in steps {
        match step {
            Step::Admit(events) => {
                let requests: Vec<_> = events.iter().map(|e| request(*e)).collect();
                let answers = index.reserve(&requests).await.unwrap();
                let mut confirmed = Vec::new();
                for (event, answer) in events.iter().zip(answers) {
                    match (answer, model.first.get(&key(*event))) {
                        (Reserved::Fresh(reservation), None) => {
                            confirmed.push(Confirmation { reservation, entry: model.append(*event) });
                        }
                        (Reserved::Admitted(known), Some(first)) => assert_eq!(known, *first),
                        (answer, first) => panic!("{answer:?} where the log has {first:?}"),
                    }
                }
                index.confirm(confirmed).await.unwrap();
            }
            Step::Copy(event) => {
                let record = model.append(event);
                index.apply(vec![record.clone(), record]).await.unwrap();
            }
            Step::Fail(event) => {
                if let [Reserved::Fresh(reservation)] = index.reserve(&[request(event)]).await.unwrap()[..] {
                    index.release(vec![reservation]).await.unwrap();
                }
            }
            Step::Checkpoint => {
                let line = model.log.len() as u64;
                index.commit_checkpoint(checkpoint(line)).await.unwrap();
                model.committed = Some(line);
            }
            Step::Crash => {
                drop(index);
                index = model.reopen(dir.path(), false).await;
            }
            Step::Close => {
                index.close().await.unwrap();
                drop(index);
                index = model.reopen(dir.path(), true).await;
            }
            Step::Look(event) => {
                assert_eq!(get(&index, event).await.as_ref(), model.first.get(&key(event)));
                let found = index.find_event(key(event).event).await.unwrap();
                assert_eq!(found.first(), model.first.get(&key(event)));
            }
            Step::Scan(page) => {
                let all: Vec<_> = model.first.values().cloned().collect();
                assert_eq!(scan_all(&index, page).await, all);
            }
        }
    }
    model.check(&index).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_index_is_a_view_of_the_log_through_crashes_copies_and_reopens(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}
