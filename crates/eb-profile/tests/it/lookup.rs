//! Which file is taken.

use std::path::PathBuf;

use eb_profile::{Env, Profile};

use crate::GOOD;

/// The workspace's own local profile, found from this crate's folder upwards.
#[test]
fn a_name_is_looked_for_in_config_of_this_folder_and_those_above() {
    let profile = Profile::load_with("local", &Env::only::<&str, &str>([])).unwrap();
    assert!(!profile.source.is_built_in());
    assert!(profile.source.name().ends_with("config/platform/profiles/local.yaml"));
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    assert_eq!(profile.source.base(), workspace);
    let root = profile.wiring.event_bus.root.unwrap();
    assert_eq!(root, workspace.join("runs/fraud-platform/event_bus"));
}

#[test]
fn a_config_folder_that_is_named_is_the_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::only([("EB_CONFIG_DIR", folder.path().to_str().unwrap())]);
    let e = Profile::load_with("local", &env).unwrap_err().to_string();
    assert!(e.contains("cannot read") && e.contains("platform/profiles/local.yaml"), "{e}");

    let profiles = folder.path().join("platform/profiles");
    std::fs::create_dir_all(&profiles).unwrap();
    std::fs::write(profiles.join("local.yaml"), GOOD).unwrap();
    let profile = Profile::load_with("local", &env).unwrap();
    assert_eq!(profile.profile_id, "test");
    assert_eq!(profile.source.config_root(), Some(folder.path()));
}

#[test]
fn a_path_is_taken_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    std::fs::write(&path, GOOD).unwrap();
    let profile = Profile::load_with(path.to_str().unwrap(), &Env::only::<&str, &str>([])).unwrap();
    assert_eq!(
        profile.source.config_root(),
        Some(folder.path()),
        "policies lie beside a profile of one's own"
    );
    assert_eq!(profile.source.base(), std::env::current_dir().unwrap());

    std::fs::write(&path, b"profile_id: \xff").unwrap();
    let e = Profile::load(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(e.ends_with("mine.yaml: not UTF-8 at byte 12"), "{e}");
    let e = Profile::load(folder.path().join("a/").to_str().unwrap()).unwrap_err().to_string();
    assert!(e.contains("cannot read"), "{e}");
    let e = Profile::load(&format!("{}/", folder.path().display())).unwrap_err().to_string();
    assert!(e.contains("is a folder"), "{e}");
}

#[test]
fn a_name_never_leaves_the_folder_and_an_unknown_one_says_what_to_do() {
    let env = Env::only::<&str, &str>([]);
    for bad in ["", "..", ".hidden", "a b", "a\u{0}"] {
        let e = Profile::load_with(bad, &env).unwrap_err().to_string();
        assert!(e.contains("neither a profile's name nor a path"), "{bad:?}: {e}");
    }
    let e = Profile::load_with("nowhere", &env).unwrap_err().to_string();
    assert_eq!(
        e,
        "nowhere: no such profile: there is no config/platform/profiles/nowhere.yaml here or in a folder above; give a path, set EB_CONFIG_DIR, or use one that is built in: local, dev_local, dev_redis"
    );
}
