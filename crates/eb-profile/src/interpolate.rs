//! `${VAR}` and `${VAR:-default}` in any value.
//!
//! - `${VAR}` is the variable's text, also when that is empty; a variable that is not set is an error that names it.
//! - `${VAR:-default}` is the default where the variable is not set or empty. The default reaches to the next `}` and is
//!   taken as it stands: it holds no further `${`.
//! - `$${` is a literal `${`. Any other `$` is itself.
//! - What a variable holds is not looked at again: a `${` in it stays what it is.
//! - A name is `[A-Za-z_][A-Za-z0-9_]*`. The result has at most 4,096 bytes.
//!
//! A variable whose name says that it holds a secret (`…PASSWORD…`, `…SECRET…`, `…TOKEN…`, `…CREDENTIAL…`, `…_KEY`) makes the whole value
//! one: it is masked wherever it would be shown.

use std::collections::HashMap;
use std::env;

/// The most bytes that a value may have once its variables are replaced.
pub const MAX_EXPANDED_BYTES: usize = 4096;

/// Where variables come from: the process's environment, or a map of one's own for tests and embedding programs.
#[derive(Debug, Clone, Default)]
pub struct Env(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    Process,
    Map(HashMap<String, String>),
}

/// Names only: what they hold may be secret.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process => f.write_str("Process"),
            Self::Map(map) => f.debug_set().entries(map.keys()).finish(),
        }
    }
}

impl Env {
    /// The environment of the process.
    #[must_use]
    pub fn process() -> Self {
        Self(Source::Process)
    }

    /// These variables and no others.
    #[must_use]
    pub fn only<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(Source::Map(variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect()))
    }

    /// A variable's text; `None` when it is not set.
    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, NotUnicode> {
        match &self.0 {
            Source::Map(map) => Ok(map.get(name).cloned()),
            Source::Process => match env::var(name) {
                Ok(text) => Ok(Some(text)),
                Err(env::VarError::NotPresent) => Ok(None),
                Err(env::VarError::NotUnicode(_)) => Err(NotUnicode),
            },
        }
    }
}

/// A variable that holds something else than UTF-8.
#[derive(Debug)]
pub(crate) struct NotUnicode;

/// A value with its variables replaced.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// In the order in which they stand, each once.
    pub(crate) variables: Vec<VariableUse>,
    /// A variable in it is a secret by its name.
    pub(crate) secret: bool,
}

/// A variable in a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableUse {
    /// Its name.
    pub name: String,
    /// Whether its text was used; otherwise the default was.
    pub set: bool,
}

/// What is wrong with a value's variables. Never quotes what a variable holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The 0-based character of the raw value where it is.
    pub(crate) at: usize,
    pub(crate) message: String,
    pub(crate) advice: Option<String>,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), advice: None }
    }

    fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Replaces the variables in `raw`.
pub(crate) fn expand(raw: &str, env: &Env) -> Result<Expanded, Fault> {
    let mut out = Expanded::default();
    let mut rest = raw;
    while let Some(dollar) = rest.find('$') {
        let (before, from) = rest.split_at(dollar);
        out.text.push_str(before);
        let at = raw[..raw.len() - from.len()].chars().count();
        rest = if let Some(after) = from.strip_prefix("$${") {
            out.text.push_str("${");
            after
        } else if let Some(inner) = from.strip_prefix("${") {
            let Some(end) = inner.find('}') else {
                return Err(Fault::new(at, "`${` without its `}`").advise("write `$${` for a literal `${`"));
            };
            variable(&inner[..end], at, env, &mut out)?;
            &inner[end + 1..]
        } else {
            out.text.push('$');
            &from[1..]
        };
        check_size(&out.text, at)?;
    }
    out.text.push_str(rest);
    check_size(&out.text, 0)?;
    Ok(out)
}

fn check_size(text: &str, at: usize) -> Result<(), Fault> {
    if text.len() > MAX_EXPANDED_BYTES {
        return Err(Fault::new(
            at,
            format!("longer than {MAX_EXPANDED_BYTES} bytes with its variables replaced"),
        ));
    }
    Ok(())
}

fn variable(inside: &str, at: usize, env: &Env, out: &mut Expanded) -> Result<(), Fault> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        let shown: String = name.chars().take(64).collect();
        return Err(Fault::new(at, format!("`{shown}` is no variable name"))
            .advise("write `${NAME}` or `${NAME:-default}`, or `$${` for a literal `${`"));
    }
    if default.is_some_and(|d| d.contains("${")) {
        return Err(Fault::new(at, format!("a variable within the default of ${{{name}}}")));
    }
    let held = env.get(name).map_err(|NotUnicode| {
        Fault::new(at, format!("the variable {name} holds something else than UTF-8"))
    })?;
    let (text, set) = match (held, default) {
        (Some(text), None) => (text, true),
        (Some(text), Some(_)) if !text.is_empty() => (text, true),
        (_, Some(default)) => (default.to_owned(), false),
        (None, None) => {
            return Err(Fault::new(at, format!("the environment variable {name} is not set"))
                .advise(format!("set it, or write ${{{name}:-default}}")));
        }
    };
    out.text.push_str(&text);
    out.secret |= set && names_a_secret(name);
    if !out.variables.iter().any(|v| v.name == name) {
        out.variables.push(VariableUse { name: name.to_owned(), set });
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "CREDENTIAL"].iter().any(|part| name.contains(part))
        || name.ends_with("_KEY")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env() -> Env {
        Env::only([("A", "one"), ("EMPTY", ""), ("SNEAKY", "${A}"), ("DB_PASSWORD", "hunter2")])
    }

    fn text(raw: &str) -> String {
        expand(raw, &env()).map_or_else(|f| format!("{}@{}", f.message, f.at), |e| e.text)
    }

    #[test]
    fn variables_and_defaults_are_replaced() {
        assert_eq!(text("x/${A}/y/${A}"), "x/one/y/one");
        assert_eq!(text("${MISSING:-runs/x}/z"), "runs/x/z");
        assert_eq!(text("${EMPTY:-full}|${EMPTY}|${MISSING:-}"), "full||");
        assert_eq!(text("a$b$$c$"), "a$b$$c$");
        assert_eq!(text("$${A} and $$${A}"), "${A} and $${A}");
        assert_eq!(text("${SNEAKY}"), "${A}", "what a variable holds is not looked at again");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_character() {
        assert_eq!(text("ä${MISSING}"), "the environment variable MISSING is not set@1");
        assert_eq!(text("x${A"), "`${` without its `}`@1");
        assert!(text("${}").contains("is no variable name"));
        assert!(text("${1A:-x}").contains("is no variable name"));
        assert!(text("${A:-${B}}").contains("within the default of ${A}"));
        assert!(text(&"${A}".repeat(2000)).contains("longer than 4096"));
        assert!(text(&"x".repeat(5000)).contains("longer than 4096"));
    }

    #[test]
    fn a_variable_that_is_secret_by_its_name_makes_the_value_one() {
        let expanded = expand("postgres://u:${DB_PASSWORD}@h/${A}", &env()).unwrap();
        assert!(expanded.secret);
        assert_eq!(expanded.variables.len(), 2);
        assert!(
            !expand("${DB_TOKEN:-none}", &env()).unwrap().secret,
            "the default stands in the file anyway"
        );
        assert!(!format!("{:?}", env()).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn text_without_variables_is_itself(raw in "[^$]{0,200}") {
            prop_assert_eq!(expand(&raw, &env()).unwrap().text, raw);
        }

        #[test]
        fn escaping_every_dollar_brace_gives_the_text_back(raw in "[a${}:-]{0,60}") {
            // A `$` right before an escaped `${` would take part in it, so such texts are left out.
            prop_assume!(!raw.contains("$${"));
            prop_assert_eq!(expand(&raw.replace("${", "$${"), &env()).unwrap().text, raw);
        }

        #[test]
        fn any_value_of_a_variable_is_taken_as_it_stands(value in "\\PC{1,100}") {
            let env = Env::only([("V", value.clone())]);
            prop_assert_eq!(expand("<${V}|${V:-d}>", &env).unwrap().text, format!("<{value}|{value}>"));
        }

        #[test]
        fn no_text_panics(raw in "[a${}:A_-]{0,80}") {
            let _ = expand(&raw, &env());
        }
    }
}
