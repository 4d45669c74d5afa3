//! A repository, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use eb_schema::{Catalogue, Requirement};

use crate::config::{self, Config, is_below};
use crate::event_type::{self, Verbs};
use crate::manifest::Manifest;
use crate::rust::{self, Surroundings, is_bus_crate};
use crate::tree::{self, Packages, Tree};
use crate::violation::{At, CharterError, Rule, Violation};
use crate::yaml;

/// Enough for the deepest source within the limits; it is only reserved.
const STACK_BYTES: usize = 256 << 20;
const DEFAULT_SCHEMAS: &str = "config/schemas/events";
const DEFAULT_YAML: &str = "config";

/// What is to be checked, and by which exceptions.
#[derive(Debug, Clone)]
pub struct Charter {
    /// What paths are told from.
    root: PathBuf,
    /// What is looked at, below the root.
    start: String,
    config: Config,
    config_name: String,
    config_text: String,
    verbs: Verbs,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many files were looked into.
    pub files: usize,
    /// What breaks the charter, by file and place.
    pub violations: Vec<Violation>,
}

impl Charter {
    /// For a folder or file, with the `charter.toml` of that folder or the nearest one above; without one, by the rules alone.
    ///
    /// # Errors
    /// [`CharterError`] for a path that is not there and a configuration that is wrong.
    pub fn find(path: &Path) -> Result<Self, CharterError> {
        let path = canonical(path)?;
        let folder = tree::folder_of(&path);
        let root = folder.ancestors().find(|folder| folder.join(config::FILE).is_file());
        match root {
            Some(root) => {
                let config = root.join(config::FILE);
                Self::new(root.to_owned(), &path, Some(&config))
            }
            None => Self::new(folder, &path, None),
        }
    }

    /// For a folder or file, with this configuration file. Its paths are taken from the folder.
    ///
    /// # Errors
    /// [`CharterError`] for a path that is not there and a configuration that is wrong.
    pub fn read(path: &Path, config: &Path) -> Result<Self, CharterError> {
        let path = canonical(path)?;
        Self::new(tree::folder_of(&path), &path, Some(config))
    }

    fn new(root: PathBuf, path: &Path, config: Option<&Path>) -> Result<Self, CharterError> {
        let start = tree::relative(&root, path)
            .ok_or_else(|| CharterError(format!("{}: not a path of UTF-8", path.display())))?;
        let (config_name, config_text) = match config {
            Some(file) => {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let text = std::fs::read_to_string(file)
                    .map_err(|e| CharterError(format!("{}: cannot be read: {e}", file.display())))?;
                if text.len() > config::MAX_BYTES {
                    return Err(CharterError(format!("{name}: more than {} bytes", config::MAX_BYTES)));
                }
                (name, text)
            }
            None => (config::FILE.to_owned(), String::new()),
        };
        let config = Config::parse(&config_name, &config_text)?;
        if let Some(require) = &config.schemas.require {
            require.get_ref().parse::<Requirement>().map_err(|e| {
                let At { line, column } = At::byte(&config_text, require.span().start);
                CharterError(format!("{config_name}:{line}:{column}: schemas.require is {e}"))
            })?;
        }
        let mut verbs = Verbs::built_in();
        for file in &config.event_types.exceptions {
            let path = root.join(file.get_ref());
            // That it is not there is told with the other paths.
            if let Ok(text) = std::fs::read_to_string(&path) {
                verbs.extend(&text).map_err(|(line, word)| {
                    CharterError(format!("{}:{line}: {word:?} is no word of a-z", file.get_ref()))
                })?;
            }
        }
        Ok(Self { root, start, config, config_name, config_text, verbs })
    }

    /// Checks it all. Changes nothing.
    ///
    /// # Errors
    /// [`CharterError`] where the folder cannot be listed. What is wrong with a file is a violation.
    pub fn check(&self) -> Result<Report, CharterError> {
        std::thread::scope(|scope| {
            let run = || self.run();
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run);
            let thread = thread.map_err(|e| CharterError(format!("cannot start: {e}")))?;
            thread
                .join()
                .map_err(|_| CharterError("the check itself has failed; please report it".to_owned()))?
        })
    }

    fn run(&self) -> Result<Report, CharterError> {
        let tree = Tree::list(&self.root, &self.start, &self.config)?;
        let mut violations = self.missing_paths();
        let packages = self.packages(&tree, &mut violations);
        let mut files = tree.manifests.len();
        let mut test_files = BTreeSet::new();
        for file in &tree.rust {
            files += 1;
            self.rust(file, &packages, &mut test_files, &mut violations);
        }
        // A module of tests says so in its parent, which may be read later.
        for violation in &mut violations {
            violation.in_test |= test_files.iter().any(|module: &String| {
                violation.file == format!("{module}.rs") || is_below(&violation.file, module)
            });
        }
        for file in &tree.yaml {
            files += usize::from(self.yaml(file, &mut violations));
        }
        for folder in self.schema_folders() {
            files += self.schemas(&folder, &mut violations);
        }
        violations.retain(|v| !self.config.allows(v.rule, &v.file, v.in_test));
        violations.sort();
        violations.dedup();
        Ok(Report { files, violations })
    }

    fn missing_paths(&self) -> Vec<Violation> {
        let gone = self.config.paths().filter(|path| !self.root.join(path.get_ref()).exists());
        gone.map(|path| {
            let at = At::byte(&self.config_text, path.span().start);
            let what = format!("{} is not there", path.get_ref());
            Violation::new(
                &self.config_name,
                at,
                Rule::CharterConfig,
                what,
                "an exception for what is gone goes, too",
            )
        })
        .collect()
    }

    /// Every package below, and the one around.
    fn packages(&self, tree: &Tree, violations: &mut Vec<Violation>) -> Packages<Manifest> {
        let mut manifests = BTreeMap::new();
        let mut renamed = BTreeMap::new();
        // A folder or file within a package, and the workspace around it.
        let above = Path::new(&self.start).ancestors().skip(1).filter_map(Path::to_str);
        let above =
            above.map(|f| if f.is_empty() { "Cargo.toml".to_owned() } else { format!("{f}/Cargo.toml") });
        let above: Vec<_> = above.filter(|file| self.root.join(file).is_file()).collect();
        for file in above.iter().chain(&tree.manifests) {
            let parsed = tree::read(&self.root, file).and_then(|text| {
                Manifest::parse(&text).map_err(|(at, what)| {
                    Violation::new(
                        file,
                        at,
                        Rule::Unreadable,
                        format!("not a manifest: {what}"),
                        "mend it, or leave it out with [[skip]] and a reason",
                    )
                })
            });
            match parsed {
                Ok(manifest) => {
                    renamed.extend(manifest.renamed.clone());
                    manifests.insert(file.clone(), manifest);
                }
                Err(violation) => violations.push(violation),
            }
        }
        let mut packages = Packages::new();
        for (file, mut manifest) in manifests {
            manifest.resolve(&renamed);
            self.backend_manifest(&file, &manifest, violations);
            if manifest.name.is_some() {
                let folder = file.strip_suffix("Cargo.toml").unwrap_or(&file).trim_end_matches('/');
                packages.add(folder, manifest);
            }
        }
        packages
    }

    fn is_backend(&self, package: &str) -> bool {
        self.config.backends.crates.iter().any(|backend| backend == package)
    }

    fn backend_manifest(&self, file: &str, manifest: &Manifest, violations: &mut Vec<Violation>) {
        let Some(name) = manifest.name.as_deref().filter(|name| self.is_backend(name)) else { return };
        for dependency in
            manifest.dependencies.iter().filter(|d| d.package != name && self.is_backend(&d.package))
        {
            let what = format!("the backend {name} depends on the backend {}", dependency.package);
            let advice = "backends know eb-contract alone; what two of them share goes below both";
            let mut violation = Violation::new(file, dependency.at, Rule::BackendImport, what, advice);
            violation.in_test = dependency.dev;
            violations.push(violation);
        }
    }

    fn rust(
        &self,
        file: &str,
        packages: &Packages<Manifest>,
        test_files: &mut BTreeSet<String>,
        violations: &mut Vec<Violation>,
    ) {
        let text = match tree::read(&self.root, file) {
            Ok(text) => text,
            Err(violation) => return violations.push(violation),
        };
        let package = packages.of(file);
        let near_bus = package
            .is_some_and(|(p, _)| p.dependencies.iter().any(|d| is_bus_crate(&d.package.replace('-', "_"))));
        let in_test = package
            .and_then(|(_, below)| below.split_once('/'))
            .is_some_and(|(first, _)| matches!(first, "tests" | "benches" | "examples"));
        let forbidden = self.forbidden(package.map(|(p, _)| p));
        let around = Surroundings { near_bus, in_test, forbidden: &forbidden, verbs: &self.verbs };
        match rust::check(file, &text, around) {
            Ok(found) => {
                violations.extend(found.violations);
                let place = module_folder(file);
                test_files.extend(found.test_modules.iter().map(|name| format!("{place}{name}")));
            }
            Err((at, what)) => {
                let advice = "mend it, or leave it out with [[skip]] and a reason";
                violations.push(Violation::new(file, at, Rule::Unreadable, what, advice));
            }
        }
        // Places of tokens are kept for the thread's life otherwise; none is left here.
        proc_macro2::extra::invalidate_current_thread_spans();
    }

    /// What the source of a backend may not name.
    fn forbidden(&self, package: Option<&Manifest>) -> Vec<(String, String)> {
        let Some(manifest) = package else { return Vec::new() };
        let Some(name) = manifest.name.as_deref().filter(|name| self.is_backend(name)) else {
            return Vec::new();
        };
        let others = self.config.backends.crates.iter().filter(|other| *other != name);
        let mut names: Vec<_> = others.map(|other| (other.replace('-', "_"), other.clone())).collect();
        let renamed =
            manifest.dependencies.iter().filter(|d| d.package != name && self.is_backend(&d.package));
        names.extend(renamed.map(|d| (d.local.clone(), d.package.clone())));
        names
    }

    fn yaml(&self, file: &str, violations: &mut Vec<Violation>) -> bool {
        let folders = self.config.yaml.folders.as_ref();
        let within = match folders {
            Some(folders) => folders.iter().any(|folder| is_below(file, folder.get_ref())),
            None => is_below(file, DEFAULT_YAML),
        };
        if !within {
            return false;
        }
        let text = match tree::read(&self.root, file) {
            Ok(text) => text,
            Err(violation) => {
                violations.push(violation);
                return true;
            }
        };
        match yaml::event_types(&text) {
            Ok(found) => violations.extend(found.into_iter().filter_map(|(name, at)| {
                let what = self.verbs.fault(&name)?;
                Some(Violation::new(file, at, Rule::EventType, what, event_type::ADVICE))
            })),
            Err((at, what)) => {
                let advice = "mend it, or leave it out with [[skip]] and a reason";
                violations.push(Violation::new(file, at, Rule::Unreadable, what, advice));
            }
        }
        true
    }

    fn schema_folders(&self) -> Vec<String> {
        let folders = match &self.config.schemas.folders {
            Some(folders) => folders.iter().map(|f| f.get_ref().clone()).collect(),
            None => vec![DEFAULT_SCHEMAS.to_owned()],
        };
        let asked = |folder: &String| {
            self.start.is_empty() || is_below(folder, &self.start) || is_below(&self.start, folder)
        };
        folders
            .into_iter()
            .filter(|f| asked(f) && self.root.join(f).is_dir() && !self.config.skips(f))
            .collect()
    }

    fn schemas(&self, folder: &str, violations: &mut Vec<Violation>) -> usize {
        let catalogue = Catalogue::read(&self.root.join(folder));
        let require =
            self.config.schemas.require.as_ref().and_then(|r| r.get_ref().parse().ok()).unwrap_or_default();
        // Messages speak of paths below the root, as places do.
        let above = format!("{}/", self.root.display());
        for fault in catalogue.check(require) {
            let path = Path::new(&fault.file);
            let file = tree::relative(&self.root, path).unwrap_or_else(|| fault.file.clone());
            let at = At { line: fault.line.unwrap_or(1), column: 1 };
            let place =
                fault.pointer.filter(|p| !p.is_empty()).map(|p| format!("at {p}: ")).unwrap_or_default();
            let advice = fault.advice.unwrap_or_else(|| "see `eb schema check`".to_owned());
            violations.push(Violation::new(
                &file,
                at,
                Rule::ReleasedSchema,
                format!("{place}{}", fault.message.replace(&above, "")),
                advice,
            ));
        }
        for name in catalogue.event_types() {
            if let Some(what) = self.verbs.fault(name) {
                violations.push(Violation::new(
                    &format!("{folder}/{name}"),
                    At::START,
                    Rule::EventType,
                    what,
                    event_type::ADVICE,
                ));
            }
        }
        catalogue.version_count()
    }
}

/// Where the modules lie that a file declares, with a `/` at the end.
fn module_folder(file: &str) -> String {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    match name.strip_suffix(".rs").unwrap_or(name) {
        "mod" | "lib" | "main" => folder,
        stem => format!("{folder}{stem}/"),
    }
}

fn canonical(path: &Path) -> Result<PathBuf, CharterError> {
    path.canonicalize().map_err(|e| CharterError(format!("{}: cannot be read: {e}", path.display())))
}
