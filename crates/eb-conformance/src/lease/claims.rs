//! Who gets a lease, under which epoch, and for how long.

use std::time::Duration;

use eb_contract::PartitionId;
use eb_contract::stores::{Claim, LeaseInfo, LeaseKey};

use crate::Outcome;
use crate::lease::{LeaseCase, MINUTE, about, consumer, key, lease, silent, topic};
use crate::outcome::{ensure, ensure_eq, refused};

pub(crate) async fn a_free_partition_is_held_by_whoever_claims_it(case: &mut LeaseCase) -> Outcome {
    let held = case.hold(&key(0), "a").await?;
    let left = case.taken(&key(0), "b", &held).await?;
    ensure!(about(left, MINUTE), "a fresh lease of a minute has {left:?} left");
    Ok(())
}

pub(crate) async fn the_first_epoch_lies_above_any_that_was_counted(case: &mut LeaseCase) -> Outcome {
    // 2020 in milliseconds: stores of effects may remember epochs of a store of leases that is gone.
    let first = case.hold(&key(0), "a").await?;
    ensure!(first.epoch > 1_577_000_000_000, "the first epoch is {}", first.epoch);
    Ok(())
}

pub(crate) async fn the_holder_claims_again_and_keeps_its_epoch(case: &mut LeaseCase) -> Outcome {
    let held = case.hold(&key(0), "a").await?;
    case.open.pass(Duration::from_secs(40)).await?;
    ensure_eq!(case.hold(&key(0), "a").await?, held, "the lease that was claimed again");
    case.open.pass(Duration::from_secs(35)).await?;
    let left = case.taken(&key(0), "b", &held).await?;
    ensure!(about(left, Duration::from_secs(25)), "claimed again, it lasts anew; {left:?} left");
    Ok(())
}

pub(crate) async fn a_late_claim_never_brings_the_end_forward(case: &mut LeaseCase) -> Outcome {
    let held = case.hold(&key(0), "a").await?;
    let short = Duration::from_secs(5);
    ensure_eq!(case.store().claim(&key(0), "a", short).await?, Claim::Held(held.clone()), "the claim");
    let beat = case
        .store()
        .heartbeat(&key(0).consumer, &key(0).topic, "a", short, &silent(&[(PartitionId(0), held.clone())]))
        .await?;
    ensure!(beat.renewed.len() == 1 && beat.renewed[0].is_ok(), "renewed: {:?}", beat.renewed);
    case.open.pass(Duration::from_secs(30)).await?;
    case.taken(&key(0), "b", &held).await?;
    Ok(())
}

pub(crate) async fn an_ended_lease_goes_to_the_next_under_a_higher_epoch(case: &mut LeaseCase) -> Outcome {
    let first = case.hold(&key(0), "a").await?;
    case.open.pass(Duration::from_secs(61)).await?;
    let second = case.hold(&key(0), "b").await?;
    ensure!(second.epoch > first.epoch, "epoch {} after {}", second.epoch, first.epoch);
    case.taken(&key(0), "a", &second).await?;
    Ok(())
}

pub(crate) async fn whoever_comes_back_after_the_end_has_a_higher_epoch(case: &mut LeaseCase) -> Outcome {
    let first = case.hold(&key(0), "a").await?;
    case.open.pass(Duration::from_secs(61)).await?;
    let again = case.hold(&key(0), "a").await?;
    ensure!(again.epoch > first.epoch, "epoch {} after {}", again.epoch, first.epoch);
    Ok(())
}

pub(crate) async fn a_released_lease_is_free_at_once_under_a_higher_epoch(case: &mut LeaseCase) -> Outcome {
    let first = case.hold(&key(0), "a").await?;
    case.store().release(&key(0), &first).await?;
    let second = case.hold(&key(0), "b").await?;
    ensure!(second.epoch > first.epoch, "epoch {} after {}", second.epoch, first.epoch);
    Ok(())
}

pub(crate) async fn releasing_what_is_not_held_changes_nothing(case: &mut LeaseCase) -> Outcome {
    let held = case.hold(&key(0), "a").await?;
    for other in [lease("b", held.epoch), lease("a", held.epoch - 1), lease("a", held.epoch + 1)] {
        case.store().release(&key(0), &other).await?;
        case.taken(&key(0), "b", &held).await?;
    }
    case.store().release(&key(1), &held).await?;
    ensure_eq!(
        case.store().list(None).await?.len(),
        1,
        "the number of leases after releasing one that never was"
    );
    case.store().release(&key(0), &held).await?;
    case.store().release(&key(0), &held).await?;
    let next = case.hold(&key(0), "b").await?;
    case.store().release(&key(0), &held).await?;
    case.taken(&key(0), "a", &next).await?;
    Ok(())
}

pub(crate) async fn owners_and_times_to_live_have_limits(case: &mut LeaseCase) -> Outcome {
    let (store, long) = (case.store(), "é".repeat(257));
    for owner in ["", &long] {
        let what = format!("an owner of {} characters", owner.chars().count());
        refused(&what, store.claim(&key(0), owner, MINUTE).await, "invalid_input")?;
        refused(&what, case.beat(owner, &[]).await, "invalid_input")?;
    }
    for time in [Duration::ZERO, Duration::from_millis(99), Duration::from_millis(3_600_001)] {
        let what = format!("a time to live of {time:?}");
        refused(&what, store.claim(&key(0), "a", time).await, "invalid_input")?;
        let beat = store.heartbeat(&key(0).consumer, &key(0).topic, "a", time, &[]).await;
        refused(&what, beat, "invalid_input")?;
    }
    ensure_eq!(store.list(None).await?, vec![], "leases after refused claims");
    for (n, time) in (0..).zip([Duration::from_millis(100), Duration::from_secs(3600)]) {
        let claim = store.claim(&key(n), &"é".repeat(256), time).await?;
        ensure!(matches!(claim, Claim::Held(_)), "a time to live of {time:?}: {claim:?}");
    }
    Ok(())
}

pub(crate) async fn names_that_look_alike_never_mix(case: &mut LeaseCase) -> Outcome {
    let places = [
        ("a", "b.c", 0),
        ("a.b", "c", 0),
        ("a", "b-c", 0),
        ("a-b", "c", 0),
        ("A", "b.c", 0),
        ("a", "b.c", 10),
    ];
    let key = |(of, on, partition): (&str, &str, u32)| LeaseKey {
        consumer: consumer(of),
        topic: topic(on),
        partition_id: PartitionId(partition),
    };
    for (n, place) in places.into_iter().enumerate() {
        case.hold(&key(place), &format!("worker {n}")).await?;
    }
    for (n, place) in places.into_iter().enumerate() {
        let claim = case.claim(&key(place), "another").await?;
        let by = format!("worker {n}");
        ensure!(
            matches!(&claim, Claim::Taken { by: holder, .. } if holder.owner == by),
            "{place:?}: {claim:?}"
        );
    }
    Ok(())
}

pub(crate) async fn a_list_is_sorted_and_says_what_is_left(case: &mut LeaseCase) -> Outcome {
    ensure_eq!(case.store().list(None).await?, vec![], "the list of an empty store");
    let released = case.hold(&key(9), "a").await?;
    case.store().release(&key(9), &released).await?;
    let ended = case.hold(&key(10), "a \"quoted\" \u{1F980}").await?;
    case.open.pass(Duration::from_secs(61)).await?;
    let other = LeaseKey { consumer: consumer("other"), ..key(1) };
    let theirs = case.hold(&other, "b").await?;
    let held = case.hold(&key(2), "a").await?;
    let expected = [(other.clone(), theirs), (key(2), held), (key(9), released), (key(10), ended)];
    let list = case.store().list(None).await?;
    let plain =
        |list: &[LeaseInfo]| list.iter().map(|i| (i.key.clone(), i.lease.clone())).collect::<Vec<_>>();
    ensure_eq!(plain(&list), expected.to_vec(), "the list of all");
    let lasts: Vec<bool> = list.iter().map(|info| info.left.is_some()).collect();
    ensure_eq!(lasts, vec![true, true, false, false], "which of them last");
    ensure!(list[1].left.is_some_and(|left| about(left, MINUTE)), "what is left: {:?}", list[1].left);
    let own = case.store().list(Some(&consumer("other"))).await?;
    ensure_eq!(plain(&own), expected[..1].to_vec(), "the list of one consumer");
    Ok(())
}

pub(crate) async fn leases_and_epochs_outlive_reopening(case: &mut LeaseCase) -> Outcome {
    let held = case.hold(&key(0), "a").await?;
    let given_back = case.hold(&key(1), "a").await?;
    case.store().release(&key(1), &given_back).await?;
    case.open.reopen().await?;
    case.taken(&key(0), "b", &held).await?;
    let next = case.hold(&key(1), "b").await?;
    ensure!(next.epoch > given_back.epoch, "epoch {} after {}", next.epoch, given_back.epoch);
    ensure_eq!(case.hold(&key(0), "a").await?, held, "the lease as its holder claims it again");
    Ok(())
}

pub(crate) async fn a_second_opening_sees_the_same_leases(case: &mut LeaseCase) -> Outcome {
    let second = case.open.second().await?;
    let held = case.hold(&key(0), "a").await?;
    let claim = second.claim(&key(0), "b", MINUTE).await?;
    ensure!(matches!(&claim, Claim::Taken { by, .. } if *by == held), "the second opening answers {claim:?}");
    second.release(&key(0), &held).await?;
    case.hold(&key(0), "b").await?;
    Ok(())
}

pub(crate) async fn a_probe_leaves_nothing_behind(case: &mut LeaseCase) -> Outcome {
    case.store().probe().await?;
    ensure_eq!(case.store().list(None).await?, vec![], "the list after a probe");
    Ok(())
}
