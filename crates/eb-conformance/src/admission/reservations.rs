//! Reservations: fresh, admitted, in flight.

use std::time::Duration;

use eb_contract::stores::{Confirmation, Reserved};

use crate::admission::{AdmissionCase, dense, entry, entry_at, key, request, same_entry};
use crate::outcome::{ensure, ensure_eq, same_list};
use crate::{Failure, Outcome};

pub(crate) async fn an_unknown_key_is_fresh(case: &mut AdmissionCase) -> Outcome {
    let index = case.index();
    ensure!(index.max_lag() > 0 || index.is_shared(), "an own index that may not lag at all cannot be kept");
    ensure_eq!(index.is_shared(), case.shared, "is_shared");
    ensure_eq!(index.get(key(1, 1)).await?, None, "a key that nobody admitted");
    ensure_eq!(index.reserve(&[]).await?, vec![], "answers to an empty reservation");
    let ids = case.reserve_fresh(&[key(1, 1), key(1, 2), key(2, 1)]).await?;
    ensure!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "reservations share an id: {ids:?}");
    Ok(())
}

pub(crate) async fn a_confirmed_key_is_admitted_where_it_lies(case: &mut AdmissionCase) -> Outcome {
    let entries: Vec<_> = (0..20).map(entry).collect();
    case.admit(&entries[..1]).await?;
    case.admit(&entries[1..]).await?;
    for e in &entries {
        case.expect_entry(e).await?;
    }
    case.index().confirm(Vec::new()).await?;
    Ok(())
}

pub(crate) async fn a_released_key_is_fresh_again(case: &mut AdmissionCase) -> Outcome {
    let keys = [key(1, 1), key(2, 2)];
    let ids = case.reserve_fresh(&keys).await?;
    case.index().release(vec![ids[0]]).await?;
    ensure_eq!(case.index().get(keys[0]).await?, None, "a key whose publish failed");
    case.reserve_fresh(&keys[..1]).await?;
    case.index().release(Vec::new()).await?;
    Ok(())
}

pub(crate) async fn answers_stand_in_the_place_of_their_requests(case: &mut AdmissionCase) -> Outcome {
    let known: Vec<_> = (0..30).filter(|n| n % 3 == 0).map(entry).collect();
    case.admit(&known).await?;
    let requests: Vec<_> = (0..30).map(|n| request(entry(n).key)).collect();
    let answers = case.index().reserve(&requests).await?;
    ensure_eq!(answers.len(), requests.len(), "answers to a reservation");
    let mut confirmed = Vec::new();
    for (n, answer) in (0..).zip(answers) {
        match answer {
            Reserved::Admitted(got) if n % 3 == 0 => same_entry("reserve", Some(&got), &entry(n))?,
            Reserved::Fresh(reservation) if n % 3 != 0 => {
                confirmed.push(Confirmation { reservation, entry: entry(n) });
            }
            other => return Err(Failure::new(format!("request {n} was answered {other:?}"))),
        }
    }
    // Confirmations need not come in the order of their reservations.
    confirmed.reverse();
    case.index().confirm(confirmed).await?;
    for n in 0..30 {
        case.expect_entry(&entry(n)).await?;
    }
    Ok(())
}

pub(crate) async fn many_callers_at_once_lose_nothing(case: &mut AdmissionCase) -> Outcome {
    const EACH: u64 = 25;
    let mut tasks = Vec::new();
    for task in 0..8u64 {
        let index = case.index();
        tasks.push(tokio::spawn(async move {
            for n in task * EACH..(task + 1) * EACH {
                let reserved = index.reserve(&[request(entry(n).key)]).await?;
                let [Reserved::Fresh(reservation)] = reserved.as_slice() else {
                    return Err(Failure::new(format!("a key of its own was answered {reserved:?}")));
                };
                index.confirm(vec![Confirmation { reservation: *reservation, entry: entry(n) }]).await?;
                if n % 10 == 0 {
                    index.commit_checkpoint(crate::admission::checkpoint_at(0)).await?;
                }
            }
            Outcome::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let mut expected: Vec<_> = (0..8 * EACH).map(entry).collect();
    expected.sort_by_key(|e| e.key);
    same_list("all entries", &case.scan_all(64).await?, &expected)?;
    Ok(())
}

pub(crate) async fn one_gate_has_no_open_reservations(case: &mut AdmissionCase) -> Outcome {
    case.reserve_fresh(&[key(1, 1)]).await?;
    let open = case.index().open_reservations().await?;
    ensure!(open.is_empty(), "an index of one gate reports open reservations: {open:?}");
    Ok(())
}

pub(crate) async fn a_key_in_flight_at_another_gate_is_said_to_be(case: &mut AdmissionCase) -> Outcome {
    let other = case.open.other_gate().await?;
    let ids = case.reserve_fresh(&[entry(1).key, entry(2).key]).await?;
    for n in [1, 2] {
        match other.reserve(&[request(entry(n).key)]).await?.as_slice() {
            [Reserved::InFlight { lease_left, .. }] => {
                ensure!(*lease_left > Duration::ZERO, "a lease that has run out is said to be in flight");
            }
            answer => return Err(Failure::new(format!("a key in flight elsewhere was answered {answer:?}"))),
        }
    }
    case.index().confirm(vec![Confirmation { reservation: ids[0], entry: entry(1) }]).await?;
    case.index().release(vec![ids[1]]).await?;
    match other.reserve(&[request(entry(1).key), request(entry(2).key)]).await?.as_slice() {
        [Reserved::Admitted(got), Reserved::Fresh(_)] => same_entry("the other gate", Some(got), &entry(1)),
        answer => Err(Failure::new(format!("an admitted and a released key were answered {answer:?}"))),
    }
}

pub(crate) async fn open_reservations_say_all_that_was_asked(case: &mut AdmissionCase) -> Outcome {
    let other = case.open.other_gate().await?;
    let ids = case.reserve_fresh(&[entry(1).key, entry(2).key]).await?;
    for index in [case.index(), other] {
        let mut open = index.open_reservations().await?;
        open.sort_by_key(|o| o.request.key);
        let mut expected = vec![(ids[0], request(entry(1).key)), (ids[1], request(entry(2).key))];
        expected.sort_by_key(|(_, r)| r.key);
        let got: Vec<_> = open.into_iter().map(|o| (o.reservation, o.request)).collect();
        ensure_eq!(got, expected, "the open reservations");
    }
    case.index().confirm(vec![Confirmation { reservation: ids[0], entry: entry(1) }]).await?;
    case.index().release(vec![ids[1]]).await?;
    let open = case.index().open_reservations().await?;
    ensure!(open.is_empty(), "reservations that were settled are still open: {open:?}");
    Ok(())
}

pub(crate) async fn a_renewed_reservation_counts_from_then_on_and_others_are_left_alone(
    case: &mut AdmissionCase,
) -> Outcome {
    let (index, other) = (case.index(), case.open.other_gate().await?);
    ensure!(index.lease().is_some_and(|lease| lease > Duration::ZERO), "a shared index has no lease");
    let keys = [key(1, 1), key(2, 2), key(3, 3), key(4, 4)];
    let ids = case.reserve_fresh(&keys).await?;
    index.confirm(vec![Confirmation { reservation: ids[2], entry: entry_at(keys[2], 0, dense(1)) }]).await?;
    index.release(vec![ids[3]]).await?;
    index.renew(Vec::new()).await?;
    other.renew(ids.clone()).await?;
    let before = index.open_reservations().await?;
    ensure!(before.iter().all(|r| r.renewed_at == r.reserved_at), "no gate but its own renews: {before:?}");
    // One that is open, and two that are not any more.
    index.renew(vec![ids[1], ids[2], ids[3]]).await?;
    let mut open = other.open_reservations().await?;
    open.sort_by_key(|o| o.request.key);
    let [idle, renewed] = open.as_slice() else {
        return Err(Failure::new(format!("renewing has opened or ended reservations: {open:?}")));
    };
    ensure_eq!(vec![idle.reservation, renewed.reservation], ids[..2].to_vec(), "the open reservations");
    ensure_eq!(idle.renewed_at, idle.reserved_at, "the time of one that was not renewed");
    ensure!(renewed.renewed_at > renewed.reserved_at, "it was renewed later than it was made: {renewed:?}");
    ensure_eq!(renewed.request, request(keys[1]), "what was asked for stays");
    let requests: Vec<_> = keys.iter().map(|k| request(*k)).collect();
    match other.reserve(&requests).await?.as_slice() {
        [
            Reserved::InFlight { lease_left: idle, .. },
            Reserved::InFlight { lease_left: renewed, .. },
            Reserved::Admitted(_),
            Reserved::Fresh(_),
        ] => {
            ensure!(renewed > idle, "a renewed lease has {renewed:?} left, one that was not {idle:?}");
            Ok(())
        }
        answers => Err(Failure::new(format!("after a renewal the keys were answered {answers:?}"))),
    }
}
