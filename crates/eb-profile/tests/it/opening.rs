//! From a profile to a platform that works.

use eb_contract::{ErrorKind, EventBusReaderExt as _, PartitionId, StartAt, Topic};
use eb_profile::{Env, OpenError, Platform, Profile, ProfileSource, Purpose};
use ig_gate::Decision;

pub(crate) const LOCAL: &str = include_str!("../../../../config/platform/profiles/local.yaml");

pub(crate) fn event(id: &str) -> Vec<u8> {
    let world = "a".repeat(64);
    format!(
        "{{\"event_id\":\"{id}\",\"event_type\":\"audit.access.granted\",\"ts_utc\":\"2026-01-29T10:00:00.000000Z\",\
         \"manifest_fingerprint\":\"{world}\",\"schema_version\":\"1.0.0\",\"payload\":{{}}}}"
    )
    .into_bytes()
}

fn runs(folder: &tempfile::TempDir) -> Env {
    Env::only([("EB_RUNS", folder.path().to_str().unwrap())])
}

async fn open(env: &Env) -> Platform {
    Platform::open_with("local", Purpose::Writing, env).await.unwrap()
}

#[tokio::test]
async fn the_local_profile_opens_all_of_it_and_finds_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let env = runs(&folder);
    let platform = open(&env).await;
    let first = platform.gate().await.unwrap().admit(event("e1")).await.unwrap();
    assert_eq!(first.decision, Decision::Admit);
    platform.close().await.unwrap();

    let platform = open(&env).await;
    let again = platform.gate().await.unwrap().admit(event("e1")).await.unwrap();
    assert_eq!((again.decision, &again.eb_ref), (Decision::Duplicate, &first.eb_ref));
    let bad = platform.gate().await.unwrap().admit(&b"{}"[..]).await.unwrap();
    assert_eq!(bad.decision, Decision::Quarantine);
    platform.close().await.unwrap();

    let reading = Platform::open_with("local", Purpose::Reading, &env).await.unwrap();
    let topic = Topic::new("fp.bus.audit.v1").unwrap();
    let log = reading.reader().read_to_head(&topic, PartitionId(0), StartAt::Earliest).await.unwrap();
    assert_eq!(log.len(), 1);
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["event_bus", "ig"], "it writes nowhere else");
}

#[tokio::test]
async fn opening_for_reading_makes_nothing_and_has_no_gate() {
    let folder = tempfile::tempdir().unwrap();
    let env = runs(&folder);
    let Err(OpenError::Bus(e)) = Platform::open_with("local", Purpose::Reading, &env).await else {
        panic!("there is nothing to open")
    };
    assert_eq!(*e.kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let writing = open(&env).await;
    let reading = Platform::open_with("local", Purpose::Reading, &env).await.unwrap();
    let Err(OpenError::Bus(e)) = reading.gate().await else { panic!("no gate for a reader") };
    assert_eq!(*e.kind(), ErrorKind::Unsupported);
    writing.close().await.unwrap();
}

#[tokio::test]
async fn a_second_gate_is_refused_while_the_first_is_open_and_not_after() {
    let folder = tempfile::tempdir().unwrap();
    let env = runs(&folder);
    let (first, second) = (open(&env).await, open(&env).await);
    first.gate().await.unwrap();
    let Err(refused) = second.gate().await else { panic!("two gates on one index") };
    assert!(refused.is_retryable(), "{refused}");
    first.close().await.unwrap();
    assert_eq!(second.gate().await.unwrap().admit(event("e1")).await.unwrap().decision, Decision::Admit);
    second.close().await.unwrap();
}

#[tokio::test]
async fn a_topic_with_another_number_of_partitions_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let env = runs(&folder);
    open(&env).await.close().await.unwrap();
    let text = LOCAL.replace("fp.bus.audit.v1: 1", "fp.bus.audit.v1: 2");
    let profile = Profile::parse(ProfileSource::built_in(folder.path()), &text, &env).unwrap();
    let platform = Platform::open(profile, Purpose::Writing).await.unwrap();
    assert_eq!(*platform.ensure_topics().await.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn everything_works_in_memory_too() {
    let env = Env::only([("EVENT_BUS_KIND", "memory")]);
    let text = LOCAL.replace("kind: file\n    root", "kind: memory\n    root");
    let profile = Profile::parse(ProfileSource::built_in("/nowhere"), &text, &env).unwrap();
    let platform = Platform::open(profile, Purpose::Writing).await.unwrap();
    let made = platform.ensure_topics().await.unwrap();
    assert_eq!(made.len(), 3);
    let receipt = platform.gate().await.unwrap().admit(event("e1")).await.unwrap();
    assert_eq!(receipt.decision, Decision::Admit);
    assert_eq!(platform.capabilities().backend, "memory");
    platform.close().await.unwrap();
}

#[test]
fn the_built_in_policy_is_the_one_in_the_config_folder() {
    let env = Env::only::<&str, &str>([]);
    let workspace = Profile::load_with("local", &env).unwrap();
    let built_in = Profile::parse(ProfileSource::built_in("/"), LOCAL, &env).unwrap();
    let (a, b) = (workspace.load_policy().unwrap(), built_in.load_policy().unwrap());
    assert_eq!(a.rev(), b.rev());
    assert_eq!((b.rev().policy_id.as_str(), b.rev().revision.as_str()), ("ig.policy", "v0"));
}
