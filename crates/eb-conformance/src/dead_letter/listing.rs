//! Pages, filters, counts and parked keys.

use eb_contract::stores::{DeadLetterFilter, DeadLetterId, NewDeadLetter, Resolution};
use eb_contract::{EbRef, PartitionId};

use crate::Outcome;
use crate::dead_letter::{DeadLetterCase, consumer, incarnation, letter, topic};
use crate::events::key;
use crate::outcome::{ensure_eq, refused};

pub(crate) async fn pages_follow_each_other_to_the_end(case: &mut DeadLetterCase) -> Outcome {
    let mut ids = Vec::new();
    for n in 0..25 {
        ids.push(case.put(&letter(n)).await?);
    }
    for page in [1, 4, 5, 24, 25, 26, 1000] {
        let listed = case.all(&DeadLetterFilter::default(), page).await?;
        let listed: Vec<DeadLetterId> = listed.iter().map(|l| l.id).collect();
        ensure_eq!(listed, ids, "in pages of {page}");
    }
    let behind = DeadLetterFilter { after: Some(DeadLetterId(u64::MAX)), ..DeadLetterFilter::default() };
    ensure_eq!(case.store().list(&behind, 10).await?, vec![], "letters behind the last");
    ensure_eq!(case.store().list(&DeadLetterFilter::default(), 0).await?, vec![], "an empty page");
    Ok(())
}

pub(crate) async fn filters_let_through_what_they_name(case: &mut DeadLetterCase) -> Outcome {
    let mut all: Vec<(DeadLetterId, NewDeadLetter, bool)> = Vec::new();
    for n in 0..24 {
        let mut put = letter(n);
        if n % 2 == 1 {
            put.consumer = consumer("other");
        }
        if n % 4 < 2 {
            put.record.eb_ref.topic = topic("fp.bus.control.v1");
        }
        let id = case.put(&put).await?;
        let resolved = n % 5 == 0;
        if resolved {
            case.store().resolve(id, Resolution::Dropped, "known").await?;
        }
        all.push((id, put, resolved));
    }
    for choice in 0..16 {
        let filter = DeadLetterFilter {
            consumer: (choice & 1 != 0).then(|| consumer("other")),
            topic: (choice & 2 != 0).then(|| topic("fp.bus.traffic.v1")),
            partition_key: (choice & 4 != 0).then(|| key("key-1")),
            resolved_too: choice & 8 != 0,
            after: None,
        };
        let fits = |(_, l, resolved): &&(DeadLetterId, NewDeadLetter, bool)| {
            filter.consumer.as_ref().is_none_or(|c| l.consumer == *c)
                && filter.topic.as_ref().is_none_or(|t| l.record.eb_ref.topic == *t)
                && filter.partition_key.as_ref().is_none_or(|k| l.record.partition_key == *k)
                && (filter.resolved_too || !resolved)
        };
        let expected: Vec<DeadLetterId> = all.iter().filter(fits).map(|(id, ..)| *id).collect();
        let listed: Vec<DeadLetterId> = case.all(&filter, 3).await?.iter().map(|l| l.id).collect();
        ensure_eq!(listed, expected, "what {filter:?} lets through");
    }
    Ok(())
}

pub(crate) async fn open_letters_are_counted(case: &mut DeadLetterCase) -> Outcome {
    let store = case.store();
    ensure_eq!(store.count_open(None).await?, 0, "open letters of an empty store");
    let first = case.put(&letter(1)).await?;
    case.put(&letter(2)).await?;
    case.put(&NewDeadLetter { consumer: consumer("other"), ..letter(1) }).await?;
    store.resolve(first, Resolution::Handled, "done").await?;
    for (of, expected) in [(None, 2), (Some("scorer"), 1), (Some("other"), 1), (Some("nobody"), 0)] {
        let of = of.map(consumer);
        ensure_eq!(store.count_open(of.as_ref()).await?, expected, "open letters of {of:?}");
    }
    Ok(())
}

pub(crate) async fn open_letters_are_found_by_their_records(case: &mut DeadLetterCase) -> Outcome {
    let of = consumer("scorer");
    let life = letter(0).bus_incarnation;
    let records: Vec<EbRef> = (0..12).map(|n| letter(n).record.eb_ref).collect();
    ensure_eq!(case.store().open_of(&of, &life, &records).await?, vec![None; 12], "in an empty store");
    ensure_eq!(case.store().open_of(&of, &life, &[]).await?, vec![], "of no records");
    let mut expected = vec![None; 12];
    // Not in the order in which they are asked for.
    for n in [7, 2, 10, 4] {
        expected[n] = Some(case.put(&letter(n as u64)).await?);
    }
    let dropped = case.put(&letter(5)).await?;
    case.store().resolve(dropped, Resolution::Dropped, "known").await?;
    case.put(&NewDeadLetter { consumer: consumer("other"), ..letter(1) }).await?;
    case.put(&NewDeadLetter { bus_incarnation: incarnation("another-life"), ..letter(3) }).await?;
    let mut elsewhere = letter(6);
    elsewhere.record.eb_ref.topic = topic("fp.bus.control.v1");
    case.put(&elsewhere).await?;
    let mut elsewhere = letter(8);
    elsewhere.record.eb_ref.partition_id = PartitionId(1);
    case.put(&elsewhere).await?;
    for when in ["", " after reopening"] {
        let found = case.store().open_of(&of, &life, &records).await?;
        ensure_eq!(found, expected, "open letters of records{when}");
        case.open.reopen().await?;
    }
    if let Some(id) = expected[4].take() {
        case.store().resolve(id, Resolution::Handled, "done").await?;
    }
    ensure_eq!(case.store().open_of(&of, &life, &records).await?, expected, "without a resolved one");
    Ok(())
}

pub(crate) async fn keys_are_parked_by_open_letters_that_say_so(case: &mut DeadLetterCase) -> Outcome {
    let (of, on) = (consumer("scorer"), topic("fp.bus.traffic.v1"));
    let parking = |line: u64, k: &str| {
        let mut put = letter(line);
        put.record.partition_key = key(k);
        NewDeadLetter { parks_key: true, ..put }
    };
    let keys = |texts: &[&str]| texts.iter().map(|k| key(*k)).collect::<Vec<_>>();
    ensure_eq!(case.store().parked_keys(&of, &on).await?, vec![], "parked keys of an empty store");
    let b = case.put(&parking(1, "b")).await?;
    let b2 = case.put(&parking(2, "b")).await?;
    case.put(&parking(3, "a \u{0} \"é\"")).await?;
    case.put(&letter(4)).await?;
    case.put(&NewDeadLetter { consumer: consumer("other"), ..parking(5, "c") }).await?;
    let mut elsewhere = parking(6, "d");
    elsewhere.record.eb_ref.topic = topic("fp.bus.control.v1");
    case.put(&elsewhere).await?;
    case.put(&parking(7, "B")).await?;
    let expected = keys(&["B", "a \u{0} \"é\"", "b"]);
    ensure_eq!(case.store().parked_keys(&of, &on).await?, expected, "parked keys");
    case.store().resolve(b, Resolution::Handled, "done").await?;
    ensure_eq!(
        case.store().parked_keys(&of, &on).await?,
        expected,
        "parked keys while one letter of b is open"
    );
    case.store().resolve(b2, Resolution::Handled, "done").await?;
    ensure_eq!(case.store().parked_keys(&of, &on).await?, expected[..2].to_vec(), "parked keys without b");
    case.open.reopen().await?;
    ensure_eq!(case.store().parked_keys(&of, &on).await?, expected[..2].to_vec(), "the same after reopening");
    Ok(())
}

pub(crate) async fn a_letter_that_is_not_there_is_not_found(case: &mut DeadLetterCase) -> Outcome {
    let id = case.put(&letter(1)).await?;
    for missing in [DeadLetterId(0), DeadLetterId(id.0 + 1), DeadLetterId(u64::MAX)] {
        refused("a letter that is not there", case.store().get(missing).await, "not_found")?;
        let resolving = case.store().resolve(missing, Resolution::Dropped, "why").await;
        refused("resolving what is not there", resolving, "not_found")?;
    }
    Ok(())
}
