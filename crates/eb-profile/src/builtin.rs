//! The shipped profiles and the gate's policies, compiled in, so that a program works in an empty folder.

/// The name of the profile that needs nothing but this machine.
pub(crate) const LOCAL: &str = "local";

/// A profile's name, as it is held here, and its text.
pub(crate) fn profile(name: &str) -> Option<(&'static str, &'static str)> {
    PROFILES.iter().copied().find(|(known, _)| *known == name)
}

/// The names of the profiles.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PROFILES.iter().map(|(name, _)| *name)
}

macro_rules! profiles {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../config/platform/profiles/", $name, ".yaml")))),*]
    };
}

static PROFILES: &[(&str, &str)] = profiles!["local", "dev_local", "dev_redis"];

/// The released event schemas that are compiled in, `<event type>/<version>.json` with their text, and their lock's text.
#[must_use]
pub fn built_in_schemas() -> (&'static str, Vec<(&'static str, &'static str)>) {
    let below =
        |(name, text): &(&'static str, &'static str)| Some((name.strip_prefix("schemas/events/")?, *text));
    (file("schemas/events.lock").unwrap_or_default(), FILES.iter().filter_map(below).collect())
}

/// A file of the built-in config folder by its path below it.
pub(crate) fn file(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../config/", $path)))),*]
    };
}

static FILES: &[(&str, &str)] = files![
    "ig/class_map_v0.yaml",
    "ig/partitioning_profiles_v0.yaml",
    "ig/schema_policy_v0.yaml",
    "schemas/events.lock",
    "schemas/events/card.refund.issued/1.0.0.json",
    "schemas/events/card.transaction.authorised/1.0.0.json",
    "schemas/events/card.transaction.declined/1.0.0.json",
    "schemas/events/card.transaction.settled/1.0.0.json",
    "schemas/events/device.session.opened/1.0.0.json",
    "schemas/events/merchant.statement.issued/1.0.0.json",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_policy_file_of_the_config_folder_is_built_in() {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        let mut found = vec!["schemas/events.lock".to_owned()];
        for folder in ["ig", "schemas/events"] {
            collect(&config, folder, &mut found);
        }
        found.sort();
        let built_in: Vec<_> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(built_in, found);
    }

    fn collect(config: &Path, folder: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(config.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                collect(config, &path, found);
            } else {
                found.push(path);
            }
        }
    }
}
