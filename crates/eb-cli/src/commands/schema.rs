//! `eb schema`

use std::path::{Path, PathBuf};

use eb_schema::{Catalogue, Change, Comparison, Fault, Lock, Requirement, SchemaFiles, compare, write_lock};
use serde::Serialize;

use crate::args::schema::Schema as What;
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::{self, Ui};

/// Where schemas lie below a config folder.
const BELOW: &str = "schemas/events";
/// What the schemas that are compiled in are called.
const BUILT_IN: &str = "<built-in schemas>/events";
/// The most bytes of an earlier lock.
const MAX_LOCK_BYTES: u64 = 4 << 20;

pub(crate) fn run(ui: &mut Ui, what: What) -> Outcome {
    match what {
        What::List { dir } => list(ui, &read(dir)?),
        What::Check { dir, require, since } => check(ui, &read(dir)?, require.require, since.as_deref()),
        What::Diff { event_type, from, to, dir } => diff(ui, &read(dir)?, &event_type, [&from, &to]),
        What::Lock { dir, require } => lock(ui, dir, require.require),
    }
}

/// The folder that was named, or that lies here or above.
fn find(dir: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    if let Some(dir) = dir {
        if dir.is_dir() {
            return Ok(Some(dir));
        }
        let what = format!("{} is no folder", dir.display());
        return Err(
            Failure::failed("not_found", what).advise(format!("schemas usually lie in config/{BELOW}"))
        );
    }
    if let Some(config) = std::env::var_os(eb_profile::CONFIG_DIR).filter(|dir| !dir.is_empty()) {
        // Named on purpose: nothing else is taken instead.
        return find(Some(Path::new(&config).join(BELOW)));
    }
    let here = std::env::current_dir()
        .map_err(|e| Failure::failed("io", format!("the current folder cannot be told: {e}")))?;
    let found = here.ancestors().map(|folder| folder.join("config").join(BELOW)).find(|dir| dir.is_dir());
    Ok(found.map(|dir| dir.strip_prefix(&here).map(Path::to_owned).unwrap_or(dir)))
}

fn read(dir: Option<PathBuf>) -> Result<Catalogue, Failure> {
    Ok(match find(dir)? {
        Some(dir) => Catalogue::read(&dir),
        None => {
            let (lock, files) = eb_profile::built_in_schemas();
            let files = files.into_iter().map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
            Catalogue::new(SchemaFiles::from_memory(BUILT_IN, Some(lock.as_bytes().to_vec()), files))
        }
    })
}

fn list(ui: &mut Ui, catalogue: &Catalogue) -> Outcome {
    let listed = catalogue.list();
    if ui.is_json() {
        listed.iter().try_for_each(|version| ui.json(version))?;
    } else {
        let dash = || "-".to_owned();
        let rows: Vec<_> = listed
            .iter()
            .map(|v| {
                let kept = match (&v.previous, v.compatibility) {
                    (Some(previous), Some(level)) => format!("{} with {previous}", level.replace('_', " ")),
                    _ => dash(),
                };
                let state = match (v.released, &v.sha256) {
                    (true, None) => "released, gone",
                    (true, Some(_)) => "released",
                    (false, _) => "not released",
                };
                let digest = v.sha256.as_ref().map_or_else(dash, |d| d[..12].to_owned());
                let title = v.title.clone().unwrap_or_else(dash);
                vec![v.event_type.clone(), v.version.clone(), state.to_owned(), kept, digest, title]
            })
            .collect();
        ui.table(&["EVENT TYPE", "VERSION", "STATE", "COMPATIBILITY", "SHA-256", "TITLE"], &rows)?;
    }
    if listed.is_empty() {
        ui.note(&format!("no schemas in {}; the first is {0}/<event type>/<version>.json", catalogue.root()));
    }
    Ok(Exit::Done)
}

fn check(ui: &mut Ui, catalogue: &Catalogue, require: Requirement, since: Option<&Path>) -> Outcome {
    let mut faults = catalogue.check(require);
    if let Some(path) = since {
        faults.extend(lost(catalogue, path)?);
    }
    show_faults(ui, &faults)?;
    let (versions, types) = (catalogue.version_count(), catalogue.type_count());
    if faults.is_empty() {
        let json = Checked { versions, event_types: types, faults: 0 };
        ui.summary(
            &format!("eb: {}: {versions} versions of {types} event types are fine", catalogue.root()),
            &json,
        );
        return Ok(Exit::Done);
    }
    Err(failed(catalogue, faults.len()))
}

#[derive(Serialize)]
struct Checked {
    versions: usize,
    event_types: usize,
    faults: usize,
}

/// What an earlier lock had and this one has not.
fn lost(catalogue: &Catalogue, path: &Path) -> Result<Vec<Fault>, Failure> {
    use std::io::Read as _;
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(MAX_LOCK_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| Failure::failed("not_found", format!("{name}: cannot be read: {e}")))?;
    let earlier = Lock::parse(&name, &bytes).map_err(|fault| Failure::failed("schema", fault.to_string()))?;
    Ok(catalogue.lock().lost_since(&earlier, &format!("{}.lock", catalogue.root())))
}

fn show_faults(ui: &mut Ui, faults: &[Fault]) -> Result<(), Failure> {
    if ui.is_json() {
        return faults.iter().try_for_each(|fault| ui.json(fault));
    }
    faults.iter().try_for_each(|fault| ui.line(&ui::visible(&fault.to_string())))
}

fn failed(catalogue: &Catalogue, faults: usize) -> Failure {
    let faults_are = if faults == 1 { "1 fault".to_owned() } else { format!("{faults} faults") };
    Failure::failed("schema", format!("{}: {faults_are}", catalogue.root()))
        .advise("each line says what to do")
        .fact("faults", faults)
}

/// The first of what is wrong with one schema: the rest is for `check`.
fn unusable(faults: Vec<Fault>) -> Failure {
    let more = faults.len().saturating_sub(1);
    let Some(first) = faults.into_iter().next() else { return Failure::failed("schema", "no schema") };
    let failure = Failure::failed("schema", first.to_string()).fact("file", first.file);
    if more == 0 { failure } else { failure.advise(format!("{more} more: see `eb schema check`")) }
}

#[derive(Serialize)]
struct Diff<'d> {
    event_type: &'d str,
    from: &'d str,
    to: &'d str,
    compatibility: &'static str,
    #[serde(flatten)]
    comparison: &'d Comparison,
}

fn diff(ui: &mut Ui, catalogue: &Catalogue, event_type: &str, [from, to]: [&str; 2]) -> Outcome {
    let old = catalogue.get(event_type, from).map_err(unusable)?;
    let new = catalogue.get(event_type, to).map_err(unusable)?;
    let comparison = compare(old, new);
    if ui.is_json() {
        let compatibility = comparison.level();
        ui.json(&Diff { event_type, from, to, compatibility, comparison: &comparison })?;
        return Ok(Exit::Done);
    }
    let backward = comparison.backward.as_str();
    let forward = comparison.forward.as_str();
    ui.line(&format!("{event_type} {from} → {to}"))?;
    ui.line(&format!("backward compatible: {backward} (consumers on {to} reading events of {from})"))?;
    ui.line(&format!("forward compatible:  {forward} (consumers on {from} reading events of {to})"))?;
    for change in &comparison.changes {
        show_change(ui, change, from, to)?;
    }
    if comparison.changes.is_empty() {
        ui.line("nothing differs")?;
    }
    Ok(Exit::Done)
}

fn show_change(ui: &mut Ui, change: &Change, from: &str, to: &str) -> Result<(), Failure> {
    let place = if change.pointer.is_empty() { "(the whole schema)" } else { &change.pointer };
    let values = match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!(": {old} → {new}"),
        (Some(value), None) | (None, Some(value)) => format!(": {value}"),
        (None, None) => String::new(),
    };
    let remark =
        match (change.annotation, change.breaks_backward.is_empty() && change.breaks_forward.is_empty()) {
            (true, _) => " (annotation)",
            (false, true) => " (breaks nobody)",
            (false, false) => "",
        };
    ui.line("")?;
    ui.line(&ui::visible(&format!("{} {place}{values}{remark}", change.change.as_str())))?;
    let (b, f) = (&change.breaks_backward, &change.breaks_forward);
    let who = [
        (format!("consumers on {to}, events of {from}"), b),
        (format!("consumers on {from}, events of {to}"), f),
    ];
    for (who, findings) in who {
        for finding in findings {
            let verb = if finding.certain { "breaks" } else { "may break" };
            let place = if finding.pointer == change.pointer {
                String::new()
            } else {
                format!(" at {}", finding.pointer)
            };
            ui.line(&ui::visible(&format!("  {verb} {who}{place}: {} [{}]", finding.message, finding.rule)))?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Locked<'l> {
    event_type: &'l str,
    version: &'l str,
    lock: String,
}

fn lock(ui: &mut Ui, dir: Option<PathBuf>, require: Requirement) -> Outcome {
    let Some(dir) = find(dir)? else {
        return Err(Failure::failed(
            "not_found",
            format!("there is no config/{BELOW} here or in a folder above"),
        )
        .advise(format!("the first schema is config/{BELOW}/<event type>/<version>.json")));
    };
    let catalogue = Catalogue::read(&dir);
    let release = match catalogue.lock_new(require) {
        Ok(release) => release,
        Err(faults) => {
            show_faults(ui, &faults)?;
            return Err(
                failed(&catalogue, faults.len()).advise("nothing was released; each line says what to do")
            );
        }
    };
    if release.added.is_empty() {
        ui.note("everything is released already");
        return Ok(Exit::Done);
    }
    let path = format!("{}.lock", dir.display());
    write_lock(&dir, &release.lock)
        .map_err(|e| Failure::failed("io", format!("{path}: cannot be written: {e}")))?;
    for (event_type, version) in &release.added {
        if ui.is_json() {
            ui.json(&Locked { event_type, version: version.as_str(), lock: path.clone() })?;
        } else {
            ui.line(&format!("released {event_type} {version}"))?;
        }
    }
    Ok(Exit::Done)
}
