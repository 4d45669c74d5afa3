//! `charter.toml`: what is checked, and the exceptions with their reasons.

use serde::Deserialize;

use crate::violation::{At, CharterError, Rule};

/// The name of the file.
pub(crate) const FILE: &str = "charter.toml";
/// The most bytes of it.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// The file's contents. Everything is optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Config {
    pub(crate) skip: Vec<Skip>,
    pub(crate) allow: Vec<Allow>,
    pub(crate) event_types: EventTypes,
    pub(crate) backends: Backends,
    pub(crate) schemas: Schemas,
    pub(crate) yaml: Yaml,
}

/// A folder or file that is not looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Skip {
    pub(crate) path: toml::Spanned<String>,
    pub(crate) reason: toml::Spanned<String>,
}

/// Where a rule may be broken.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allow {
    pub(crate) rule: toml::Spanned<Rule>,
    /// A folder or file, below the checked folder; everywhere without it.
    pub(crate) path: Option<toml::Spanned<String>>,
    /// `tests`: in test code only.
    pub(crate) code: Option<Code>,
    pub(crate) reason: toml::Spanned<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
    Tests,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EventTypes {
    pub(crate) exceptions: Vec<toml::Spanned<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backends {
    pub(crate) crates: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Schemas {
    pub(crate) folders: Option<Vec<toml::Spanned<String>>>,
    pub(crate) require: Option<toml::Spanned<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Yaml {
    pub(crate) folders: Option<Vec<toml::Spanned<String>>>,
}

impl Config {
    /// Reads the file's text. `name` is what errors call it.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, CharterError> {
        let error = |byte: usize, what: &str| {
            let At { line, column } = At::byte(text, byte);
            CharterError(format!("{name}:{line}:{column}: {what}"))
        };
        let config: Self = toml::from_str(text).map_err(|e| {
            let what = e.message().replace('\n', " ");
            error(e.span().map_or(0, |span| span.start), &what)
        })?;
        let reasons = config.skip.iter().map(|s| &s.reason).chain(config.allow.iter().map(|a| &a.reason));
        for reason in reasons {
            if reason.get_ref().trim().is_empty() {
                return Err(error(reason.span().start, "an exception needs a reason"));
            }
        }
        for allow in &config.allow {
            let at = allow.rule.span().start;
            if allow.path.is_none() && allow.code.is_none() {
                return Err(error(
                    at,
                    "an exception needs a `path`, or `code = \"tests\"`: nothing is allowed everywhere",
                ));
            }
            if matches!(allow.rule.get_ref(), Rule::Unreadable | Rule::CharterConfig) {
                return Err(error(at, "this rule has no exceptions; `[[skip]]` leaves a file out"));
            }
        }
        for path in config.paths() {
            let plain = !path.get_ref().is_empty()
                && path.get_ref().split('/').all(|part| !matches!(part, "" | "." | ".."))
                && !path.get_ref().contains('\\');
            if !plain {
                return Err(error(
                    path.span().start,
                    "a path goes down from the folder of this file: no `..`, no `/` at its ends",
                ));
            }
        }
        Ok(config)
    }

    /// Every path that it names.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &toml::Spanned<String>> {
        let folders = self.schemas.folders.iter().flatten().chain(self.yaml.folders.iter().flatten());
        let allowed = self.allow.iter().filter_map(|a| a.path.as_ref());
        self.skip.iter().map(|s| &s.path).chain(allowed).chain(folders).chain(&self.event_types.exceptions)
    }

    pub(crate) fn allows(&self, rule: Rule, file: &str, in_test: bool) -> bool {
        self.allow.iter().any(|allow| {
            *allow.rule.get_ref() == rule
                && allow.path.as_ref().is_none_or(|path| is_below(file, path.get_ref()))
                && (allow.code.is_none() || in_test)
        })
    }

    pub(crate) fn skips(&self, path: &str) -> bool {
        self.skip.iter().any(|skip| is_below(path, skip.path.get_ref()))
    }
}

/// Whether a path is this one, or lies below it.
pub(crate) fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_refused_with_its_place() {
        for (text, expected) in [
            ("[[alow]]\n", "c.toml:1:3: unknown field `alow`"),
            (
                "[[allow]]\nrule = \"publish-past\"\npath = \"a\"\nreason = \"r\"\n",
                "c.toml:2:8: unknown variant `publish-past`",
            ),
            ("[[allow]]\nrule = \"event-type\"\nreason = \"r\"\n", "c.toml:2:8: an exception needs a `path`"),
            (
                "[[allow]]\nrule = \"event-type\"\npath = \"a\"\nreason = \" \"\n",
                "c.toml:4:10: an exception needs a reason",
            ),
            ("[[skip]]\npath = \"../a\"\nreason = \"r\"\n", "c.toml:2:8: a path goes down"),
            ("[[skip]]\npath = \"a\"\n", "c.toml:1:1: missing field `reason`"),
            (
                "[[allow]]\nrule = \"unreadable\"\npath = \"a\"\nreason = \"r\"\n",
                "this rule has no exceptions",
            ),
        ] {
            let error = Config::parse("c.toml", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\ndoes not say {expected}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn a_path_holds_for_what_lies_below_it_only() {
        assert!(is_below("a/b/c.rs", "a/b") && is_below("a/b", "a/b") && !is_below("a/bc", "a/b"));
    }
}
