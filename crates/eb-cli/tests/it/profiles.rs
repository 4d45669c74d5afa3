//! `eb profile`, and profiles that are wrong.

use serde_json::{Value, json};

use crate::{Place, WORLD, event, exists};

const LOCAL: &str = include_str!("../../../../config/platform/profiles/local.yaml");

#[test]
fn the_built_in_profile_works_in_an_empty_folder_and_says_that_it_is_the_one() {
    let place = Place::new();
    let checked = place.eb(&["profile", "check"]).one();
    assert_eq!((&checked["source"], &checked["built_in"]), (&json!("<built-in local>"), &json!(true)));
    assert_eq!(checked["streams"], json!(["fp.bus.audit.v1", "fp.bus.control.v1", "fp.bus.traffic.v1"]));
    assert_eq!(checked["capabilities"], json!(null), "nothing is written yet");
    assert!(!exists(&place.path("runs")), "checking makes nothing");
    place.eb_with(&["ingest"], event(1).as_bytes()).ended(0);
    let checked = place.eb(&["profile", "check"]).one();
    assert_eq!(checked["capabilities"]["backend"], "file");
}

#[test]
fn a_wrong_key_is_named_with_file_line_and_suggestion_by_every_command() {
    let place = Place::new();
    let wrong = LOCAL.replace("create_topics: true", "create_topic: true");
    let line = 1 + wrong.lines().position(|l| l.contains("create_topic:")).unwrap();
    place.write("config/platform/profiles/local.yaml", &wrong);
    let expected = format!(
        "eb: config/platform/profiles/local.yaml:{line}:5: wiring.event_bus.create_topic: unknown key; did you mean `create_topics`?\n"
    );
    for args in [&["profile", "check"][..], &["profile", "show"], &["topics"], &["health"]] {
        assert_eq!(place.eb(args).ended(1).stderr, expected);
    }
    let failure = place.eb(&["--json", "topics"]).ended(1);
    let error = &serde_json::from_str::<Value>(&failure.stderr).unwrap()["error"];
    assert_eq!(
        (&error["kind"], &error["line"], &error["column"]),
        (&json!("profile"), &json!(line), &json!(5))
    );
    assert_eq!(error["key"], "wiring.event_bus.create_topic");
}

#[test]
fn a_profile_that_is_not_there_says_what_to_do() {
    let place = Place::new();
    let ran = place.eb(&["topics", "--profile", "nowhere"]).ended(1);
    assert!(ran.stderr.starts_with("eb: nowhere: no such profile: "), "{ran:?}");
    let ran = place.eb(&["topics", "--profile", "./x.yaml"]).ended(1);
    assert!(ran.stderr.starts_with("eb: ./x.yaml: cannot read ./x.yaml: "), "{ran:?}");
}

#[test]
fn a_policy_file_that_is_missing_or_wrong_is_named() {
    let place = Place::new();
    place.write("config/platform/profiles/local.yaml", LOCAL);
    let ran = place.eb(&["profile", "check"]).ended(1);
    let line = 1 + LOCAL.lines().position(|l| l.contains("partitioning_profiles_ref")).unwrap();
    assert!(
        ran.stderr.starts_with(&format!(
            "eb: config/platform/profiles/local.yaml:{line}:30: policy.partitioning_profiles_ref: cannot read config/ig/partitioning_profiles_v0.yaml: "
        )),
        "{ran:?}"
    );
    place.write("config/ig/partitioning_profiles_v0.yaml", "version: v0\nprofils: {}\n");
    place.write("config/ig/class_map_v0.yaml", "version: v0\n");
    place.write("config/ig/schema_policy_v0.yaml", "version: v0\n");
    let ran = place.eb(&["profile", "check"]).ended(1);
    assert!(ran.stderr.contains("partitioning_profiles_v0.yaml:2:1: "), "{ran:?}");
    assert!(ran.stderr.contains("did you mean `profiles`?"), "{ran:?}");
}

#[test]
fn show_tells_where_each_value_comes_from_and_masks_secrets() {
    let place = Place::new();
    let text = LOCAL.replace(
        "  checkpoint_store:\n    kind: file",
        "  checkpoint_store:\n    kind: postgres\n    url: postgres://eb:${PG_PASSWORD}@db/eb",
    );
    place.write("mine.yaml", &text);
    let mut command = place.command(&["profile", "show", "--profile", "mine.yaml"]);
    let output = command.env("PG_PASSWORD", "hunter2").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!stdout.contains("hunter2"));
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    let setting = |key: &str| {
        shown["settings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["key"] == key)
            .unwrap_or_else(|| panic!("{key}"))
    };
    assert_eq!(
        (&setting("wiring.checkpoint_store.url")["value"], &setting("wiring.checkpoint_store.url")["secret"]),
        (&json!("•••"), &json!(true))
    );
    assert_eq!(setting("wiring.event_bus.root")["origin"], "line 18, EB_RUNS from the environment");
    assert_eq!(setting("wiring.admission_index.max_lag")["origin"], "default");
}

#[test]
fn the_environment_overrides_the_kind_and_the_program_says_so() {
    let place = Place::new();
    let args = [
        "publish",
        "audit.access.granted",
        "{}",
        "--manifest-fingerprint",
        WORLD,
        "--schema-version",
        "1.0.0",
    ];
    let output = place.command(&args).env("EVENT_BUS_KIND", "memory").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.starts_with(
            "eb: EVENT_BUS_KIND=memory in the environment overrides event_bus_kind `file` of the profile\n"
        ),
        "{stderr}"
    );
    let receipt: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(receipt["eb_ref"]["offset_kind"], "memory_index");
    assert!(!exists(&place.path("runs/event_bus")), "the file bus was left alone");

    let checked = place.command(&["profile", "check"]).env("EVENT_BUS_KIND", "memory").output().unwrap();
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(checked["event_bus_kind"], "memory");
    assert_eq!(checked["notices"].as_array().unwrap().len(), 3, "the notice is in the result too: {checked}");

    let wrong = place.command(&["topics"]).env("EVENT_BUS_KIND", "flie").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let stderr = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(stderr, "eb: EVENT_BUS_KIND: `flie` is no kind of event bus; did you mean `file`?\n");
}
