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
    "schemas/payloads/card.refund.issued.1.0.0.schema.json",
    "schemas/payloads/card.transaction.authorised.1.0.0.schema.json",
    "schemas/payloads/card.transaction.declined.1.0.0.schema.json",
    "schemas/payloads/card.transaction.settled.1.0.0.schema.json",
    "schemas/payloads/device.session.opened.1.0.0.schema.json",
    "schemas/payloads/merchant.statement.issued.1.0.0.schema.json",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_policy_file_of_the_config_folder_is_built_in() {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        let mut found = Vec::new();
        for folder in ["ig", "schemas/payloads"] {
            for entry in std::fs::read_dir(config.join(folder)).unwrap() {
                found.push(format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()));
            }
        }
        found.sort();
        let built_in: Vec<_> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(built_in, found);
    }

    #[test]
    fn every_profile_of_the_config_folder_is_built_in() {
        let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/platform/profiles");
        let mut found: Vec<_> = std::fs::read_dir(profiles)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
            .collect();
        found.sort();
        let mut built_in: Vec<_> = names().map(|name| format!("{name}.yaml")).collect();
        built_in.sort();
        assert_eq!(built_in, found);
    }
}
