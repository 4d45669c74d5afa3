//! Random steps against a model that forgets nothing.

use std::collections::{BTreeMap, BTreeSet};

use eb_contract::stores::Seen;

use crate::outcome::{ensure, ensure_eq};
use crate::processed::{Line, ProcessedCase, lease, mark_of, next};
use crate::random::Random;
use crate::{Outcome, SEED_VARIABLE};

/// What a consumer of one partition knows of itself.
struct Model {
    line: Line,
    /// Records that are marked, with their events.
    marked: BTreeMap<u64, u64>,
    cut: u64,
}

/// The numbers of records are drawn near the cut, as a consumer's are; asked is only what may be delivered again.
pub(crate) async fn random_steps_agree_with_a_plain_model(case: &mut ProcessedCase) -> Outcome {
    println!("{SEED_VARIABLE}={}", case.seed);
    let mut random = Random::new(case.seed);
    let mut all: Vec<Model> =
        (0..3).map(|p| Model { line: Line::new(p), marked: BTreeMap::new(), cut: 0 }).collect();
    for op in 0..case.pace.operations {
        let what = format!("operation {op} of {SEED_VARIABLE}={}", case.seed);
        let which = random.below(all.len());
        let events: BTreeSet<u64> = all.iter().flat_map(|m| m.marked.values().copied()).collect();
        let m = &mut all[which];
        match random.below(12) {
            0..7 => {
                let mut marks = Vec::new();
                for _ in 0..random.below(6) {
                    let record = m.cut + random.below(12) as u64;
                    // Every third record is a copy of some other.
                    let event = if record % 3 == 2 { record / 3 } else { record * 10 + which as u64 };
                    m.marked.entry(record).or_insert(event);
                    marks.push(mark_of(record, event));
                }
                let mut cut = m.cut;
                while m.marked.contains_key(&cut) {
                    cut += 1;
                }
                case.step(&mut m.line, marks, next(cut)).await?;
                m.cut = cut;
            }
            7..10 => {
                let asked: Vec<_> = (m.cut..m.cut + 15)
                    .map(|record| {
                        let event = if record % 3 == 2 { record / 3 } else { record * 10 + which as u64 };
                        mark_of(record, event)
                    })
                    .collect();
                let by_event = random.below(2) == 0;
                let seen = case.store().seen(&m.line.scope(), &asked, by_event).await?;
                ensure_eq!(seen.len(), asked.len(), "{what}: answers");
                for ((record, seen), asked) in (m.cut..).zip(seen).zip(asked) {
                    let event = if record % 3 == 2 { record / 3 } else { record * 10 + which as u64 };
                    let expected = if m.marked.contains_key(&record) {
                        seen == Seen::Here
                    } else if by_event && events.contains(&event) {
                        matches!(seen, Seen::Copy { .. })
                    } else {
                        seen == Seen::No
                    };
                    ensure!(expected, "{what}: {seen:?} of {asked:?}, where the cut is {}", m.cut);
                }
            }
            10 => case.open.reopen().await?,
            _ => {
                let epoch = m.line.lease.epoch + 1;
                m.line.lease = lease(&format!("worker {epoch}"), epoch);
            }
        }
    }
    Ok(())
}
