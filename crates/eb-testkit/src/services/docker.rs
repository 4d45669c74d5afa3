//! Whether a container engine answers, for `docker-compose.localstack.yml`.

use std::process::{Command, Stdio};

/// What is known of the container engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// It answers; its version.
    Answers(String),
    /// There is none to use, for this reason.
    Absent(String),
}

/// Asks the engine behind the `docker` command for its version.
#[must_use]
pub fn engine() -> Engine {
    let mut command = Command::new("docker");
    command.args(["version", "--format", "{{.Server.Version}}"]).stdin(Stdio::null());
    match command.output() {
        Err(e) => Engine::Absent(format!("no docker command: {e}")),
        Ok(output) => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if output.status.success() && !version.is_empty() {
                return Engine::Answers(version);
            }
            let said = String::from_utf8_lossy(&output.stderr);
            Engine::Absent(said.trim().lines().last().unwrap_or("no answer").to_owned())
        }
    }
}
