//! Random calls against a model.

use std::collections::{BTreeMap, BTreeSet};

use eb_contract::stores::{DeadLetterFilter, DeadLetterId, NewDeadLetter, Resolution};

use crate::dead_letter::{DeadLetterCase, consumer, letter};
use crate::outcome::{ensure, ensure_eq};
use crate::random::Random;
use crate::{Outcome, SEED_VARIABLE};

pub(crate) async fn random_calls_agree_with_a_plain_model(case: &mut DeadLetterCase) -> Outcome {
    println!("{SEED_VARIABLE}={}", case.seed);
    let mut random = Random::new(case.seed);
    let mut all: BTreeMap<DeadLetterId, (NewDeadLetter, bool)> = BTreeMap::new();
    for op in 0..case.pace.operations {
        let what = format!("operation {op} of {SEED_VARIABLE}={}", case.seed);
        match random.below(10) {
            0..5 => {
                let line = random.below(30) as u64;
                let put = NewDeadLetter {
                    consumer: consumer(["scorer", "other"][(line % 2) as usize]),
                    parks_key: line.is_multiple_of(5),
                    ..letter(line)
                };
                let id = case.put(&put).await?;
                let last = all.last_key_value().map(|(id, _)| *id);
                let same =
                    |l: &NewDeadLetter| l.consumer == put.consumer && l.record.eb_ref == put.record.eb_ref;
                match all.iter().find(|(_, (l, open))| *open && same(l)) {
                    Some((there, _)) => ensure_eq!(id, *there, "{what}: the letter that is open"),
                    None => {
                        ensure!(last < Some(id), "{what}: {id:?} after {last:?}");
                        all.insert(id, (put, true));
                    }
                }
            }
            5..7 => {
                let ids: Vec<_> = all.keys().copied().collect();
                let Some(id) = ids.get(random.below(ids.len())) else { continue };
                let resolved = case.store().resolve(*id, Resolution::Handled, &what).await;
                let Some((_, open)) = all.get_mut(id) else { continue };
                ensure_eq!(resolved.is_ok(), *open, "{what}: whether {id:?} could be resolved");
                *open = false;
            }
            7 => case.open.reopen().await?,
            _ => {
                let resolved_too = random.below(2) == 0;
                let filter = DeadLetterFilter { resolved_too, ..DeadLetterFilter::default() };
                let listed = case.all(&filter, 1 + random.below(9)).await?;
                let listed: Vec<_> =
                    listed.into_iter().map(|l| (l.id, l.letter, l.resolved.is_none())).collect();
                let expected: Vec<_> = all
                    .iter()
                    .filter(|(_, (_, open))| resolved_too || *open)
                    .map(|(id, (l, open))| (*id, l.clone(), *open))
                    .collect();
                ensure_eq!(listed, expected, "{what}: the list");
                let open = || all.values().filter(|(_, open)| *open).map(|(l, _)| l);
                ensure_eq!(
                    case.store().count_open(None).await?,
                    open().count() as u64,
                    "{what}: open letters"
                );
                for of in ["scorer", "other"].map(consumer) {
                    let parked = open().filter(|l| l.parks_key && l.consumer == of);
                    let parked: BTreeSet<&str> = parked.map(|l| l.record.partition_key.as_str()).collect();
                    let keys = case.store().parked_keys(&of, &letter(0).record.eb_ref.topic).await?;
                    let keys: Vec<&str> = keys.iter().map(eb_contract::PartitionKey::as_str).collect();
                    ensure_eq!(keys, parked.into_iter().collect::<Vec<_>>(), "{what}: parked keys of {of}");
                }
            }
        }
    }
    Ok(())
}
