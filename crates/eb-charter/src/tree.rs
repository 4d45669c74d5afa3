//! The files of a repository.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::violation::{At, CharterError, Rule, Violation};

/// The most bytes of one file that is looked into.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most files and folders of a repository.
const MAX_ENTRIES: usize = 200_000;
/// The deepest folder.
const MAX_DEPTH: usize = 64;

/// What lies below a folder, by paths with `/`.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) rust: Vec<String>,
    pub(crate) manifests: Vec<String>,
    pub(crate) yaml: Vec<String>,
    seen: usize,
}

impl Tree {
    /// Lists a folder, or a single file. Hidden folders, `target`, `node_modules` and what the configuration skips are left out; symbolic
    /// links are not followed.
    pub(crate) fn list(root: &Path, start: &str, config: &Config) -> Result<Self, CharterError> {
        let mut tree = Self::default();
        let first = root.join(start);
        if first.is_file() {
            tree.take(start.to_owned());
        } else {
            tree.folder(root, start, config, 0)?;
        }
        Ok(tree)
    }

    fn folder(
        &mut self,
        root: &Path,
        below: &str,
        config: &Config,
        depth: usize,
    ) -> Result<(), CharterError> {
        let folder = root.join(below);
        let error = |what: String| CharterError(format!("{}: {what}", folder.display()));
        if depth > MAX_DEPTH {
            return Err(error(format!("more than {MAX_DEPTH} folders deep")));
        }
        let listed = fs::read_dir(&folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut entries = Vec::new();
        for entry in listed.map_err(|e| error(format!("cannot be read: {e}")))? {
            let kind = entry.file_type().map_err(|e| error(format!("cannot be read: {e}")))?;
            // Nothing of ours has a name that is not UTF-8; such a file can hold no module either.
            if let Ok(name) = entry.file_name().into_string() {
                entries.push((name, kind));
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in entries {
            self.seen += 1;
            if self.seen > MAX_ENTRIES {
                return Err(error(format!("more than {MAX_ENTRIES} files; `[[skip]]` leaves folders out")));
            }
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            if name.starts_with('.') || config.skips(&path) {
                continue;
            }
            if kind.is_dir() {
                if !matches!(name.as_str(), "target" | "node_modules") {
                    self.folder(root, &path, config, depth + 1)?;
                }
            } else if kind.is_file() {
                self.take(path);
            }
        }
        Ok(())
    }

    fn take(&mut self, path: String) {
        let name = path.rsplit('/').next().unwrap_or(&path);
        if name == "Cargo.toml" {
            self.manifests.push(path);
        } else if name.ends_with(".rs") {
            self.rust.push(path);
        } else if name.ends_with(".yaml") || name.ends_with(".yml") {
            self.yaml.push(path);
        }
    }
}

/// Reads a text file within the limit.
pub(crate) fn read(root: &Path, file: &str) -> Result<String, Violation> {
    let unreadable = |what: String| {
        Violation::new(
            file,
            At::START,
            Rule::Unreadable,
            what,
            "mend it, or leave it out with [[skip]] and a reason",
        )
    };
    let mut bytes = Vec::new();
    let opened = fs::File::open(root.join(file));
    opened
        .and_then(|f| f.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| unreadable(format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(format!("more than {MAX_FILE_BYTES} bytes")));
    }
    String::from_utf8(bytes)
        .map_err(|e| unreadable(format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to())))
}

/// The folders of packages, with what is known of each.
#[derive(Debug, Default)]
pub(crate) struct Packages<P> {
    by_folder: BTreeMap<String, P>,
}

impl<P> Packages<P> {
    pub(crate) fn new() -> Self {
        Self { by_folder: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, folder: &str, package: P) {
        self.by_folder.insert(folder.to_owned(), package);
    }

    /// The package that a file belongs to, and its path in there.
    pub(crate) fn of<'f>(&self, file: &'f str) -> Option<(&P, &'f str)> {
        let mut folder = file;
        loop {
            folder = match folder.rfind('/') {
                Some(end) => &folder[..end],
                None if folder.is_empty() => return None,
                None => "",
            };
            if let Some(package) = self.by_folder.get(folder) {
                return Some((package, file.strip_prefix(folder)?.trim_start_matches('/')));
            }
        }
    }
}

/// A path below the root, with `/`.
pub(crate) fn relative(root: &Path, path: &Path) -> Option<String> {
    let below = path.strip_prefix(root).ok()?;
    let parts: Option<Vec<_>> = below.components().map(|c| c.as_os_str().to_str()).collect();
    parts.map(|parts| parts.join("/"))
}

/// The folder of a path: itself, or where the file lies.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(path).to_owned() }
}
