//! The local profile and the gate's policies, compiled in, so that a program works in an empty folder.

/// The name of the built-in profile.
pub(crate) const PROFILE_NAME: &str = "local";

/// Its text.
pub(crate) const PROFILE: &str = include_str!("../../../config/platform/profiles/local.yaml");

/// A file of the built-in config folder by its path below it.
pub(crate) fn file(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../config/", $path)))),*]
    };
}

static FILES: &[(&str, &str)] = files![];
