//! What servers need, installed once and shared: a folder that is complete when its `complete` file is there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{During, Result, ServiceError, folder};

/// Before a download is tried again. Registries and mirrors have bad moments, and seldom bad minutes.
const PAUSES: [Duration; 3] = [Duration::from_secs(3), Duration::from_secs(15), Duration::from_secs(45)];

/// Installs `name` by `work` unless it is complete; several processes may ask at once. Gives back its folder.
pub(crate) fn once(name: &str, work: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let all = folder::root().join("installed");
    let target = all.join(name);
    let complete = target.join("complete");
    if complete.exists() {
        return Ok(target);
    }
    let _alone = alone(&all, name)?;
    if complete.exists() {
        return Ok(target);
    }
    // What is there is an attempt that did not come to its end.
    folder::remove(&target)?;
    fs::create_dir_all(&target).during(|| format!("make {}", target.display()))?;
    eprintln!("services: installing {name} (once)");
    work(&target)?;
    fs::write(&complete, "").during(|| format!("write {}", complete.display()))?;
    Ok(target)
}

/// Waits until nobody else installs this. The answer is to be kept until the installation is over.
fn alone(folder: &Path, name: &str) -> Result<File> {
    fs::create_dir_all(folder).during(|| format!("make {}", folder.display()))?;
    let lock = folder.join(format!("{name}.lock"));
    let lock = File::create(&lock).during(|| format!("open {}", lock.display()))?;
    lock.lock().during(|| format!("wait for another installation of {name}"))?;
    Ok(lock)
}

/// A Debian package, for what is found on the machine as a rule.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// Variables for its installation.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    /// What is said where it is missing, and what to do then.
    pub(crate) missing: &'static str,
    pub(crate) advice: &'static str,
}

/// What `find` finds; where it finds nothing, the package is installed first, if this process may.
///
/// # Errors
/// What is missing, with the advice, where nothing can be installed from here; and what apt said.
pub(crate) fn found_or_by_apt<T>(find: impl Fn() -> Option<T>, package: &Package) -> Result<T> {
    let Package { name, environment, missing, advice } = package;
    if let Some(found) = find() {
        return Ok(found);
    }
    if !folder::is_root() || !Path::new("/usr/bin/apt-get").exists() {
        return Err(ServiceError::new(format!("{missing}; {advice}")));
    }
    // One at a time: apt does not wait for another one that fetches its lists.
    let _alone = alone(&folder::root().join("installed"), "apt")?;
    if let Some(found) = find() {
        return Ok(found);
    }
    eprintln!("services: installing the Debian package {name}");
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").envs(environment.iter().copied());
        apt.args(["-q", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=600"]).args(args);
        download(&mut apt, advice)
    };
    apt(&["update"])?;
    apt(&["install", "-y", "--no-install-recommends", name])?;
    find().ok_or_else(|| ServiceError::new(format!("apt installed {name}, but {missing}; {advice}")))
}

/// Runs a step of an installation that fetches something, again after a pause if it fails.
pub(crate) fn download(command: &mut Command, advice: &str) -> Result<()> {
    again(command, advice, &PAUSES)
}

fn again(command: &mut Command, advice: &str, pauses: &[Duration]) -> Result<()> {
    for pause in pauses {
        match run(command, advice) {
            Ok(()) => return Ok(()),
            // What is not there will not be there later.
            Err(e) if which(command).is_none() => return Err(e),
            Err(e) => eprintln!("services: {e}; trying again in {} s", pause.as_secs()),
        }
        std::thread::sleep(*pause);
    }
    let tries = pauses.len() + 1;
    run(command, advice).map_err(|e| ServiceError::new(format!("{e} (tried {tries} times)")))
}

/// Where the program of a command lies.
fn which(command: &Command) -> Option<PathBuf> {
    let program = Path::new(command.get_program());
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An absolute path replaces the folder that it is joined to.
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Runs a step of an installation to its end.
pub(crate) fn run(command: &mut Command, advice: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.output().map_err(|e| ServiceError::new(format!("cannot run {program}: {e}; {advice}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let end = lines[lines.len().saturating_sub(5)..].join(" | ");
    Err(ServiceError::new(format!("{program} failed with {}: {end}; {advice}", output.status)))
}

const NODE: &str = "Node 18 or newer with npm is needed, and the npm registry";

/// Makes sure that there is a Node to run an engine with: LocalStack would wait for a minute for one that cannot start.
pub(crate) fn need_node() -> Result<()> {
    run(Command::new("node").arg("--version"), NODE)
}

/// An npm package of an exact version under `prefix`. Gives back the package's folder.
pub(crate) fn npm(prefix: &Path, package: &str, version: &str) -> Result<PathBuf> {
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--save-exact", "--prefix"]);
    command.arg(prefix).arg(format!("{package}@{version}"));
    download(&mut command, NODE)?;
    Ok(prefix.join("node_modules").join(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_says_what_it_said_and_what_to_do() {
        let failed = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]), "install it");
        let text = failed.unwrap_err().to_string();
        assert!(text.contains("no such thing") && text.ends_with("install it"), "{text}");
        let missing = run(&mut Command::new("eb-no-such-program"), "install it");
        assert!(missing.unwrap_err().to_string().ends_with("install it"));
    }

    #[test]
    fn a_download_that_fails_at_first_is_tried_again_and_one_that_never_works_says_how_often() {
        let folder = tempfile::tempdir().unwrap();
        let mut third = Command::new("sh");
        third.args(["-c", "echo x >> tries; [ $(wc -l < tries) = 3 ]"]).current_dir(folder.path());
        again(&mut third, "wait", &[Duration::ZERO; 2]).unwrap();
        let never = again(&mut third, "wait", &[Duration::ZERO; 2]).unwrap_err().to_string();
        assert!(never.ends_with("wait (tried 3 times)"), "{never}");
        assert_eq!(fs::read_to_string(folder.path().join("tries")).unwrap().lines().count(), 6);
    }

    #[test]
    fn a_program_that_is_not_there_is_not_tried_again() {
        let missing = again(&mut Command::new("eb-no-such-program"), "install it", &[Duration::MAX]);
        assert!(missing.unwrap_err().to_string().ends_with("install it"));
    }
}
