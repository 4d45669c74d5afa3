//! Looking things up.

use eb_contract::stores::AdmissionEntry;

use crate::Outcome;
use crate::admission::{AdmissionCase, dense, entry, entry_at, key};
use crate::outcome::{ensure, ensure_eq, same_list};

pub(crate) async fn a_look_up_reserves_nothing(case: &mut AdmissionCase) -> Outcome {
    let index = case.index();
    for _ in 0..2 {
        ensure_eq!(index.get(key(1, 1)).await?, None, "a key that nobody admitted");
        ensure_eq!(index.find_event(key(1, 1).event).await?, vec![], "an event that nobody admitted");
    }
    case.reserve_fresh(&[key(1, 1)]).await?;
    ensure_eq!(index.get(key(1, 1)).await?, None, "a key that is reserved only");
    ensure_eq!(index.scan(None, 10).await?, vec![], "a scan where nothing was admitted");
    Ok(())
}

pub(crate) async fn an_event_is_found_by_its_id_alone(case: &mut AdmissionCase) -> Outcome {
    // The same id under several event types, beside ids right next to it, at the ends of the range too.
    let ids = [0, 1, 255, 256, u64::MAX - 1, u64::MAX];
    let mut all = Vec::new();
    for (n, id) in (0..).zip(ids) {
        for dedupe in [0, 7, u64::MAX] {
            all.push(entry_at(key(id, dedupe), 0, dense(n * 10 + dedupe % 10)));
        }
    }
    case.index().apply(all.clone()).await?;
    for id in ids {
        let mut found = case.index().find_event(key(id, 0).event).await?;
        found.sort_by_key(|e| e.key);
        let expected: Vec<_> = all.iter().filter(|e| e.key.event == key(id, 0).event).cloned().collect();
        ensure_eq!(found, expected, "the entries of event {id}");
    }
    ensure_eq!(case.index().find_event(key(2, 0).event).await?, vec![], "an event between two others");
    Ok(())
}

pub(crate) async fn a_scan_pages_in_key_order_to_the_end(case: &mut AdmissionCase) -> Outcome {
    let mut all: Vec<AdmissionEntry> = (0..60).map(entry).collect();
    all.push(entry_at(key(u64::MAX, u64::MAX), 0, dense(60)));
    all.push(entry_at(key(0, 1), 0, dense(61)));
    // Half of it stored, half of it still in memory, where an index has both.
    case.index().apply(all[..30].to_vec()).await?;
    case.index().commit_checkpoint(crate::admission::checkpoint_at(30)).await?;
    case.index().apply(all[30..].to_vec()).await?;
    all.sort_by_key(|e| e.key);
    for page in [1, 7, 61, 62, 63, 1000] {
        same_list(&format!("a scan in pages of {page}"), &case.scan_all(page).await?, &all)?;
    }
    // From a key that is not there.
    let between = key(1, 0);
    let expected = all.iter().find(|e| e.key > between).cloned();
    ensure_eq!(case.index().scan(Some(between), 1).await?.pop(), expected, "a scan from between two keys");
    ensure_eq!(
        case.index().scan(Some(key(u64::MAX, u64::MAX)), 5).await?,
        vec![],
        "a scan after the last key"
    );
    Ok(())
}

pub(crate) async fn the_length_counts_admitted_events(case: &mut AdmissionCase) -> Outcome {
    let index = case.index();
    ensure_eq!(index.approximate_len(), 0, "the length of an empty index");
    case.admit(&(0..100).map(entry).collect::<Vec<_>>()).await?;
    index.commit_checkpoint(crate::admission::checkpoint_at(100)).await?;
    let len = index.approximate_len();
    ensure!((50..=200).contains(&len), "the length of an index of 100 is said to be {len}");
    Ok(())
}

pub(crate) async fn a_probe_succeeds_and_changes_nothing(case: &mut AdmissionCase) -> Outcome {
    case.index().probe().await?;
    case.admit(&[entry(1)]).await?;
    case.index().probe().await?;
    ensure_eq!(case.scan_all(10).await?, vec![entry(1)], "all entries after a probe");
    ensure_eq!(case.index().checkpoint().await?, None, "the checkpoint after a probe");
    Ok(())
}
