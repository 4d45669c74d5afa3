use eb_profile::{Env, Profile, ProfileSource};
use ig_gate::Policy;
use ig_gate::policy::{PolicyFile, PolicyFiles};

/// The profile parser: an answer to every text, and errors that say where.
///
/// # Panics
/// When that does not hold.
pub fn profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = Env::only([("EB_RUNS", "/runs"), ("SECRET", "s3cret"), ("EMPTY", "")]);
    let source = ProfileSource::file("/config/platform/profiles/local.yaml", "/base");
    match Profile::parse(source.clone(), text, &env) {
        // What is printed of a profile never shows a secret, and reading it again says the same.
        Ok(profile) => {
            let again = Profile::parse(source, text, &env).expect("the same text is taken again");
            assert_eq!(format!("{profile:?}"), format!("{again:?}"));
        }
        Err(e) => {
            assert!(!e.to_string().is_empty() && !e.to_string().contains('\n'), "one line: {e}");
            // YAML breaks lines at more than newlines.
            let breaks = |c: &char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
            let lines = text.chars().filter(breaks).count() + 1;
            assert!(e.place().is_none_or(|place| (1..=lines + 1).contains(&place.line)), "{e}");
        }
    }
}

/// The gate's policy files, one after the other behind a NUL: an answer to every text.
///
/// # Panics
/// When that does not hold.
pub fn policy(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let mut file = |name| PolicyFile { name, bytes: parts.next().unwrap_or_default() };
    let files = PolicyFiles {
        policy_id: "ig.policy",
        revision: "v0",
        partitioning: file("partitioning_profiles_v0.yaml"),
        class_map: file("class_map_v0.yaml"),
        schema_policy: file("schema_policy_v0.yaml"),
    };
    let no_schemas = |reference: &str| Err(format!("{reference} is not there"));
    match Policy::load(files, &no_schemas) {
        Ok(policy) => {
            // Every type has a class, and every class a stream.
            let (_, profile) = policy.route("any.type");
            assert!(policy.streams().contains(profile.stream()));
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}
