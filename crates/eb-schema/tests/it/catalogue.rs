//! Folders of schemas with their lock.

use std::path::{Path, PathBuf};

use eb_schema::{Catalogue, Requirement, Rule, SchemaFiles, write_lock};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn events(&self) -> PathBuf {
        self.folder.path().join("events")
    }

    fn put(&self, event_type: &str, version: &str, body: &Value) -> &Self {
        let mut schema = json!({
            "$schema": eb_schema::DRAFT,
            "$id": format!("urn:example:{event_type}:{version}"),
            "type": "object",
        });
        schema.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        self.raw(&format!("{event_type}/{version}.json"), schema.to_string().as_bytes())
    }

    fn raw(&self, name: &str, bytes: &[u8]) -> &Self {
        let path = self.events().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    fn lock(&self) -> Vec<String> {
        let release = Catalogue::read(&self.events()).lock_new(Requirement::Backward).unwrap();
        write_lock(&self.events(), &release.lock).unwrap();
        release.added.iter().map(|(t, v)| format!("{t} {v}")).collect()
    }

    fn faults(&self) -> Vec<String> {
        let root = format!("{}/", self.folder.path().display());
        let faults = Catalogue::read(&self.events()).check(Requirement::Backward);
        faults.iter().map(|f| f.to_string().replace(&root, "")).collect()
    }

    fn rules(&self) -> Vec<Rule> {
        Catalogue::read(&self.events()).check(Requirement::Backward).iter().map(|f| f.rule).collect()
    }
}

#[test]
fn a_version_is_released_once_and_for_good() {
    let place = Place::new();
    place.put("order.line.added", "1.0.0", &json!({}));
    assert_eq!(place.rules(), [Rule::Unlocked]);
    assert_eq!(place.lock(), ["order.line.added 1.0.0"]);
    assert!(place.faults().is_empty());
    assert!(place.lock().is_empty(), "nothing new");

    place.put("order.line.added", "1.1.0", &json!({"title": "more"})).put(
        "order.line.added",
        "1.10.0",
        &json!({}),
    );
    assert_eq!(place.lock(), ["order.line.added 1.1.0", "order.line.added 1.10.0"]);

    place.put("order.line.added", "1.0.0", &json!({"title": "changed"}));
    let faults = place.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].starts_with("events/order.line.added/1.0.0.json: a released schema changed: sha256 "),
        "{faults:?}"
    );
    assert!(faults[0].contains("events.lock:4 says "), "{faults:?}");
    let refused = Catalogue::read(&place.events()).lock_new(Requirement::Backward).unwrap_err();
    assert_eq!(refused[0].rule, Rule::Changed);

    std::fs::remove_file(place.events().join("order.line.added/1.0.0.json")).unwrap();
    let faults = place.faults();
    assert!(
        faults[0].starts_with("events.lock:4: order.line.added/1.0.0.json was released and is gone from "),
        "{faults:?}"
    );
}

#[test]
fn the_lock_is_what_sha256sum_checks() {
    let place = Place::new();
    place.put("a.b.added", "1", &json!({})).put("a.b.added", "2", &json!({}));
    place.lock();
    let checked = std::process::Command::new("sha256sum")
        .args(["--check", "--strict", "../events.lock"])
        .current_dir(place.events())
        .output();
    // Not every system has the program.
    if let Ok(output) = checked {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(!place.folder.path().join("events.lock.new").exists());
}

#[test]
fn each_fault_is_named_with_file_and_pointer() {
    let place = Place::new();
    place
        .put("a.b.added", "1", &json!({"properties": {"x": {"tipe": "string"}}}))
        .put("a.b.added", "2", &json!({"properties": {"x": {"type": "strin"}}}))
        .put("a.b.added", "3", &json!({"$id": "urn:example:a.b.added:2"}))
        .put("a.b.added", "4", &json!({"$schema": "http://json-schema.org/draft-07/schema#"}))
        .put("a.b.added", "5", &json!({"properties": {"x": {"$ref": "https://example.com/x.json"}}}))
        .put("a.b.added", "6", &json!({"properties": {"x": {"$id": "urn:x"}}}))
        .put("a.b.added", "7", &json!({"properties": {"x": {"pattern": "("}}}))
        .raw("a.b.added/8.json", b"{\n\"type\": \"object\",\n\"type\": \"array\"}")
        .raw("a.b.added/9.json", b"true")
        .raw("a.b.added/v1.json", b"{}")
        .raw("a.b.added/README.md", b"")
        .raw("a..b/1.json", b"{}")
        .raw("a.b.added/.hidden", b"")
        .raw("stray.json", b"{}");
    let faults = place.faults();
    for expected in [
        "events/a.b.added/1.json#/properties/x/tipe: `tipe` is no keyword of the draft",
        "events/a.b.added/2.json#/properties/x/type: not a JSON Schema of draft 2020-12: ",
        "events/a.b.added/3.json#/$id: `$id` is \"urn:example:a.b.added:2\", but its place says a.b.added 3",
        "events/a.b.added/4.json#/$schema: `$schema` must be ",
        "events/a.b.added/5.json#/properties/x/$ref: `$ref` \"https://example.com/x.json\" leads out of the file",
        "events/a.b.added/6.json#/properties/x/$id: `$id` may stand at the top only",
        "events/a.b.added/7.json#/properties/x/pattern: not a JSON Schema",
        "events/a.b.added/8.json:3: not JSON within the limits: key \"type\" stands twice",
        "events/a.b.added/9.json: a payload is an object",
        "events/a.b.added/v1.json: a version is one to three numbers",
        "events/a.b.added/README.md: no schema lies here",
        "events/a..b/1.json: an event type is",
        "events/stray.json: no schema lies here",
    ] {
        assert!(faults.iter().any(|f| f.starts_with(expected)), "{expected}\nis not in {faults:#?}");
    }
    assert!(faults.iter().all(|f| !f.contains("/.hidden") && !f.contains('\n')), "{faults:#?}");
}

#[test]
fn the_same_version_cannot_lie_in_two_files() {
    let place = Place::new();
    place.put("a.b.added", "1", &json!({})).put("a.b.added", "1.0", &json!({}));
    assert!(place.faults().iter().any(|f| f.contains("the same version as ")), "{:?}", place.faults());
}

#[test]
fn a_version_owes_compatibility_to_the_one_before_it_of_the_same_first_number() {
    let place = Place::new();
    let with = |names: &[&str]| json!({"required": names});
    place.put("a.b.added", "1.0.0", &with(&["a"])).put("a.b.added", "2.0.0", &with(&["a", "b"]));
    place.lock();
    place.put("a.b.added", "2.1.0", &with(&["a", "b", "c"]));
    let faults = place.faults();
    assert!(
        faults[0].starts_with("events/a.b.added/2.1.0.json#/required: not backward compatible with 2.0.0: events without \"c\" were taken"),
        "{faults:?}"
    );
    assert_eq!(place.rules(), [Rule::Incompatible, Rule::Unlocked]);
    let catalogue = Catalogue::read(&place.events());
    assert!(catalogue.lock_new(Requirement::Backward).is_err(), "what is released is for good");
    assert!(catalogue.lock_new(Requirement::Forward).is_ok());
    let listed = catalogue.list();
    assert_eq!(
        listed.iter().map(|l| l.compatibility).collect::<Vec<_>>(),
        [None, Some("forward"), Some("forward")]
    );
    // What cannot be told is never taken for compatible.
    place.put("a.b.added", "2.1.0", &json!({"required": ["a", "b"], "not": {"required": ["z"]}}));
    assert!(place.faults()[0].contains("cannot tell"), "{:?}", place.faults());
}

#[test]
fn large_and_deep_files_are_refused() {
    let place = Place::new();
    let deep = format!("{}{}", "{\"not\":".repeat(70), "{}") + &"}".repeat(70);
    place.raw("a.b.added/1.json", deep.as_bytes());
    place.raw("a.b.added/2.json", format!("{{\"enum\":[{}0]}}", "0,".repeat(20_000)).as_bytes());
    place.raw("a.b.added/3.json", &vec![b' '; eb_schema::MAX_BYTES + 1]);
    let faults = place.faults();
    for expected in ["nested more than 64 deep", "more than 20000 values", "more than 262144 bytes"] {
        assert!(faults.iter().any(|f| f.contains(expected)), "{expected} in {faults:#?}");
    }
}

/// A chain of references, of this many definitions.
fn chain(links: usize, leaf: &str) -> Value {
    let mut definitions: serde_json::Map<_, _> =
        (0..links).map(|i| (format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", i + 1)}))).collect();
    definitions.insert(format!("d{links}"), json!({ "type": leaf }));
    json!({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": definitions})
}

#[test]
fn chains_of_references_are_bounded_by_what_a_stack_holds() {
    let place = Place::new();
    place.put("a.b.added", "1", &chain(eb_schema::MAX_REACH, "integer"));
    place.put("a.b.added", "2", &json!({"properties": {"a": {"$ref": "#/$defs/none"}}}));
    let faults = place.faults();
    assert!(faults[0].contains("parts and references go on for up to 515 schemas"), "{faults:?}");
    assert!(
        faults[1].starts_with("events/a.b.added/2.json#/properties/a/$ref: `$ref` \"#/$defs/none\" leads to no schema of this file"),
        "{faults:?}"
    );
    // The longest ones that are taken can be compiled and compared on the two megabytes that a thread has.
    let place = Place::new();
    place.put("a.b.added", "1.0", &chain(eb_schema::MAX_REACH - 3, "integer"));
    place.put("a.b.added", "1.1", &chain(eb_schema::MAX_REACH - 3, "number"));
    let catalogue = Catalogue::read(&place.events());
    assert!(catalogue.check_before_release(Requirement::None).is_empty());
    let compared = eb_schema::compare(
        catalogue.get("a.b.added", "1.0").unwrap(),
        catalogue.get("a.b.added", "1.1").unwrap(),
    );
    assert_ne!(compared.forward, eb_schema::Answer::Yes);
    let validator = jsonschema::validator_for(catalogue.get("a.b.added", "1.0").unwrap().value()).unwrap();
    assert!(!validator.is_valid(&json!({"a": "x"})));
}

#[test]
fn a_folder_that_is_not_there_is_a_fault() {
    let faults = Catalogue::read(Path::new("/nowhere/events")).check(Requirement::Backward);
    assert!(faults[0].to_string().starts_with("/nowhere/events: cannot be read: "), "{faults:?}");
}

#[test]
fn a_broken_lock_is_refused_and_not_taken_for_an_empty_one() {
    let place = Place::new();
    place.put("a.b.added", "1", &json!({}));
    std::fs::write(place.folder.path().join("events.lock"), "=======\n").unwrap();
    assert!(place.rules().contains(&Rule::Lock));
    assert!(Catalogue::read(&place.events()).lock_new(Requirement::None).is_err());
}

#[test]
fn files_may_come_from_memory() {
    let schema =
        json!({"$schema": eb_schema::DRAFT, "$id": "https://example.com/a.b.added/1.json", "type": "object"});
    let bytes = schema.to_string().into_bytes();
    let lock = format!("{}  a.b.added/1.json\n", eb_schema::sha256(&bytes));
    let files =
        SchemaFiles::from_memory("events", Some(lock.into_bytes()), [("a.b.added/1.json".to_owned(), bytes)]);
    let catalogue = Catalogue::new(files);
    assert!(catalogue.check(Requirement::Full).is_empty());
    assert_eq!(catalogue.get("a.b.added", "1").unwrap().value(), &schema);
    assert!(catalogue.get("a.b.added", "2").unwrap_err()[0].to_string().contains("there are 1"));
    assert!(catalogue.lock().get("a.b.added", "1").is_some() && catalogue.lock().len() == 1);
}
