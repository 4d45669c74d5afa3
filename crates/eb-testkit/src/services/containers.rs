//! The services in containers: `docker-compose.localstack.yml`, by the engine's own compose command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::fleet::{Place, Running, Service};
use super::{During, Result, ServiceError, folder};

/// What is known of the container engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// It answers, and the compose command is there.
    Answers {
        /// Its version.
        version: String,
        /// The compose command.
        compose: Compose,
    },
    /// There is none to use, for this reason.
    Absent(String),
}

/// The compose command: `docker compose`, or the older `docker-compose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compose(&'static [&'static str]);

/// Asks the engine behind the `docker` command for its version, and looks for a compose command.
#[must_use]
pub fn engine() -> Engine {
    let asked = run(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]));
    let version = match asked {
        Err(e) => return Engine::Absent(format!("no docker command: {e}")),
        Ok(output) => match said(&output) {
            Ok(version) if !version.is_empty() => version,
            Ok(_) => return Engine::Absent("docker does not tell the version of its engine".to_owned()),
            Err(said) => return Engine::Absent(said),
        },
    };
    let known: [&'static [&'static str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    for words in known {
        let compose = Compose(words);
        if run(compose.command().arg("version")).is_ok_and(|output| output.status.success()) {
            return Engine::Answers { version, compose };
        }
    }
    Engine::Absent(format!(
        "docker {version} answers, but neither `docker compose` nor `docker-compose` is there"
    ))
}

impl Compose {
    fn command(&self) -> Command {
        let mut command = Command::new(self.0[0]);
        command.args(&self.0[1..]);
        command
    }

    fn on_file(&self) -> Command {
        let mut command = self.command();
        command.arg("--file").arg(file());
        command
    }

    /// Starts services and waits until they are healthy. `ports` are those asked for.
    ///
    /// # Errors
    /// What the engine says; and for a service that the compose file does not have.
    pub fn up(&self, services: &[(Service, Option<u16>)]) -> Result<Vec<Running>> {
        let mut command = self.on_file();
        let mut running = Vec::new();
        for (service, asked) in services {
            let variable = port_variable(*service).ok_or_else(|| {
                ServiceError::new(format!("{service} runs natively only; leave it out, or ask for --native"))
            })?;
            let port = match status().into_iter().find(|r| r.service == *service) {
                // It keeps the port it has.
                Some(up) => {
                    running.push(up.clone());
                    up.url
                        .trim_end_matches("/event_bus")
                        .rsplit_once(':')
                        .map_or("", |(_, port)| port)
                        .to_owned()
                }
                None => {
                    let port = service.port(*asked)?;
                    running.push(Running {
                        service: *service,
                        url: service.url(port),
                        place: Place::Container,
                    });
                    port.to_string()
                }
            };
            command.env(variable, port);
        }
        command.args(["up", "--detach", "--wait"]);
        command.args(services.iter().map(|(service, _)| service.as_str()));
        let text: String = running.iter().map(|r| format!("{}={}\n", r.service, r.url)).collect();
        let record = record();
        let folder = record.parent().unwrap_or(Path::new("."));
        // Written before: after a failure `down` has to find what was begun.
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&record, text))
            .during(|| format!("write {}", record.display()))?;
        self.must(&mut command, "start the containers")?;
        Ok(running)
    }

    /// Stops and removes the containers, with their data.
    ///
    /// # Errors
    /// What the engine says.
    pub fn down(&self) -> Result<()> {
        self.must(self.on_file().args(["down", "--volumes"]), "stop the containers")?;
        let record = record();
        match fs::remove_file(&record) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(ServiceError::new(format!("remove {}: {e}", record.display())))
            }
            _ => Ok(()),
        }
    }

    fn must(&self, command: &mut Command, what: &str) -> Result<String> {
        let output = run(command).during(|| what.to_owned())?;
        said(&output).map_err(|said| ServiceError::new(format!("{what} ({}): {said}", self.0.join(" "))))
    }
}

/// Whether containers were started and not stopped since.
#[must_use]
pub fn are_recorded() -> bool {
    record().exists()
}

/// The containers that run.
pub(crate) fn status() -> Vec<Running> {
    let Ok(text) = fs::read_to_string(record()) else { return Vec::new() };
    let Engine::Answers { compose, .. } = engine() else { return Vec::new() };
    let listing = run(compose.on_file().args(["ps", "--services", "--status", "running"]));
    let listing = listing.ok().and_then(|output| said(&output).ok()).unwrap_or_default();
    parse(&text)
        .into_iter()
        .filter(|r| listing.lines().any(|name| name.trim() == r.service.as_str()))
        .collect()
}

fn parse(text: &str) -> Vec<Running> {
    let line = |line: &str| {
        let (name, url) = line.split_once('=')?;
        Some(Running { service: Service::named(name)?, url: url.to_owned(), place: Place::Container })
    };
    text.lines().filter_map(line).collect()
}

/// The variable of the compose file that names a service's port.
fn port_variable(service: Service) -> Option<&'static str> {
    match service {
        Service::Postgres => Some("EB_POSTGRES_PORT"),
        Service::LocalStack => Some("EB_LOCALSTACK_PORT"),
        Service::Redis => Some("EB_REDIS_PORT"),
        Service::KinesisLocal => None,
    }
}

fn file() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).join("docker-compose.localstack.yml")
}

fn record() -> PathBuf {
    folder::root().join("up/containers")
}

fn run(command: &mut Command) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).output()
}

/// What a command that was to succeed has said: its output, or the last line of its complaint.
fn said(output: &Output) -> Result<String, String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(complaint.trim().lines().last().unwrap_or("no answer").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_containers_comes_back() {
        let url = Service::Postgres.url(6000);
        let running = parse(&format!("postgres={url}\nnonsense\n"));
        assert_eq!(running, [Running { service: Service::Postgres, url, place: Place::Container }]);
    }

    #[test]
    fn the_compose_file_has_every_service_that_can_run_in_a_container_and_the_address_fits() {
        let text = fs::read_to_string(file()).unwrap();
        for service in Service::ALL {
            let Some(variable) = port_variable(service) else { continue };
            assert!(text.contains(&format!("\n  {service}:\n")), "{service}");
            assert!(text.contains(&format!("${{{variable}:-{}}}", service.usual_port())), "{service}");
        }
        let url = Service::Postgres.url(5432);
        let (_, rest) = url.split_once("//").unwrap();
        let (user, rest) = rest.split_once(':').unwrap();
        let (password, rest) = rest.split_once('@').unwrap();
        let (_, database) = rest.split_once('/').unwrap();
        for (variable, value) in
            [("POSTGRES_USER", user), ("POSTGRES_PASSWORD", password), ("POSTGRES_DB", database)]
        {
            assert!(text.contains(&format!("\n      {variable}: {value}\n")), "{variable}");
        }
    }

    #[test]
    fn a_failure_is_told_by_its_last_line() {
        let output = run(Command::new("sh").args(["-c", "echo first >&2; echo last >&2; exit 1"])).unwrap();
        assert_eq!(said(&output), Err("last".to_owned()));
    }
}
