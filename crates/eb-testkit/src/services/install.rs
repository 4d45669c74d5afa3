//! What servers need, installed once and shared: a folder that is complete when its `complete` file is there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{During, Result, ServiceError, folder};

/// Installs `name` by `work` unless it is complete; several processes may ask at once. Gives back its folder.
pub(crate) fn once(name: &str, work: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let all = folder::root().join("installed");
    fs::create_dir_all(&all).during(|| format!("make {}", all.display()))?;
    let target = all.join(name);
    let complete = target.join("complete");
    if complete.exists() {
        return Ok(target);
    }
    let lock = all.join(format!("{name}.lock"));
    let lock = File::create(&lock).during(|| format!("open {}", lock.display()))?;
    lock.lock().during(|| format!("wait for another installation of {name}"))?;
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
    run(&mut command, NODE)?;
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
}
