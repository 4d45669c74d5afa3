//! What was deleted, by the bus or by hand, and what does not belong there.

use eb_contract::{
    Cut, EbRef, Error, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader, Offset, PartitionId,
    ReadLimit, StartAt, Topic,
};
use eb_redis::RedisBus;
use eb_testkit::Rng;
use eb_testkit::services::RedisWire;

use crate::common::{number, own_bus, read_all, record, shared_wire, topic};

const P0: PartitionId = PartitionId(0);

/// A bus with a topic of one partition that holds `count` records, a wire, and the stream's key.
async fn filled(count: usize) -> (RedisBus, Topic, Vec<EbRef>, RedisWire, String) {
    let (bus, prefix) = own_bus().await;
    let topic = topic("t");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let publisher = bus.publisher();
    let mut acked = Vec::new();
    for n in 0..count {
        acked.push(publisher.publish(&topic, record("k", n)).await.unwrap());
    }
    let wire = shared_wire();
    (bus, topic, acked, wire, format!("{{{prefix}}}:s:t:0"))
}

async fn read_from(bus: &RedisBus, topic: &Topic, start: StartAt) -> Result<Vec<usize>, Error> {
    let mut cursor = bus.reader().cursor(topic, P0, start).await?;
    let batch = cursor.next(ReadLimit::default()).await?;
    Ok(batch.records.iter().map(|r| number(&r.envelope)).collect())
}

fn oldest(e: &Error) -> Option<Offset> {
    match e.kind() {
        ErrorKind::OutOfRange { oldest } => *oldest,
        _ => panic!("{e}"),
    }
}

#[tokio::test]
async fn after_a_trim_of_the_bus_it_is_known_exactly_what_is_gone() {
    let (bus, topic, acked, ..) = filled(6).await;
    assert_eq!(bus.admin().trim(&topic, P0, &Cut::Next(acked[3].offset)).await.unwrap(), 3);
    assert_eq!(bus.admin().trim(&topic, P0, &Cut::Next(acked[3].offset)).await.unwrap(), 0);
    // Nothing that came after the last trimmed record is missing.
    let after = |n: usize| StartAt::Cut(Cut::After(acked[n].offset));
    assert_eq!(read_from(&bus, &topic, after(2)).await.unwrap(), [3, 4, 5]);
    let e = read_from(&bus, &topic, after(1)).await.unwrap_err();
    assert_eq!(oldest(&e), Some(acked[3].offset));
    assert_eq!(read_from(&bus, &topic, StartAt::Earliest).await.unwrap(), [3, 4, 5]);
    let e = read_from(&bus, &topic, StartAt::Cut(Cut::Begin)).await.unwrap_err();
    assert_eq!(oldest(&e), Some(acked[3].offset));
    let e = bus.admin().trim(&topic, P0, &Cut::End).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn after_a_trim_by_hand_a_cut_that_may_miss_something_is_refused() {
    let (bus, topic, acked, mut wire, key) = filled(6).await;
    bus.admin().trim(&topic, P0, &Cut::Next(acked[1].offset)).await.unwrap();
    wire.must(&["XTRIM", &key, "MINID", &acked[3].offset.to_string()]).unwrap();
    // The one right before may have the id right before: then nothing can be missing.
    for trimmed in &acked[..2] {
        let e = read_from(&bus, &topic, StartAt::Cut(Cut::After(trimmed.offset))).await.unwrap_err();
        assert_eq!(oldest(&e), Some(acked[3].offset));
    }
    assert_eq!(read_from(&bus, &topic, StartAt::Cut(Cut::Next(acked[3].offset))).await.unwrap(), [3, 4, 5]);
    assert_eq!(read_from(&bus, &topic, StartAt::Earliest).await.unwrap(), [3, 4, 5]);
}

#[tokio::test]
async fn a_hole_in_the_middle_is_never_stepped_over() {
    let (bus, topic, acked, mut wire, key) = filled(8).await;
    let mut before = bus.reader().cursor(&topic, P0, StartAt::Earliest).await.unwrap();
    assert_eq!(before.next(ReadLimit::records(2)).await.unwrap().records.len(), 2);
    wire.must(&["XDEL", &key, &acked[4].offset.to_string()]).unwrap();
    let e = before.next(ReadLimit::default()).await.unwrap_err();
    assert_eq!(oldest(&e), Some(acked[5].offset), "where reading can go on");
    for start in [StartAt::Earliest, StartAt::Cut(Cut::Begin), StartAt::Cut(Cut::After(acked[3].offset))] {
        let e = read_from(&bus, &topic, start).await.unwrap_err();
        assert_eq!(oldest(&e), Some(acked[5].offset), "{start:?}");
    }
    for cut in [Cut::Next(acked[5].offset), Cut::After(acked[4].offset)] {
        assert_eq!(read_from(&bus, &topic, StartAt::Cut(cut)).await.unwrap(), [5, 6, 7]);
    }
    // A trim past the hole heals it.
    bus.admin().trim(&topic, P0, &Cut::Next(acked[6].offset)).await.unwrap();
    assert_eq!(read_from(&bus, &topic, StartAt::Earliest).await.unwrap(), [6, 7]);
}

#[tokio::test]
async fn an_emptied_partition_remembers_that_it_had_records() {
    let (bus, topic, acked, mut wire, key) = filled(3).await;
    wire.must(&["XTRIM", &key, "MAXLEN", "0"]).unwrap();
    let e = read_from(&bus, &topic, StartAt::Cut(Cut::Begin)).await.unwrap_err();
    assert_eq!(oldest(&e), None);
    let head = bus.reader().head(&topic, P0).await.unwrap();
    assert_eq!((head.cut, head.last), (Cut::After(acked[2].offset), None));
    for start in [StartAt::Earliest, StartAt::Latest, StartAt::Cut(Cut::After(acked[2].offset))] {
        assert!(read_from(&bus, &topic, start).await.unwrap().is_empty(), "{start:?}");
    }
    let next = bus.publisher().publish(&topic, record("k", 3)).await.unwrap();
    assert!(next.offset > acked[2].offset);
}

#[tokio::test]
async fn a_stream_that_is_gone_is_missing_for_readers_and_publishers() {
    let (bus, topic, _, mut wire, key) = filled(3).await;
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 3)).await.unwrap();
    let mut cursor = bus.reader().cursor(&topic, P0, StartAt::Earliest).await.unwrap();
    wire.must(&["DEL", &key]).unwrap();
    let e = cursor.next(ReadLimit::default()).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::FactsMissing, "{e}");
    let e = publisher.publish(&topic, record("k", 4)).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::FactsMissing, "{e}");
    assert_eq!(*publisher.publish(&topic, record("k", 4)).await.unwrap_err().kind(), ErrorKind::Poisoned);
    let exists = wire.must(&["EXISTS", &key]).unwrap();
    assert_eq!(exists.text().unwrap(), "0", "publishing made no stream");
    let e = bus.admin().create_topic(&topic, 1).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::FactsMissing, "{e}");
}

#[tokio::test]
async fn an_entry_that_is_no_record_is_named_and_not_skipped() {
    let (bus, topic, _, mut wire, key) = filled(2).await;
    let id = wire.must(&["XADD", &key, "*", "colour", "blue"]).unwrap().text().unwrap();
    let e = read_from(&bus, &topic, StartAt::Earliest).await.unwrap_err();
    assert_eq!(e.kind().code(), "corrupt", "{e}");
    assert!(e.to_string().contains(&id), "{e}");
}

#[tokio::test]
async fn a_clock_that_steps_back_changes_nothing() {
    let (bus, topic, acked, mut wire, key) = filled(2).await;
    // As if the server's clock had been in the year 2100 when this was appended.
    let ahead = Offset::redis(4_102_444_800_000, 7);
    wire.must(&["XADD", &key, &ahead.to_string(), "k", "k", "e", r#"{"n":2,"key":"k"}"#]).unwrap();
    let publisher = bus.publisher();
    let mut last = ahead;
    for n in 3..6 {
        let at = publisher.publish(&topic, record("k", n)).await.unwrap();
        assert!(at.offset > last, "{} after {last}", at.offset);
        last = at.offset;
    }
    assert_eq!(last.as_redis().unwrap().0, 4_102_444_800_000);
    let numbers: Vec<_> =
        read_all(&bus.reader(), &topic, 0).await.iter().map(|r| number(&r.envelope)).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    let from = acked[1].published_at_utc.saturating_add(std::time::Duration::from_secs(60));
    assert_eq!(read_from(&bus, &topic, StartAt::Timestamp(from)).await.unwrap(), [2, 3, 4, 5]);
}

#[tokio::test]
async fn streams_of_somebody_else_are_not_taken_for_a_topic() {
    let (bus, prefix) = own_bus().await;
    let mut wire = shared_wire();
    wire.must(&["XADD", &format!("{{{prefix}}}:s:t:1"), "*", "a", "b"]).unwrap();
    let e = bus.admin().create_topic(&topic("t"), 2).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::AlreadyExists, "{e}");
    assert!(bus.reader().topics().await.unwrap().is_empty());
    // What an attempt that broke off has left is taken over.
    wire.must(&["XGROUP", "CREATE", &format!("{{{prefix}}}:s:u:0"), "made", "0", "MKSTREAM"]).unwrap();
    bus.admin().create_topic(&topic("u"), 2).await.unwrap();
    bus.publisher().publish(&topic("u"), record("k", 1)).await.unwrap();
}

/// Everything that was ever appended, and whether it is still there.
type Model = Vec<(Offset, usize, bool)>;

/// What a cut may answer: exactly what follows it, unless something that followed it is gone.
async fn expect_honest(bus: &RedisBus, topic: &Topic, model: &Model, cut: Cut, exact: bool) {
    let behind: Vec<_> = model.iter().filter(|(at, ..)| cut.is_before(at) == Some(true)).collect();
    let gone = behind.iter().any(|(.., there)| !there);
    match read_from(bus, topic, StartAt::Cut(cut)).await {
        Ok(read) => {
            assert!(!gone, "`{cut}` stepped over what is gone");
            assert_eq!(read, behind.iter().map(|(_, n, _)| *n).collect::<Vec<_>>(), "behind `{cut}`");
        }
        Err(e) => {
            let oldest = oldest(&e);
            assert!(gone || !exact, "`{cut}` was refused, and nothing behind it is gone: {e}");
            // Reading goes on at the place that is named, to the end.
            if let Some(oldest) = oldest {
                let left = read_from(bus, topic, StartAt::Cut(Cut::Next(oldest))).await.unwrap();
                let expected: Vec<_> =
                    model.iter().filter(|(at, ..)| *at >= oldest).map(|(_, n, _)| *n).collect();
                assert_eq!(left, expected, "from the oldest left, {oldest}");
            } else {
                let last_gone = model.iter().filter(|(.., there)| !there).map(|(at, ..)| *at).next_back();
                let behind = model.iter().any(|(at, _, there)| *there && Some(*at) > last_gone);
                assert!(!behind, "`{cut}`: nothing is said to be left behind what is gone");
            }
        }
    }
}

#[tokio::test]
async fn whatever_was_deleted_by_whom_no_cut_skips_a_record_unsaid() {
    let seed = eb_testkit::seed();
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    for by_hand in [false, true] {
        let (bus, topic, acked, mut wire, key) = filled(5).await;
        let publisher = bus.publisher();
        let mut model: Model = acked.iter().enumerate().map(|(n, at)| (at.offset, n, true)).collect();
        for _ in 0..30 {
            let target = model[rng.index(model.len())].0;
            match rng.range(0..10) {
                0..5 => {
                    for _ in 0..rng.range(1..6) {
                        let n = model.len();
                        let at = publisher.publish(&topic, record("k", n)).await.unwrap();
                        model.push((at.offset, n, true));
                    }
                }
                5..7 => {
                    bus.admin().trim(&topic, P0, &Cut::Next(target)).await.unwrap();
                    model.iter_mut().filter(|(at, ..)| *at < target).for_each(|m| m.2 = false);
                }
                7 | 8 if by_hand => {
                    wire.must(&["XTRIM", &key, "MINID", &target.to_string()]).unwrap();
                    model.iter_mut().filter(|(at, ..)| *at < target).for_each(|m| m.2 = false);
                }
                9 if by_hand => {
                    wire.must(&["XDEL", &key, &target.to_string()]).unwrap();
                    model.iter_mut().filter(|(at, ..)| *at == target).for_each(|m| m.2 = false);
                }
                _ => {
                    bus.admin().trim(&topic, P0, &Cut::After(target)).await.unwrap();
                    model.iter_mut().filter(|(at, ..)| *at <= target).for_each(|m| m.2 = false);
                }
            }
            expect_honest(&bus, &topic, &model, Cut::Begin, !by_hand).await;
            for (at, ..) in &model {
                expect_honest(&bus, &topic, &model, Cut::Next(*at), !by_hand).await;
                expect_honest(&bus, &topic, &model, Cut::After(*at), !by_hand).await;
            }
        }
    }
}
