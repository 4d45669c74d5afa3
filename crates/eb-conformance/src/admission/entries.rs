//! Entries found in the log: what stands stays.

use std::collections::BTreeMap;

use eb_contract::stores::{AdmissionEntry, AdmissionKey, Confirmation, Reserved};

use crate::admission::{AdmissionCase, checkpoint_at, dense, entry, entry_at, key, request, sparse};
use crate::outcome::{ensure, ensure_eq, same_list};
use crate::random::{Random, SEED_VARIABLE};
use crate::{Failure, Outcome};

pub(crate) async fn what_was_found_in_the_log_is_admitted(case: &mut AdmissionCase) -> Outcome {
    let found: Vec<_> = (0..50).map(entry).collect();
    case.index().apply(Vec::new()).await?;
    case.index().apply(found.clone()).await?;
    for e in &found {
        case.expect_entry(e).await?;
    }
    Ok(())
}

pub(crate) async fn applying_again_changes_nothing(case: &mut AdmissionCase) -> Outcome {
    let mut found: Vec<_> = (0..20).map(entry).collect();
    case.admit(&found[..5]).await?;
    for _ in 0..3 {
        case.index().apply(found.clone()).await?;
    }
    found.sort_by_key(|e| e.key);
    same_list("all entries", &case.scan_all(7).await?, &found)?;
    Ok(())
}

/// A receipt names the entry: no copy that turns up later may move it, wherever it lies.
pub(crate) async fn an_entry_never_moves_and_callers_are_told_what_stands(
    case: &mut AdmissionCase,
) -> Outcome {
    let pairs = [
        (dense(9), dense(10)),
        (dense(99), dense(100)),
        (dense(0), dense(u64::MAX)),
        (sparse("9"), sparse("10")),
        (sparse("5"), sparse("18446744073709551616")),
    ];
    for (n, (low, high)) in (0..).zip(pairs) {
        for (way, (stands, copy)) in (0..).zip([(low, high), (high, low)]) {
            let told =
                |what: &str, got: &[AdmissionEntry], k| same_list(what, got, &[entry_at(k, 0, stands)]);
            // In one call, in two, from another partition, and confirmed after it was found.
            let k = key(n, way);
            let both = vec![entry_at(k, 0, stands), entry_at(k, 0, copy)];
            told("the answer to copies told at once", &case.index().apply(both).await?, k)?;
            case.expect_entry(&entry_at(k, 0, stands)).await?;
            let k = key(n, way + 10);
            let ids = case.reserve_fresh(&[k]).await?;
            ensure_eq!(case.index().apply(vec![entry_at(k, 0, stands)]).await?, vec![], "the first copy");
            for partition in [0, 1] {
                let again = case.index().apply(vec![entry_at(k, partition, copy)]).await?;
                told("the answer to a later copy", &again, k)?;
            }
            let late = Confirmation { reservation: ids[0], entry: entry_at(k, 0, copy) };
            told("the answer to a late confirmation", &case.index().confirm(vec![late]).await?, k)?;
            case.expect_entry(&entry_at(k, 0, stands)).await?;
        }
    }
    Ok(())
}

pub(crate) async fn applying_settles_what_was_reserved(case: &mut AdmissionCase) -> Outcome {
    // The publish had an unknown outcome, and the log has told: the record is there.
    case.reserve_fresh(&[entry(1).key]).await?;
    case.index().apply(vec![entry(1)]).await?;
    case.expect_entry(&entry(1)).await
}

pub(crate) async fn random_calls_agree_with_a_plain_model(case: &mut AdmissionCase) -> Outcome {
    println!("{SEED_VARIABLE}={}", case.seed);
    let mut random = Random::new(case.seed);
    let mut model: BTreeMap<AdmissionKey, AdmissionEntry> = BTreeMap::new();
    for op in 0..case.pace.operations as u64 {
        random_call(case, &mut random, &mut model, op)
            .await
            .map_err(|e| Failure::new(format!("operation {op} of {SEED_VARIABLE}={}: {e}", case.seed)))?;
    }
    let all: Vec<_> = model.into_values().collect();
    same_list("all entries", &case.scan_all(1 + random.below(20)).await?, &all)?;
    Ok(())
}

async fn random_call(
    case: &AdmissionCase,
    random: &mut Random,
    model: &mut BTreeMap<AdmissionKey, AdmissionEntry>,
    op: u64,
) -> Outcome {
    let index = case.index();
    let draw = |random: &mut Random| {
        let k = key(random.below(12) as u64, random.below(4) as u64);
        entry_at(k, random.below(2) as u32, dense(random.below(1000) as u64))
    };
    match random.below(5) {
        0 | 1 => {
            let wanted = draw(random);
            let answers = index.reserve(&[request(wanted.key)]).await?;
            match (answers.as_slice(), model.get(&wanted.key)) {
                ([Reserved::Admitted(got)], Some(known)) => ensure_eq!(got, known, "an admitted key"),
                ([Reserved::Fresh(id)], None) if random.below(3) == 0 => index.release(vec![*id]).await?,
                ([Reserved::Fresh(id)], None) => {
                    let confirmation = Confirmation { reservation: *id, entry: wanted.clone() };
                    ensure_eq!(index.confirm(vec![confirmation]).await?, vec![], "a new entry");
                    model.insert(wanted.key, wanted);
                }
                (answer, known) => {
                    return Err(Failure::new(format!("{known:?} was answered {answer:?}")));
                }
            }
        }
        2 | 3 => {
            let found: Vec<_> = (0..random.below(6)).map(|_| draw(random)).collect();
            let mut stands_instead = Vec::new();
            for e in &found {
                let known = model.entry(e.key).or_insert_with(|| e.clone());
                stands_instead.extend((known != e).then(|| known.clone()));
            }
            let mut told = index.apply(found).await?;
            let place = |e: &AdmissionEntry| (e.key, e.eb_ref.partition_id, e.eb_ref.offset.as_u64());
            told.sort_by_key(place);
            stands_instead.sort_by_key(place);
            same_list("what stands in place of found entries", &told, &stands_instead)?;
        }
        _ => {
            index.commit_checkpoint(checkpoint_at(op)).await?;
            let wanted = draw(random).key;
            ensure_eq!(index.get(wanted).await?.as_ref(), model.get(&wanted), "{wanted:?}");
            let of_event: Vec<_> = model.values().filter(|e| e.key.event == wanted.event).cloned().collect();
            let mut found = index.find_event(wanted.event).await?;
            found.sort_by_key(|e| e.key);
            ensure_eq!(found, of_event, "the entries of an event");
            ensure!(index.checkpoint().await? == Some(checkpoint_at(op)), "the checkpoint of operation {op}");
        }
    }
    Ok(())
}
