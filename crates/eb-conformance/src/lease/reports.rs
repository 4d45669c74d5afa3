//! What holders say of their work, and for how long it stands.

use std::time::Duration;

use eb_contract::stores::{Lease, Renewal, Reported, WorkPhase, WorkReport};
use eb_contract::{PartitionId, Timestamp};

use crate::lease::{LeaseCase, consumer, key, topic};
use crate::outcome::{ensure, ensure_eq, refused};
use crate::{Failure, Outcome};

pub(crate) fn report(n: u64) -> WorkReport {
    let phase = WorkPhase::ALL[n as usize % WorkPhase::ALL.len()];
    WorkReport { phase, in_flight: n, keys_retrying: n / 2, retries: n * 1_000_000_007 }
}

fn renewal(partition: u32, lease: &Lease, report: Option<WorkReport>) -> Renewal {
    Renewal { partition_id: PartitionId(partition), lease: lease.clone(), report }
}

async fn says(case: &LeaseCase, partition: u32, lease: &Lease, n: u64) -> Outcome {
    let beat = case.renew(&lease.owner, &[renewal(partition, lease, Some(report(n)))]).await?;
    let renewed = beat.renewed.into_iter().next();
    renewed.ok_or_else(|| Failure::new("no answer to a renewal"))??;
    Ok(())
}

async fn expect(case: &LeaseCase, partition: u32, n: Option<u64>, what: &str) -> Outcome<Option<Reported>> {
    let reported = case.reported(&key(partition)).await?;
    ensure_eq!(reported.map(|r| r.work), n.map(report), "{what}");
    Ok(reported)
}

pub(crate) async fn a_report_is_shown_with_its_lease_until_the_next_one(case: &mut LeaseCase) -> Outcome {
    let held = case.hold(&key(0), "a").await?;
    let other = case.hold(&key(1), "a").await?;
    expect(case, 0, None, "the report of a lease that was only claimed").await?;
    let both = [renewal(0, &held, Some(report(7))), renewal(1, &other, None)];
    for renewed in case.renew("a", &both).await?.renewed {
        renewed?;
    }
    let Some(first) = expect(case, 0, Some(7), "the first report").await? else {
        return Err(Failure::new("no report"));
    };
    let age = Timestamp::now().as_micros().abs_diff(first.at.as_micros());
    ensure!(age < 3_600_000_000, "a report of {}, which is not now", first.at);
    expect(case, 1, None, "the report of another lease of the holder").await?;
    case.open.pass(Duration::from_secs(10)).await?;
    says(case, 0, &held, 12).await?;
    expect(case, 0, Some(12), "the second report").await?;
    // Neither a renewal without one nor another claim of the holder's takes it away.
    for renewed in case.renew("a", &[renewal(0, &held, None)]).await?.renewed {
        renewed?;
    }
    ensure_eq!(case.hold(&key(0), "a").await?, held, "the lease that was claimed again");
    let second = expect(case, 0, Some(12), "the second report, later on").await?;
    ensure!(second.is_some_and(|r| r.at >= first.at), "{second:?} came after {first:?}");
    let list = case.open.second().await?.list(None).await?;
    let seen: Vec<_> = list.into_iter().map(|i| i.reported).collect();
    ensure_eq!(seen, vec![second, None], "what a second opening sees");
    case.open.reopen().await?;
    expect(case, 0, Some(12), "the report after reopening").await?;
    Ok(())
}

pub(crate) async fn a_report_is_not_shown_once_its_lease_has_ended(case: &mut LeaseCase) -> Outcome {
    for partition in 0..3 {
        let held = case.hold(&key(partition), "a").await?;
        says(case, partition, &held, 5).await?;
        if partition == 1 {
            case.store().release(&key(1), &held).await?;
            expect(case, 1, None, "the report of a released lease").await?;
        }
    }
    expect(case, 0, Some(5), "the report of a lease that lasts").await?;
    case.open.pass(Duration::from_secs(61)).await?;
    expect(case, 0, None, "the report of a lease that has ended").await?;
    let held = case.hold(&key(3), "b").await?;
    says(case, 3, &held, 6).await?;
    case.store().leave(&consumer("scorer"), &topic("fp.bus.traffic.v1"), "b").await?;
    expect(case, 3, None, "the report of a worker that has left").await?;
    Ok(())
}

pub(crate) async fn a_new_holder_is_not_shown_with_the_report_of_the_last(case: &mut LeaseCase) -> Outcome {
    for (partition, next) in [(0, "b"), (1, "a")] {
        let held = case.hold(&key(partition), "a").await?;
        says(case, partition, &held, 9).await?;
        case.open.pass(Duration::from_secs(61)).await?;
        let taken = case.hold(&key(partition), next).await?;
        expect(case, partition, None, "the report of a holder that has just taken over").await?;
        let beat = case.renew(next, &[renewal(partition, &taken, None)]).await?;
        ensure!(beat.renewed.iter().all(Result::is_ok), "renewed: {:?}", beat.renewed);
        expect(case, partition, None, "the report of a holder that has said nothing yet").await?;
        says(case, partition, &taken, 3).await?;
        expect(case, partition, Some(3), "the new holder's own report").await?;
        case.store().release(&key(partition), &taken).await?;
        case.hold(&key(partition), "c").await?;
        expect(case, partition, None, "the report after a release and a claim").await?;
    }
    Ok(())
}

pub(crate) async fn whoever_does_not_hold_the_lease_reports_nothing(case: &mut LeaseCase) -> Outcome {
    let old = case.hold(&key(0), "a").await?;
    case.open.pass(Duration::from_secs(61)).await?;
    let late = case.renew("a", &[renewal(0, &old, Some(report(1)))]).await?;
    refused("a lease that has ended", late.renewed.into_iter().next().unwrap_or(Ok(())), "fenced")?;
    let new = case.hold(&key(0), "b").await?;
    expect(case, 0, None, "what the last holder said too late").await?;
    says(case, 0, &new, 4).await?;
    let before = case.reported(&key(0)).await?;
    let strangers = [
        ("a", old),
        ("a", new.clone()),
        ("a", Lease { owner: "a".to_owned(), ..new.clone() }),
        ("b", Lease { epoch: new.epoch - 1, ..new.clone() }),
        ("b", Lease { epoch: new.epoch + 1, ..new.clone() }),
    ];
    for (owner, lease) in strangers {
        let what = format!("{owner} with {lease:?}");
        let beat = case.renew(owner, &[renewal(0, &lease, Some(report(2)))]).await?;
        refused(&what, beat.renewed.into_iter().next().unwrap_or(Ok(())), "fenced")?;
        ensure_eq!(case.reported(&key(0)).await?, before, "the holder's report after {what}");
    }
    Ok(())
}
