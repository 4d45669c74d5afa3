//! A gate whose shard takes nothing for a while: its events stay queued for longer than another gate would wait for a dead
//! one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eb_contract::stores::AdmissionIndex as _;
use eb_system_tests::shared::Setup;
use eb_testkit::kinesis_fake::{Fault, KinesisFake, Op, Reaction};
use ig_gate::{Decision, GateErrorCode};

use super::{all_records, create_streams, place};

/// Far more than any of this takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_queued_past_lease_and_deadline_is_published_by_no_other_gate() {
    let fake = KinesisFake::start().await.unwrap();
    let mut place = place("slow", eb_testkit::seed());
    place.setup.kinesis = fake.endpoint_url();
    // Long enough to be renewed in time on a machine that is busy with everything else.
    (place.setup.lease_ms, place.setup.deadline_ms, place.setup.count) = (3_000, 3_500, 1);
    let setup = &place.setup;
    create_streams(setup, 1).await;
    let (slow, other) = (setup.gate().await.unwrap(), {
        let named = Setup { name: "b".to_owned(), ..setup.clone() };
        named.gate().await.unwrap()
    });
    let refusing = Arc::new(AtomicBool::new(true));
    let refuses = refusing.clone();
    fake.script_by(Op::PutRecords, move |_| {
        refuses.load(Ordering::SeqCst).then(|| Reaction::refuse(Fault::throttled()))
    });
    let event = setup.events().next().unwrap();
    let queued = tokio::spawn(slow.admit(event.clone()));
    fake.wait_for(Op::PutRecords, 1).await;
    // Each try waits for the deadline, so the second one ends when lease and deadline have long passed.
    for _ in 0..2 {
        let told = tokio::time::timeout(PATIENCE, other.admit(event.clone())).await;
        let error = told.expect("the other gate is publishing the event").unwrap_err();
        assert_eq!(error.code(), GateErrorCode::PublishOutcomeUnknown, "{error}");
    }
    refusing.store(false, Ordering::SeqCst);
    let admitted = queued.await.unwrap().unwrap();
    assert_eq!(admitted.decision, Decision::Admit);
    let known = other.admit(event).await.unwrap();
    assert_eq!((known.decision, known.eb_ref), (Decision::Duplicate, admitted.eb_ref));
    assert_eq!(all_records(setup).await.len(), 1, "no copy lies in the log");
    assert!(setup.index().await.unwrap().open_reservations().await.unwrap().is_empty());
    slow.close().await.unwrap();
    other.close().await.unwrap();
}
