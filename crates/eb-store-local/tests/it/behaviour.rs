use std::sync::Arc;

use eb_contract::stores::{AdmissionIndex, Confirmation, PolicyEpoch, ReservationId, Reserved};
use eb_contract::{Cut, ErrorKind, Offset, OffsetKind, PartitionId, Retry, Timestamp};
use eb_store_local::{AdmissionIndexConfig, EmbeddedAdmissionIndex};

use crate::support::*;

#[tokio::test]
async fn a_confirmed_event_is_known_at_once_and_its_duplicate_gets_the_first_ref() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    assert_eq!(index.checkpoint().await.unwrap(), None);
    admit(&index, &[1, 2], 0).await;
    let answers = index.reserve(&[request(2), request(3), request(1)]).await.unwrap();
    assert_eq!(answers[0], Reserved::Admitted(entry(2, 1)));
    assert!(matches!(answers[1], Reserved::Fresh(_)));
    assert_eq!(answers[2], Reserved::Admitted(entry(1, 0)));
    let stored = get(&index, 2).await.unwrap();
    assert_eq!(stored.eb_ref.published_at_utc, entry(2, 1).eb_ref.published_at_utc);
    assert!(!index.is_shared());
    assert_eq!(index.approximate_len(), 2);
    assert_eq!(index.open_reservations().await.unwrap(), []);
}

#[tokio::test]
async fn a_released_key_is_fresh_again() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let reservations = reserve(&index, &[7]).await;
    index.release(reservations).await.unwrap();
    admit(&index, &[7], 0).await;
    assert_eq!(get(&index, 7).await, Some(entry(7, 0)));
}

#[tokio::test]
async fn a_closed_index_comes_back_whole_and_one_that_crashed_with_what_its_checkpoint_covers() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    admit(&index, &[1, 2, 3], 0).await;
    index.commit_checkpoint(checkpoint(3)).await.unwrap();
    admit(&index, &[4], 3).await;
    drop(index);

    let index = open(dir.path());
    assert_eq!(index.checkpoint().await.unwrap(), Some(checkpoint(3)));
    assert_eq!(scan_all(&index, 10).await.len(), 3);
    assert_eq!(get(&index, 4).await, None, "only in memory when the index went down");
    index.apply(vec![entry(4, 3)]).await.unwrap();
    index.close().await.unwrap();

    let index = open(dir.path());
    assert_eq!(get(&index, 4).await, Some(entry(4, 3)));
    assert_eq!(
        index.checkpoint().await.unwrap(),
        Some(checkpoint(3)),
        "closing makes no checkpoint of its own"
    );
    assert_eq!(index.approximate_len(), 4);
}

#[tokio::test]
async fn an_entry_never_moves_in_memory_or_on_disk_and_callers_are_told_what_stands() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    for flushed in [false, true] {
        let event = u64::from(flushed);
        let stands = entry(event, 20);
        let elsewhere = entry_at(event, &topic("other"), Offset::from_u64(OffsetKind::FileLine, 0));
        assert_eq!(index.apply(vec![stands.clone()]).await.unwrap(), []);
        if flushed {
            index.commit_checkpoint(checkpoint(20)).await.unwrap();
        }
        assert_eq!(index.apply(vec![stands.clone()]).await.unwrap(), [], "the same again is no news");
        for copy in [entry(event, 30), entry(event, 9), elsewhere] {
            assert_eq!(index.apply(vec![copy.clone()]).await.unwrap(), std::slice::from_ref(&stands));
            let confirmation = Confirmation { reservation: ReservationId(1 << 40), entry: copy };
            assert_eq!(index.confirm(vec![confirmation]).await.unwrap(), std::slice::from_ref(&stands));
            assert_eq!(get(&index, event).await, Some(stands.clone()));
        }
    }
    // Of copies told at once, the first told stands.
    let told = index.apply(vec![entry(2, 20), entry(2, 9)]).await.unwrap();
    assert_eq!(told, [entry(2, 20)]);
    index.close().await.unwrap();
    let index = open(dir.path());
    assert_eq!(
        scan_all(&index, 10).await.iter().map(|e| e.eb_ref.offset.as_u64()).collect::<Vec<_>>(),
        [Some(20); 3]
    );
    assert_eq!(index.stats().stored, 3, "no event is counted twice");
}

#[tokio::test]
async fn a_confirmation_does_not_undo_what_was_found_in_the_log_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let [reservation, other] = reserve(&index, &[1, 2]).await[..] else { panic!("two were asked for") };
    index.apply(vec![entry(1, 5)]).await.unwrap();
    index.commit_checkpoint(checkpoint(6)).await.unwrap();
    let both = [(reservation, entry(1, 8)), (other, entry(2, 9))];
    let both = both.map(|(reservation, entry)| Confirmation { reservation, entry });
    assert_eq!(index.confirm(both.into()).await.unwrap(), [entry(1, 5)]);
    assert_eq!(get(&index, 1).await, Some(entry(1, 5)));
    assert_eq!(get(&index, 2).await, Some(entry(2, 9)));
}

#[tokio::test]
async fn an_event_is_found_by_its_id_alone_under_every_key_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let mut twin = entry(1, 1);
    twin.key.dedupe = [0; 32];
    admit(&index, &[1, 2, 3], 0).await;
    index.commit_checkpoint(checkpoint(3)).await.unwrap();
    index.apply(vec![twin.clone()]).await.unwrap();
    assert_eq!(index.find_event(key(1).event).await.unwrap(), [twin, entry(1, 0)]);
    assert_eq!(index.find_event(key(9).event).await.unwrap(), []);
}

#[tokio::test]
async fn a_scan_sees_memory_and_disk_as_one_in_key_order_at_any_page_size() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let events: Vec<u64> = (0..100).collect();
    admit(&index, &events[..60], 0).await;
    index.commit_checkpoint(checkpoint(60)).await.unwrap();
    admit(&index, &events[60..], 60).await;
    let mut expected: Vec<_> = events.iter().map(|e| entry(*e, *e)).collect();
    expected.sort_by_key(|e| e.key);
    for page in [1, 7, 60, 99, 100, 101] {
        assert_eq!(scan_all(&index, page).await, expected, "pages of {page}");
    }
    assert_eq!(index.scan(None, 0).await.unwrap(), []);
}

#[tokio::test]
async fn sparse_offsets_of_any_length_and_many_topics_survive_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let offset = |kind, text: &str| Offset::parse(kind, text).unwrap();
    let offsets = [
        offset(OffsetKind::KinesisSequence, "49590338271490256608559692538361571095921575989136588898"),
        offset(OffsetKind::KinesisSequence, &"9".repeat(129)),
        offset(OffsetKind::KinesisSequence, "0"),
        Offset::redis(u64::MAX, u64::MAX),
        offset(OffsetKind::External, &"1".repeat(20)),
    ];
    let entries: Vec<_> = (0..300u64)
        .map(|i| entry_at(i, &topic(&format!("topic-{}", i % 150)), offsets[i as usize % offsets.len()]))
        .collect();
    let index = open(dir.path());
    index.apply(entries[..100].to_vec()).await.unwrap();
    index.commit_checkpoint(checkpoint(1)).await.unwrap();
    index.apply(entries[100..].to_vec()).await.unwrap();
    index.close().await.unwrap();
    let index = open(dir.path());
    for (event, expected) in entries.iter().enumerate() {
        assert_eq!(get(&index, event as u64).await.as_ref(), Some(expected));
    }
}

#[tokio::test]
async fn the_policy_history_is_kept_in_order_and_repeating_the_newest_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let epoch = |revision: &str, line| PolicyEpoch {
        policy: policy(revision),
        since: Timestamp::from_micros(line).unwrap(),
        cuts: vec![(
            topic("a"),
            PartitionId(0),
            Cut::Next(Offset::from_u64(OffsetKind::FileLine, line as u64)),
        )],
    };
    let index = open(dir.path());
    for (revision, line) in [("1", 0), ("1", 5), ("2", 10), ("1", 20)] {
        index.record_policy(epoch(revision, line)).await.unwrap();
    }
    let expected = [epoch("1", 0), epoch("2", 10), epoch("1", 20)];
    assert_eq!(index.policy_history().await.unwrap(), expected);
    drop(index);
    let index = open(dir.path());
    assert_eq!(index.policy_history().await.unwrap(), expected, "recorded means durable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_admissions_than_fit_in_memory_wait_for_the_disk_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let index =
        EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir.path()).with_max_lag(50)).unwrap();
    let index = Arc::new(index);
    let admitting: Vec<_> = (0..8u64)
        .map(|caller| {
            let index = index.clone();
            tokio::spawn(async move {
                for i in 0..100 {
                    let event = caller * 1_000 + i;
                    admit(&index, &[event, event + 500], event).await;
                    assert!(index.stats().in_memory <= 50);
                    assert_eq!(get(&index, event).await, Some(entry(event, event)));
                }
            })
        })
        .collect();
    for task in admitting {
        task.await.unwrap();
    }
    assert_eq!(scan_all(&index, 100).await.len(), 1_600);
    assert!(index.stats().stored >= 1_550, "{:?}", index.stats());
    index.close().await.unwrap();
    let index = open(dir.path());
    assert_eq!(index.stats().stored, 1_600);
    // A call larger than the tail does not wait for ever either.
    drop(index);
    let index =
        EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir.path()).with_max_lag(50)).unwrap();
    let many: Vec<u64> = (10_000..10_200).collect();
    admit(&index, &many, 10_000).await;
    index.apply((20_000..20_200).map(|e| entry(e, e)).collect()).await.unwrap();
    assert_eq!(scan_all(&index, 1_000).await.len(), 2_000);
}

#[tokio::test]
async fn many_small_checkpoints_are_merged_and_the_newest_one_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    for line in 0..120 {
        admit(&index, &[line], line).await;
        index.commit_checkpoint(checkpoint(line + 1)).await.unwrap();
    }
    assert!(index.stats().unmerged_tables < 120, "{:?}", index.stats());
    drop(index);
    let index = open(dir.path());
    assert_eq!(index.checkpoint().await.unwrap(), Some(checkpoint(120)));
    assert_eq!(index.stats().stored, 120);
    for event in 0..120 {
        assert_eq!(get(&index, event).await, Some(entry(event, event)));
    }
}

#[tokio::test]
async fn calls_after_close_are_refused_and_closing_twice_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    admit(&index, &[1], 0).await;
    index.close().await.unwrap();
    index.close().await.unwrap();
    let closed = |kind: &ErrorKind| *kind == ErrorKind::Closed;
    assert!(closed(index.reserve(&[request(2)]).await.unwrap_err().kind()));
    assert!(closed(index.confirm(Vec::new()).await.unwrap_err().kind()));
    assert!(closed(index.release(Vec::new()).await.unwrap_err().kind()));
    assert!(closed(index.apply(vec![entry(1, 1)]).await.unwrap_err().kind()));
    assert!(closed(index.checkpoint().await.unwrap_err().kind()));
    assert!(closed(index.commit_checkpoint(checkpoint(1)).await.unwrap_err().kind()));
    assert!(closed(index.get(key(1)).await.unwrap_err().kind()));
    assert!(closed(index.find_event(key(1).event).await.unwrap_err().kind()));
    assert!(closed(index.scan(None, 1).await.unwrap_err().kind()));
    assert!(closed(index.policy_history().await.unwrap_err().kind()));
    assert!(closed(index.probe().await.unwrap_err().kind()));
    let again = open(dir.path());
    assert_eq!(get(&again, 1).await, Some(entry(1, 0)), "closing gives the folder free");
}

#[tokio::test]
async fn a_second_handle_is_refused_naming_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let refused = EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir.path())).unwrap_err();
    let ErrorKind::Locked { holder } = refused.kind() else { panic!("{refused}") };
    assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    assert_eq!(refused.retry(), Retry::Later);
    let refused = EmbeddedAdmissionIndex::remove(dir.path()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Locked { .. }));
    drop(index);
    drop(open(dir.path()));
}

#[tokio::test]
async fn a_removed_index_starts_empty_and_leaves_other_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    admit(&index, &[1], 0).await;
    index.close().await.unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    EmbeddedAdmissionIndex::remove(dir.path()).unwrap();
    EmbeddedAdmissionIndex::remove(dir.path()).unwrap();
    EmbeddedAdmissionIndex::remove(&dir.path().join("never")).unwrap();
    let index = open(dir.path());
    assert_eq!(get(&index, 1).await, None);
    assert_eq!(index.checkpoint().await.unwrap(), None);
    assert!(dir.path().join("notes.txt").exists());
}

#[tokio::test]
async fn limits_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for lag in [0, AdmissionIndexConfig::LARGEST_LAG + 1] {
        let mut config = AdmissionIndexConfig::new(dir.path());
        config.max_lag = lag;
        let refused = EmbeddedAdmissionIndex::open(&config).unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::InvalidInput);
    }
}
