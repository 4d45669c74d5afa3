//! `cargo xtask deny`: licences, duplicate and forbidden dependencies, sources, by `deny.toml`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::Outcome;

const VERSION: &str = "0.20.2";

/// Checks the dependency rules, with a cargo-deny of our own version under `target/tools`.
pub(crate) fn run() -> Outcome {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tools = crate::workspace_root().join("target/tools");
    let tool: PathBuf = tools.join("bin").join(format!("cargo-deny{}", std::env::consts::EXE_SUFFIX));
    let version = Command::new(&tool).arg("--version").output();
    let installed = version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).trim().ends_with(VERSION));
    if !installed {
        eprintln!("installing cargo-deny {VERSION} into target/tools (some minutes, once)");
        // An unoptimised build takes half the time and the check takes a second either way.
        let status = Command::new(&cargo)
            .args(["install", "--quiet", "--locked", "--debug", "--root"])
            .arg(&tools)
            .arg(format!("cargo-deny@{VERSION}"))
            .env("CARGO_NET_RETRY", "10")
            .status()?;
        if !status.success() {
            return Err("cargo-deny could not be installed: see above".into());
        }
    }
    let status = Command::new(&tool)
        .args(["--log-level", "error", "check", "bans", "licenses", "sources"])
        .current_dir(crate::workspace_root())
        .status()?;
    if status.success() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err("a dependency breaks deny.toml: see above".into())
    }
}
