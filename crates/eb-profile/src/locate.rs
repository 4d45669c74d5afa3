//! Finding a profile, and the files that it refers to.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::builtin;
use crate::error::ProfileError;
use crate::interpolate::Env;
use crate::yaml;

/// The environment variable that names the config folder.
pub const CONFIG_DIR: &str = "EB_CONFIG_DIR";

/// The most bytes of a file that a profile refers to.
const MAX_REFERRED_BYTES: u64 = 4 << 20;

/// Where a profile was read from, and what its paths are relative to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileSource {
    kind: Kind,
    /// Policy files lie below it; `None` for the built-in ones.
    config_root: Option<PathBuf>,
    /// Relative data paths start here; absolute.
    base: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    File(PathBuf),
    BuiltIn(&'static str),
}

impl ProfileSource {
    /// A profile in this file.
    ///
    /// The config root is two folders above one that is named `platform/profiles`, and else the file's own folder.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>, base: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let config_root = if folder.ends_with("platform/profiles") {
            folder.ancestors().nth(2).map(Path::to_owned)
        } else {
            Some(folder)
        };
        Self { kind: Kind::File(path), config_root, base: base.into() }
    }

    /// The profile `local` that is compiled into the program.
    #[must_use]
    pub fn built_in(base: impl Into<PathBuf>) -> Self {
        Self::built_in_as(builtin::LOCAL, base)
    }

    fn built_in_as(name: &'static str, base: impl Into<PathBuf>) -> Self {
        Self { kind: Kind::BuiltIn(name), config_root: None, base: base.into() }
    }

    /// What errors and listings call it: the path, or `<built-in local>`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::File(path) => path.display().to_string(),
            Kind::BuiltIn(name) => format!("<built-in {name}>"),
        }
    }

    /// Whether it is one that is compiled into the program.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        matches!(self.kind, Kind::BuiltIn(_))
    }

    /// The folder that policy files are taken from; `None` for the built-in ones.
    #[must_use]
    pub fn config_root(&self) -> Option<&Path> {
        self.config_root.as_deref()
    }

    /// The folder that relative data paths start at.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Reads a file below the config root: what to call it, and its bytes.
    ///
    /// # Errors
    /// In words: what could not be read and why.
    pub(crate) fn read(&self, reference: &str) -> Result<(String, Vec<u8>), String> {
        match &self.config_root {
            Some(root) => {
                let path = root.join(reference);
                let bytes = read_bounded(&path, MAX_REFERRED_BYTES)?;
                Ok((path.display().to_string(), bytes))
            }
            None => match builtin::file(reference) {
                Some(text) => Ok((format!("<built-in {reference}>"), text.as_bytes().to_vec())),
                None => Err(format!("there is no built-in {reference}")),
            },
        }
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let cannot = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.is_dir() {
        return Err(format!("{} is a folder", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limit {
        return Err(format!("{} has more than {limit} bytes", path.display()));
    }
    Ok(bytes)
}

/// Finds a profile and reads its text.
pub(crate) fn find(name_or_path: &str, env: &Env) -> Result<(ProfileSource, String), ProfileError> {
    let cwd = std::env::current_dir()
        .map_err(|e| ProfileError::new(".", format!("the current folder cannot be told: {e}")))?;
    if looks_like_path(name_or_path) {
        let source = ProfileSource::file(name_or_path, cwd);
        let text = read_text(Path::new(name_or_path))?;
        return Ok((source, text));
    }
    let is_name = !name_or_path.is_empty()
        && name_or_path.len() <= 64
        && name_or_path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !name_or_path.starts_with('.');
    if !is_name {
        let shown: String = name_or_path.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(ProfileError::new(&shown, "neither a profile's name nor a path")
            .advise("a name is 1 to 64 of A-Z a-z 0-9 . _ -; a path holds a / or ends in .yaml"));
    }
    by_name(name_or_path, &cwd, env)
}

fn looks_like_path(text: &str) -> bool {
    text.contains(['/', '\\']) || text.ends_with(".yaml") || text.ends_with(".yml")
}

fn by_name(name: &str, cwd: &Path, env: &Env) -> Result<(ProfileSource, String), ProfileError> {
    let below = Path::new("platform/profiles").join(format!("{name}.yaml"));
    let config_dir = env
        .get(CONFIG_DIR)
        .map_err(|_| ProfileError::new(CONFIG_DIR, "it holds something else than UTF-8"))?
        .filter(|dir| !dir.is_empty());
    if let Some(dir) = config_dir {
        // Named on purpose: nothing else is taken instead.
        let path = Path::new(&dir).join(below);
        let text = read_text(&path)?;
        return Ok((ProfileSource::file(path, cwd), text));
    }
    for folder in cwd.ancestors() {
        let path = folder.join("config").join(&below);
        if path.is_file() {
            let shown = path.strip_prefix(cwd).map(Path::to_owned).unwrap_or(path);
            let text = read_text(&shown)?;
            return Ok((ProfileSource::file(shown, folder), text));
        }
    }
    if let Some((name, text)) = builtin::profile(name) {
        return Ok((ProfileSource::built_in_as(name, cwd), text.to_owned()));
    }
    let wanted = Path::new("config").join(below);
    Err(ProfileError::new(
        name,
        format!("no such profile: there is no {} here or in a folder above", wanted.display()),
    )
    .advise(format!(
        "give a path, set {CONFIG_DIR}, or use one that is built in: {}",
        builtin::names().collect::<Vec<_>>().join(", ")
    )))
}

fn read_text(path: &Path) -> Result<String, ProfileError> {
    let name = path.display().to_string();
    let bytes = read_bounded(path, yaml::MAX_BYTES as u64).map_err(|what| ProfileError::new(&name, what))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        ProfileError::new(&name, format!("not UTF-8 at byte {at}"))
    })
}
