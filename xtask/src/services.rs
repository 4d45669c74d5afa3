//! `cargo xtask services up | down | status`: Kinesis (LocalStack), Postgres and Redis for development, in containers where
//! an engine answers, else natively.
//!
//! `up` holds what it started until Ctrl-C, and stops it then; so does its end by any other way. `up --detach` leaves it
//! to `down`. A service that cannot be had is named with its reason, the others are kept, and the exit code tells.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use eb_testkit::services::containers::{self, Compose, Engine};
use eb_testkit::services::fleet::{self, Held, Running, Service};

use crate::Outcome;
use crate::signals::Signals;

/// How often a held server is looked after.
const LOOK: Duration = Duration::from_millis(500);

/// What to do with the services.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start services, empty, and hold them until Ctrl-C
    Up(Up),
    /// Stop services, with their data
    Down(Down),
    /// Show what is up
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    how: How,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["postgres", "localstack", "redis"])]
    only: Vec<Name>,
    /// Leave them running; `down` stops them
    #[arg(long)]
    detach: bool,
    /// The port of Postgres [default: 5432, or a free one where that is taken]
    #[arg(long, value_name = "PORT")]
    postgres_port: Option<u16>,
    /// The port of LocalStack [default: 4566, or a free one where that is taken]
    #[arg(long, value_name = "PORT")]
    localstack_port: Option<u16>,
    /// The port of kinesis-local [default: 4567, or a free one where that is taken]
    #[arg(long, value_name = "PORT")]
    kinesis_local_port: Option<u16>,
    /// The port of Redis [default: 6379, or a free one where that is taken]
    #[arg(long, value_name = "PORT")]
    redis_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, Args)]
struct How {
    /// Native servers, also where a container engine answers
    #[arg(long, conflicts_with = "docker")]
    native: bool,
    /// Containers, or a failure where no engine answers
    #[arg(long)]
    docker: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Only these [default: all]; containers stop together
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Name>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Postgres,
    Localstack,
    KinesisLocal,
    Redis,
}

impl Name {
    fn service(self) -> Service {
        match self {
            Self::Postgres => Service::Postgres,
            Self::Localstack => Service::LocalStack,
            Self::KinesisLocal => Service::KinesisLocal,
            Self::Redis => Service::Redis,
        }
    }
}

/// Runs one of the commands.
pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Up(options) => up(options),
        Command::Down(options) => down(options),
        Command::Status => status(),
    }
}

impl Up {
    /// What to start, and the ports that were asked for.
    fn wanted(&self) -> Vec<(Service, Option<u16>)> {
        let mut wanted = Vec::new();
        for service in self.only.iter().map(|name| name.service()) {
            let port = match service {
                Service::Postgres => self.postgres_port,
                Service::LocalStack => self.localstack_port,
                Service::KinesisLocal => self.kinesis_local_port,
                Service::Redis => self.redis_port,
            };
            if wanted.iter().all(|(other, _)| *other != service) {
                wanted.push((service, port));
            }
        }
        wanted
    }
}

fn up(options: &Up) -> Outcome {
    let wanted = options.wanted();
    if options.how.native {
        return up_natively(&wanted, options.detach);
    }
    match containers::engine() {
        Engine::Answers { version, compose } => {
            eprintln!("services: docker {version} answers: containers");
            up_in_containers(&compose, &wanted, options.detach)
        }
        Engine::Absent(why) if options.how.docker => {
            Err(format!("no containers: {why}; start the engine, or leave out --docker").into())
        }
        Engine::Absent(why) => {
            eprintln!("services: no containers ({why}): native servers");
            up_natively(&wanted, options.detach)
        }
    }
}

fn up_natively(wanted: &[(Service, Option<u16>)], detach: bool) -> Outcome {
    let mut held = Vec::new();
    let mut running = Vec::new();
    let mut missing = Vec::new();
    for (service, port) in wanted {
        if let Some(up) = fleet::status().into_iter().find(|up| up.service == *service) {
            eprintln!("services: {service} is up already, {}", up.place);
            running.push(up);
            continue;
        }
        match Held::start(*service, *port) {
            Ok(server) => {
                running.push(server.running().clone());
                held.push(server);
            }
            Err(e) => {
                eprintln!("services: {service} cannot be had: {e}");
                missing.push(service.to_string());
            }
        }
    }
    if running.is_empty() {
        return Err(format!("nothing is up: {} cannot be had", missing.join(" and ")).into());
    }
    if detach {
        for server in held {
            server.leave()?;
        }
        show(&running)?;
    } else {
        // Listened for before they are shown: who reads the last line may ask for the end at once.
        let signals = Signals::listen()?;
        show(&running)?;
        if held.is_empty() {
            eprintln!("services: nothing of this command's to hold");
        } else {
            eprintln!("services: held until Ctrl-C");
            hold(&mut held, &signals)?;
        }
    }
    if missing.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(format!("{} cannot be had: see above", missing.join(" and ")).into())
    }
}

/// Waits for the end that is asked for, or that a server comes to by itself.
fn hold(held: &mut Vec<Held>, signals: &Signals) -> Outcome {
    let mut ended = None;
    while ended.is_none() && !signals.wait(LOOK) {
        ended = held.iter_mut().find_map(|server| server.check().err());
    }
    eprintln!("services: stopping");
    held.clear();
    match ended {
        None => Ok(ExitCode::SUCCESS),
        Some(e) => Err(e.into()),
    }
}

fn up_in_containers(compose: &Compose, wanted: &[(Service, Option<u16>)], detach: bool) -> Outcome {
    let signals = Signals::listen()?;
    let running = compose.up(wanted).inspect_err(|_| {
        // What did start is in nobody's way, but in the way of the next attempt.
        if let Err(e) = compose.down() {
            eprintln!("services: {e}");
        }
    })?;
    show(&running)?;
    if !detach {
        eprintln!("services: held until Ctrl-C");
        while !signals.wait(LOOK) {}
        eprintln!("services: stopping");
        compose.down()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn down(options: &Down) -> Outcome {
    let chosen = |service: &Service| {
        options.only.is_empty() || options.only.iter().any(|name| name.service() == *service)
    };
    let mut stopped = Vec::new();
    let mut failed = Vec::new();
    for service in Service::ALL.into_iter().filter(chosen) {
        match fleet::down(service) {
            Ok(true) => stopped.push(service.to_string()),
            Ok(false) => {}
            Err(e) => failed.push(e.to_string()),
        }
    }
    if containers::are_recorded() {
        match containers::engine() {
            Engine::Answers { compose, .. } => match compose.down() {
                Ok(()) => stopped.push("the containers".to_owned()),
                Err(e) => failed.push(e.to_string()),
            },
            Engine::Absent(why) => failed.push(format!("containers were started, but {why}")),
        }
    }
    match stopped.as_slice() {
        [] => println!("nothing was up"),
        some => println!("stopped: {}", some.join(", ")),
    }
    if failed.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(failed.join("; ").into()) }
}

fn status() -> Outcome {
    let running = fleet::status();
    let mut out = std::io::stdout().lock();
    for service in Service::ALL {
        match running.iter().find(|r| r.service == service) {
            Some(up) => writeln!(out, "{service:<14} up    {}  {}", up.url, up.place)?,
            None => writeln!(out, "{service:<14} down")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says where everything is: a line each, and what to set so that the profiles `dev_local` and `dev_redis` find it.
fn show(running: &[Running]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for up in running {
        writeln!(out, "# {} {}, {}", up.service, up.url, up.place)?;
    }
    for (name, value) in environment(running) {
        writeln!(out, "export {name}={value}")?;
    }
    out.flush()
}

/// The variables by which profiles find services.
pub(crate) fn environment(running: &[Running]) -> Vec<(&'static str, String)> {
    let variable = |up: &Running| match up.service {
        Service::Postgres => "EB_POSTGRES_URL",
        Service::LocalStack | Service::KinesisLocal => "EB_KINESIS_ENDPOINT_URL",
        Service::Redis => "EB_REDIS_URL",
    };
    running.iter().map(|up| (variable(up), up.url.clone())).collect()
}
