//! The folder of programs that break the charter, the workspace that does not, and what a newcomer meets.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use eb_charter::{Charter, Rule};

fn violations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/violations")
}

/// What a folder says must be caught: `file:line rule`.
fn expected(root: &Path, folder: &Path, out: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            expected(root, &path, out);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let below = path.strip_prefix(root).unwrap().display().to_string();
        if below == "expected.txt" {
            out.extend(text.lines().map(str::to_owned));
            continue;
        }
        for (i, line) in text.lines().enumerate() {
            if let Some((_, rule)) = line.split_once("//~ ").or_else(|| line.split_once("#~ ")) {
                out.insert(format!("{below}:{} {rule}", i + 1));
            }
        }
    }
}

/// Checks a folder as a repository of its own: away from the configuration of this workspace.
fn caught(folder: &str) -> BTreeSet<String> {
    let place = tempfile::tempdir().unwrap();
    copy(&violations().join(folder), place.path());
    let report = Charter::find(place.path()).unwrap().check().unwrap();
    report.violations.iter().map(|v| format!("{}:{} {}", v.file, v.line, v.rule)).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn exactly_the_marked_lines(folder: &str, rule: Rule, least: usize) {
    let mut marked = BTreeSet::new();
    expected(&violations().join(folder), &violations().join(folder), &mut marked);
    assert!(marked.len() >= least && marked.iter().all(|line| line.ends_with(rule.as_str())), "{marked:?}");
    let caught = caught(folder);
    let missed: Vec<_> = marked.difference(&caught).collect();
    let wronged: Vec<_> = caught.difference(&marked).collect();
    assert!(missed.is_empty() && wronged.is_empty(), "missed {missed:#?}\nwronged {wronged:#?}");
}

#[test]
fn whatever_publishes_past_the_gate_is_caught_at_its_line() {
    exactly_the_marked_lines("publish_past_gate", Rule::PublishPastGate, 16);
}

#[test]
fn event_types_that_do_not_say_what_has_happened_are_caught_at_their_line() {
    exactly_the_marked_lines("event_type", Rule::EventType, 13);
}

#[test]
fn events_that_do_not_say_where_they_come_from_are_caught_at_their_line() {
    exactly_the_marked_lines("event_fields", Rule::EventFields, 5);
}

#[test]
fn released_schemas_that_changed_or_vanished_are_caught() {
    exactly_the_marked_lines("released_schema", Rule::ReleasedSchema, 4);
}

#[test]
fn backends_that_know_each_other_are_caught_at_their_line() {
    exactly_the_marked_lines("backend_import", Rule::BackendImport, 6);
}

#[test]
fn files_that_cannot_be_read_are_never_passed_over() {
    exactly_the_marked_lines("unreadable", Rule::Unreadable, 4);
}

#[test]
fn a_program_that_keeps_the_charter_is_left_alone() {
    assert!(caught("correct").is_empty(), "{:?}", caught("correct"));
    // It is the exceptions that let it pass: without them the same program is caught.
    let bare = tempfile::tempdir().unwrap();
    copy(&violations().join("correct/src"), &bare.path().join("src"));
    copy(&violations().join("correct/tests"), &bare.path().join("tests"));
    let report = Charter::find(bare.path()).unwrap().check().unwrap();
    let files: Vec<_> = report.violations.iter().map(|v| v.file.as_str()).collect();
    assert_eq!(files, ["src/copy.rs", "src/fixtures.rs", "src/lib.rs", "tests/it/main.rs"]);
}

#[test]
fn the_workspace_itself_is_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let report = Charter::find(&root).unwrap().check().unwrap();
    let lines: Vec<_> = report.violations.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    assert!(report.files > 300, "{}", report.files);
}

#[test]
fn a_violation_says_where_what_and_what_to_do_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("a.rs"), "fn f() {\n    let ä = EnvelopeBuilder::new(\"a.b.go\");\n}\n")
        .unwrap();
    // One file is enough, too.
    let report = Charter::find(&place.path().join("a.rs")).unwrap().check().unwrap();
    assert_eq!(report.files, 1);
    assert_eq!(
        report.violations[0].to_string(),
        "a.rs:2:34: event-type: \"go\" of \"a.b.go\" does not say what has happened; name it <domain>.<resource>.<past-tense>, as in \
         card.transaction.authorised; a past tense without -ed goes into a file of [event-types] exceptions"
    );
}

#[test]
fn exceptions_must_speak_of_what_is_there() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(
        place.path().join("charter.toml"),
        "[[allow]]\nrule = \"event-type\"\npath = \"gone\"\nreason = \"once\"\n",
    )
    .unwrap();
    let report = Charter::find(place.path()).unwrap().check().unwrap();
    assert_eq!(
        report.violations.iter().map(|v| (v.rule, v.line, v.column)).collect::<Vec<_>>(),
        [(Rule::CharterConfig, 3, 8)]
    );
    std::fs::write(place.path().join("charter.toml"), "[[alow]]\n").unwrap();
    let error = Charter::find(place.path()).unwrap_err().to_string();
    assert!(error.starts_with("charter.toml:1:3: unknown field `alow`"), "{error}");
    assert!(
        Charter::find(&place.path().join("nowhere"))
            .unwrap_err()
            .to_string()
            .contains("nowhere: cannot be read")
    );
}

#[test]
fn sources_nested_beyond_all_reason_are_told_and_not_fallen_over() {
    let place = tempfile::tempdir().unwrap();
    let deep = format!("fn f() {{ {}1{} }}", "(".repeat(5_000), ")".repeat(5_000));
    std::fs::write(place.path().join("deep.rs"), deep).unwrap();
    std::fs::write(place.path().join("long.rs"), format!("fn f() {{ {}1; }}", "1 + ".repeat(100_000)))
        .unwrap();
    std::fs::write(place.path().join("large.rs"), " ".repeat((1 << 20) + 1)).unwrap();
    let report = Charter::find(place.path()).unwrap().check().unwrap();
    let found: Vec<_> = report.violations.iter().map(|v| (v.file.as_str(), v.rule)).collect();
    assert_eq!(found, [("deep.rs", Rule::Unreadable), ("large.rs", Rule::Unreadable)]);
}
