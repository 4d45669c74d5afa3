//! The servers that all test binaries share for one run of the suites.

use eb_testkit::services::{
    self, KINESIS_URL_VARIABLE, KinesisLocal, LOCALSTACK_URL_VARIABLE, LocalStack, PG_URL_VARIABLE, Postgres,
    PostgresOptions, REDIS_URL_VARIABLE, Redis, RedisOptions,
};

/// A service that suites need.
struct Need {
    name: &'static str,
    /// Where suites look for it.
    variable: &'static str,
    start: fn() -> services::Result<Server>,
    /// What cannot run without it: packages, and tests by part of their names.
    packages: &'static [&'static str],
    tests: &'static [&'static str],
}

const NEEDS: [Need; 4] = [
    Need {
        name: "Postgres",
        variable: PG_URL_VARIABLE,
        start: || Postgres::start(&PostgresOptions::default()).map(Server::Postgres),
        packages: &["eb-checkpoint-pg"],
        tests: &["postgres", "services::"],
    },
    Need {
        name: "kinesis-local",
        variable: KINESIS_URL_VARIABLE,
        start: || KinesisLocal::start(&services::hurried()).map(Server::KinesisLocal),
        packages: &["eb-kinesis"],
        tests: &["kinesis_local"],
    },
    Need {
        name: "LocalStack",
        variable: LOCALSTACK_URL_VARIABLE,
        start: || LocalStack::start().map(Server::LocalStack),
        packages: &[],
        tests: &["localstack"],
    },
    Need {
        name: "Redis",
        variable: REDIS_URL_VARIABLE,
        start: || Redis::start(&RedisOptions::default()).map(Server::Redis),
        packages: &["eb-redis"],
        tests: &["on_redis"],
    },
];

/// It ends when it is dropped.
enum Server {
    Postgres(Postgres),
    KinesisLocal(KinesisLocal),
    LocalStack(LocalStack),
    Redis(Redis),
}

impl Server {
    fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.url(),
            Self::KinesisLocal(server) => server.url(),
            Self::LocalStack(server) => server.url(),
            Self::Redis(server) => server.url(),
        }
    }
}

/// What a run of the suites has to work with.
#[derive(Default)]
pub(super) struct Shared {
    /// For the test binaries.
    pub(super) variables: Vec<(&'static str, String)>,
    /// A line for each service that is there.
    pub(super) notes: Vec<String>,
    /// A line for each service that could not be had, with the reason and what is left out for it.
    pub(super) missing: Vec<String>,
    packages: Vec<&'static str>,
    tests: Vec<&'static str>,
    _own: Vec<Server>,
}

impl Shared {
    /// Starts those that no variable names, all at once.
    pub(super) fn start() -> Self {
        let named = |need: &Need| std::env::var(need.variable).ok().filter(|url| !url.is_empty());
        let started = std::thread::scope(|scope| {
            let starting: Vec<_> =
                NEEDS.iter().map(|need| named(need).is_none().then(|| scope.spawn(need.start))).collect();
            let ended = starting.into_iter().map(|thread| thread.map(std::thread::ScopedJoinHandle::join));
            ended.collect::<Vec<_>>()
        });
        let mut shared = Self::default();
        for (need, started) in NEEDS.iter().zip(started) {
            match started {
                None => {
                    let url = named(need).unwrap_or_default();
                    shared.notes.push(format!("service: {} at {url}, as {} says", need.name, need.variable));
                }
                Some(Ok(Ok(server))) => {
                    shared.notes.push(format!("service: {} at {}, for this run", need.name, server.url()));
                    shared.variables.push((need.variable, server.url()));
                    shared._own.push(server);
                }
                Some(Ok(Err(e))) => shared.lack(need, &e.to_string()),
                Some(Err(_)) => shared.lack(need, "its start panicked: see above"),
            }
        }
        shared
    }

    fn lack(&mut self, need: &Need, why: &str) {
        let packages = need.packages.iter().map(|package| format!("package {package}"));
        let tests = need.tests.iter().map(|part| format!("tests named *{part}*"));
        let left_out: Vec<_> = packages.chain(tests).collect();
        self.missing.push(format!(
            "not run: {}, for {} cannot be had: {why}",
            left_out.join(", "),
            need.name
        ));
        self.packages.extend(need.packages);
        self.tests.extend(need.tests);
    }

    /// Arguments that leave out what cannot run: of cargo, and of the test harness.
    pub(super) fn left_out(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        (
            self.packages.iter().flat_map(|package| ["--exclude", package]).collect(),
            self.tests.iter().flat_map(|part| ["--skip", part]).collect(),
        )
    }
}

/// Whether the run is one that must not leave anything out.
pub(super) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| !matches!(ci.as_str(), "" | "0" | "false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_named_with_its_reason_and_left_out() {
        let mut shared = Shared::default();
        shared.lack(&NEEDS[0], "no initdb was found");
        assert_eq!(
            shared.missing,
            [
                "not run: package eb-checkpoint-pg, tests named *postgres*, tests named *services::*, for Postgres cannot be had: no initdb was found"
            ]
        );
        let (cargo, harness) = shared.left_out();
        assert_eq!(cargo, ["--exclude", "eb-checkpoint-pg"]);
        assert_eq!(harness, ["--skip", "postgres", "--skip", "services::"]);
    }
}
