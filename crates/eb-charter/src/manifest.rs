//! Cargo manifests: names of packages, and what they depend on.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::violation::At;

/// A dependency as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// What the source calls it: with underscores.
    pub(crate) local: String,
    /// The package's own name.
    pub(crate) package: String,
    pub(crate) at: At,
    /// Of tests only.
    pub(crate) dev: bool,
}

/// A manifest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manifest {
    pub(crate) name: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
    /// `[workspace.dependencies]` that rename: local name → package.
    pub(crate) renamed: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest's text.
    ///
    /// # Errors
    /// Where it is no TOML, and why.
    pub(crate) fn parse(text: &str) -> Result<Self, (At, String)> {
        let root = DeTable::parse(text)
            .map_err(|e| (At::byte(text, e.span().map_or(0, |s| s.start)), e.message().replace('\n', " ")))?;
        let root = root.get_ref();
        let mut manifest = Self { name: string(root, &["package", "name"]), ..Self::default() };
        manifest.sections(text, root);
        if let Some(targets) = table(root, "target") {
            for (_, target) in targets {
                if let DeValue::Table(target) = target.get_ref() {
                    manifest.sections(text, target);
                }
            }
        }
        let shared = table(root, "workspace").and_then(|w| table(w, "dependencies"));
        for (name, value) in shared.into_iter().flatten() {
            if let DeValue::Table(details) = value.get_ref()
                && let Some(package) = string(details, &["package"])
            {
                manifest.renamed.insert(name.get_ref().to_string(), package);
            }
        }
        Ok(manifest)
    }

    fn sections(&mut self, text: &str, root: &DeTable<'_>) {
        for (section, dev) in
            [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
        {
            for (name, value) in table(root, section).into_iter().flatten() {
                let key = name.get_ref().to_string();
                let package = match value.get_ref() {
                    DeValue::Table(details) => string(details, &["package"]),
                    _ => None,
                };
                self.dependencies.push(Dependency {
                    local: key.replace('-', "_"),
                    package: package.unwrap_or(key),
                    at: At::byte(text, name.span().start),
                    dev,
                });
            }
        }
    }

    /// Replaces names that the workspace gives to packages by the packages' own.
    pub(crate) fn resolve(&mut self, renamed: &BTreeMap<String, String>) {
        for dependency in &mut self.dependencies {
            if let Some(package) = renamed.get(&dependency.package) {
                dependency.package.clone_from(package);
            }
        }
    }
}

fn table<'t, 'a>(root: &'t DeTable<'a>, name: &str) -> Option<&'t DeTable<'a>> {
    match root.get(name)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn string(root: &DeTable<'_>, path: &[&str]) -> Option<String> {
    let (last, folders) = path.split_last()?;
    let mut here = root;
    for folder in folders {
        here = table(here, folder)?;
    }
    match here.get(*last)?.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_found_wherever_they_stand_under_their_own_name() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na-b = \"1\"\nother = { package = \"c\", version = \"1\" }\nshared.workspace = true\n\
                    [target.'cfg(unix)'.dependencies]\nd = \"1\"\n[dev-dependencies]\ne = \"1\"\n";
        let mut manifest = Manifest::parse(text).unwrap();
        manifest.resolve(&BTreeMap::from([("shared".to_owned(), "real".to_owned())]));
        let mut found: Vec<_> = manifest
            .dependencies
            .iter()
            .map(|d| (d.local.as_str(), d.package.as_str(), d.at.line, d.dev))
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("a_b", "a-b", 4, false),
                ("d", "d", 8, false),
                ("e", "e", 10, true),
                ("other", "c", 5, false),
                ("shared", "real", 6, false)
            ]
        );
        assert_eq!(manifest.name.as_deref(), Some("x"));
        assert!(Manifest::parse("[").is_err());
    }
}
