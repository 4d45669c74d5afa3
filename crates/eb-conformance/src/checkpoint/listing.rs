//! Lists, and checkpoints that must not be mistaken for each other.

use eb_contract::PartitionId;
use eb_contract::stores::Checkpoint;

use crate::Outcome;
use crate::checkpoint::{CheckpointCase, consumer, fresh, next, topic};
use crate::outcome::{ensure, ensure_eq};

/// Commits one checkpoint for each place, each with a cut of its own.
async fn commit_at(case: &CheckpointCase, places: &[(&str, &str, u32)]) -> Outcome<Vec<Checkpoint>> {
    let mut all = Vec::new();
    for (n, (of, on, partition)) in (1..).zip(places) {
        let wanted = Checkpoint { consumer: consumer(of), topic: topic(on), ..fresh(*partition, next(n)) };
        all.push(case.commit(&wanted).await?);
    }
    Ok(all)
}

fn sorted(mut all: Vec<Checkpoint>) -> Vec<Checkpoint> {
    all.sort_by(|a, b| (&a.consumer, &a.topic, a.partition_id).cmp(&(&b.consumer, &b.topic, b.partition_id)));
    all
}

pub(crate) async fn a_list_is_sorted_and_complete(case: &mut CheckpointCase) -> Outcome {
    ensure_eq!(case.store().list(None).await?, vec![], "the list of an empty store");
    let places = [
        ("b", "t", 10),
        ("b", "t", 2),
        ("b", "s", 0),
        ("a", "t", 100),
        ("a", "t", 9),
        ("b", "t", 0),
        ("a.b", "t", 1),
        ("a-b", "t", 1),
        ("B", "t", 1),
    ];
    let all = commit_at(case, &places).await?;
    ensure_eq!(case.store().list(None).await?, sorted(all), "the list of all");
    Ok(())
}

pub(crate) async fn a_list_of_one_consumer_holds_its_own_alone(case: &mut CheckpointCase) -> Outcome {
    let places = [("a", "t", 1), ("ab", "t", 0), ("a", "s", 3), ("a", "t", 0), ("b", "a", 0)];
    let all = commit_at(case, &places).await?;
    for name in ["a", "ab", "b", "nobody"] {
        let of = consumer(name);
        let own = sorted(all.iter().filter(|c| c.consumer == of).cloned().collect());
        ensure_eq!(case.store().list(Some(&of)).await?, own, "the list of {name}");
    }
    Ok(())
}

pub(crate) async fn names_that_look_alike_never_mix(case: &mut CheckpointCase) -> Outcome {
    let places = [
        ("a", "b.c", 0),
        ("a.b", "c", 0),
        ("a-b", "c", 0),
        ("a", "b-c", 0),
        ("a_b", "c", 0),
        ("a", "c", 1),
        ("a", "c", 11),
        ("a", "c1", 1),
        ("checkpoints", "partition", 0),
        ("...", "..a", 0),
        ("_", "-", u32::MAX),
    ];
    let all = commit_at(case, &places).await?;
    for stored in &all {
        case.expect_stored(stored).await?;
    }
    let longest = "n".repeat(128);
    let one = Checkpoint { consumer: consumer(&longest), topic: topic(&longest), ..fresh(0, next(99)) };
    let stored = case.commit(&one).await?;
    case.expect_stored(&stored).await?;
    ensure_eq!(case.store().list(None).await?.len(), all.len() + 1, "checkpoints in all");
    let absent = case.store().load(&consumer("a"), &topic("c"), PartitionId(2)).await?;
    ensure!(absent.is_none(), "a checkpoint that nobody committed: {absent:?}");
    Ok(())
}

pub(crate) async fn a_probe_leaves_nothing_behind(case: &mut CheckpointCase) -> Outcome {
    case.store().probe().await?;
    ensure_eq!(case.store().list(None).await?, vec![], "the list after a probe");
    let stored = case.commit(&fresh(0, next(1))).await?;
    case.store().probe().await?;
    ensure_eq!(case.store().list(None).await?, vec![stored], "the list after a commit and a probe");
    Ok(())
}
