//! Reading YAML configuration: strict, within limits, with errors that name file, line and key.
//!
//! Unknown and duplicate keys are errors, aliases and nesting are bounded by the parser's budget, and one file is at
//! most [`MAX_BYTES`] long. The composition root reads its profiles with the same functions, so that all
//! configuration fails alike.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_saphyr::{Error as YamlError, Location, MessageFormatter, UserMessageFormatter};

/// The most bytes of one configuration file: 1 MiB.
pub const MAX_BYTES: usize = 1 << 20;

/// What is wrong with a configuration file. One line: `file:line:column: key: what; what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    file: String,
    place: Option<(u64, u64)>,
    key: Option<String>,
    message: String,
    suggestion: Option<String>,
}

impl ConfigError {
    /// An error in `file`, without a place.
    #[must_use]
    pub fn new(file: impl Into<String>, message: impl Into<String>) -> Self {
        let (file, message) = (file.into(), message.into());
        Self(Box::new(Inner { file, place: None, key: None, message, suggestion: None }))
    }

    /// With the place where it stands.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        if location != Location::UNKNOWN {
            self.0.place = Some((location.line(), location.column()));
        }
        self
    }

    /// With the key that it is about, as a dotted path.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.key = Some(key.into());
        self
    }

    /// With the nearest of `known` to what was `found`, if any is near, and else all of them.
    #[must_use]
    pub fn suggest<'k>(mut self, found: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        self.0.suggestion = match nearest(found, known.iter().copied()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if known.is_empty() => None,
            None => Some(format!("known are {}", known.join(", "))),
        };
        self
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.0.file
    }

    /// The 1-based line.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.0.place.map(|(line, _)| line)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { file, place, key, message, suggestion } = &*self.0;
        f.write_str(file)?;
        if let Some((line, column)) = place {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(key) = key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {message}")?;
        suggestion.as_ref().map_or(Ok(()), |s| write!(f, "; {s}"))
    }
}

impl std::error::Error for ConfigError {}

/// Reads one YAML document. `file` is the name to show in errors.
///
/// # Errors
/// [`ConfigError`], with line and key where the parser knows them.
pub fn parse<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T, ConfigError> {
    if bytes.len() > MAX_BYTES {
        let message = format!("{} bytes, a configuration file has at most {MAX_BYTES}", bytes.len());
        return Err(ConfigError::new(file, message));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| ConfigError::new(file, format!("not UTF-8 at byte {}", e.valid_up_to())))?;
    let options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| describe(file, text, e.without_snippet()))
}

fn describe(file: &str, text: &str, error: &YamlError) -> ConfigError {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let described = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            ConfigError::new(file, "unknown key").key(field).suggest(field, expected.iter().copied())
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            let found = ConfigError::new(file, format!("unknown value `{variant}`"))
                .suggest(variant, expected.iter().copied());
            match key_on_line(text, location) {
                Some(key) => found.key(key),
                None => found,
            }
        }
        YamlError::SerdeMissingField { field, .. } => ConfigError::new(file, "is required").key(*field),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            ConfigError::new(file, "stands more than once").key(key)
        }
        other => {
            let found = ConfigError::new(file, one_line(&UserMessageFormatter.format_message(other)));
            match key_on_line(text, location) {
                Some(key) => found.key(key),
                None => found,
            }
        }
    };
    described.at(location)
}

/// The key of the mapping entry on an error's line.
fn key_on_line(text: &str, location: Location) -> Option<String> {
    let index = usize::try_from(location.line()).ok()?.checked_sub(1)?;
    let line = text.lines().nth(index)?.trim_start().trim_start_matches("- ");
    let (key, _) = line.split_once(':')?;
    let plain = key.trim().trim_matches(['"', '\'']);
    let printable = !plain.is_empty() && plain.len() <= 128 && !plain.chars().any(char::is_control);
    printable.then(|| plain.to_owned())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The known word that a typing error may have turned into `wrong`.
///
/// Near is: at most a third of the longer word's characters inserted, deleted, replaced or swapped with their neighbour, or one the
/// beginning of the other (of three characters at least). Case does not count, and `-` is `_`.
#[must_use]
pub fn nearest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Known words are short; what is not, is no slip of one.
    if wrong.len() > 128 {
        return None;
    }
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    let scored = known.into_iter().filter_map(|k| {
        let plain = k.to_ascii_lowercase().replace('-', "_");
        let distance = strsim::damerau_levenshtein(&wrong, &plain);
        let longer = wrong.chars().count().max(plain.chars().count());
        let begins = wrong.len() >= 3 && (plain.starts_with(&wrong) || wrong.starts_with(&plain));
        (distance * 3 <= longer || begins).then_some((distance, k))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)]
        interval_seconds: u64,
        #[allow(dead_code)]
        mode: Mode,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        Strict,
        Batched,
    }

    fn error(text: &str) -> String {
        parse::<Sample>("a.yaml", text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_slip_in_a_key_is_named_with_line_and_the_nearest_known_key() {
        let text = error("mode: strict\nintervall_seconds: 1\n");
        assert_eq!(text, "a.yaml:2:1: intervall_seconds: unknown key; did you mean `interval_seconds`?");
        let far = error("mode: strict\nzzz: 1\n");
        assert_eq!(far, "a.yaml:2:1: zzz: unknown key; known are interval_seconds, mode");
    }

    #[test]
    fn wrong_values_name_their_key_and_line() {
        let text = error("mode: strict\ninterval_seconds: soon\n");
        assert!(text.starts_with("a.yaml:2:19: interval_seconds: "), "{text}");
        let text = error("interval_seconds: 1\nmode: strickt\n");
        assert_eq!(text, "a.yaml:2:7: mode: unknown value `strickt`; did you mean `strict`?");
    }

    #[test]
    fn missing_and_doubled_keys_are_errors() {
        assert!(error("mode: strict\n").ends_with("interval_seconds: is required"));
        let text = error("mode: strict\nmode: strict\ninterval_seconds: 1\n");
        assert!(text.starts_with("a.yaml:2:1: mode: stands more than once"), "{text}");
    }

    #[test]
    fn what_is_no_yaml_is_one_line_with_its_place() {
        for bad in ["mode: [", "\tmode: x", "a: b: c", ""] {
            let text = error(bad);
            assert!(text.starts_with("a.yaml"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        assert!(parse::<Sample>("a.yaml", b"\xff").unwrap_err().to_string().contains("not UTF-8 at byte 0"));
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            let items = vec![format!("*a{}", i - 1); 10].join(",");
            text.push_str(&format!("a{i}: &a{i} [{items}]\n"));
        }
        assert!(parse::<serde_json::Value>("a.yaml", text.as_bytes()).is_err());
    }

    const KNOWN: &[&str] =
        &["event_bus_kind", "event_bus", "checkpoint_store", "admission_index", "quarantine"];

    #[test]
    fn typing_errors_are_recognised_and_strangers_are_not() {
        let cases = [
            ("event_bus_knd", Some("event_bus_kind")),
            ("event-bus", Some("event_bus")),
            ("EventBus", Some("event_bus")),
            ("checkpoints_store", Some("checkpoint_store")),
            ("admision_indx", Some("admission_index")),
            ("quarantien", Some("quarantine")),
            ("checkpoint", Some("checkpoint_store")),
            ("kafka", None),
            ("x", None),
            ("", None),
        ];
        for (wrong, expected) in cases {
            assert_eq!(nearest(wrong, KNOWN.iter().copied()), expected, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_known_word_with_one_slip_finds_itself(which in 0..KNOWN.len(), at in 0usize..9, c in "[a-z]") {
            let word = KNOWN[which];
            let mut slipped = word.to_owned();
            slipped.replace_range(at..=at, &c);
            prop_assert_eq!(nearest(&slipped, KNOWN.iter().copied()), Some(word));
        }

        #[test]
        fn no_word_panics(wrong in "\\PC{0,200}") {
            let _ = nearest(&wrong, KNOWN.iter().copied());
        }
    }
}
