//! What the server says of itself, and whether its answers are ACKs.

use std::collections::HashMap;

use eb_contract::{Error, ErrorKind, Result};

use crate::error;

/// The settings that decide whether an answer is sent after a sync. They travel with every append.
pub(crate) const SYNC_SETTINGS: [&str; 3] = ["appendonly", "appendfsync", "no-appendfsync-on-rewrite"];

/// All settings that are read of a new connection.
pub(crate) const SETTINGS: [&str; 5] =
    ["appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy"];

/// What is known of the server on the other end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    info: HashMap<String, String>,
    settings: Option<HashMap<String, String>>,
}

/// How often `CONFIG SET` was run: as long as the count stands, no setting was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ConfigCalls {
    sets: u64,
    /// Of `CONFIG RESETSTAT`, which begins the counts anew.
    resets: u64,
}

impl ConfigCalls {
    fn never(self) -> bool {
        self == Self::default()
    }
}

/// A reason why an ACK is weaker than it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weakness {
    /// What is the case.
    pub(crate) fact: String,
    /// What a crash can take.
    pub(crate) loss: &'static str,
    /// What to set.
    pub(crate) remedy: &'static str,
    /// It ends by itself.
    pub(crate) passes: bool,
}

impl Server {
    /// From the text of `INFO`, with `commandstats`, and the pairs of `CONFIG GET`; `None` where that is refused.
    pub(crate) fn new(info: &str, settings: Option<HashMap<String, String>>) -> Self {
        let info = info.lines().filter_map(|line| line.trim().split_once(':'));
        Self { info: info.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(), settings }
    }

    fn info(&self, field: &str) -> &str {
        self.info.get(field).map_or("", String::as_str)
    }

    fn number(&self, field: &str) -> u64 {
        self.info(field).parse().unwrap_or(0)
    }

    /// The life of the server process.
    pub(crate) fn run_id(&self) -> &str {
        self.info("run_id")
    }

    /// How often its settings were changed.
    pub(crate) fn config_calls(&self) -> ConfigCalls {
        let calls = |of: &str| {
            let stats = self.info(&format!("cmdstat_config|{of}"));
            stats.strip_prefix("calls=").and_then(|s| s.split(',').next()?.parse().ok()).unwrap_or(0)
        };
        ConfigCalls { sets: calls("set"), resets: calls("resetstat") }
    }

    /// The number of the rewrite of the append-only file that is under way, or about to be.
    ///
    /// While the first one after `appendonly` was switched on is under way, what is appended goes to a file that a restart
    /// does not read. Nothing tells it from any other rewrite but what was the case before.
    pub(crate) fn rewrite(&self) -> Option<u64> {
        let under_way =
            ["aof_rewrite_in_progress", "aof_rewrite_scheduled"].iter().any(|f| self.info(f) == "1");
        (self.info("aof_enabled") == "1" && under_way).then(|| self.number("aof_rewrites"))
    }

    /// Whether it can be used at all, now.
    pub(crate) fn usable(&self, op: &'static str) -> Result<()> {
        let version = self.info("redis_version");
        let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        if major < 7 {
            let message = format!("the server has version {version:?}, 7.0 or newer is needed");
            return Err(Error::new(ErrorKind::WrongVersion, op, message));
        }
        if self.info("loading") == "1" {
            return Err(Error::new(ErrorKind::Unavailable, op, "the server is loading its data"));
        }
        if self.info("role") == "slave" {
            return Err(Error::new(ErrorKind::Unavailable, op, "the server is a replica")
                .advise("name its primary, or an address that leads to the primary"));
        }
        if self.info("aof_last_write_status") == "err" {
            return Err(Error::new(
                ErrorKind::Unavailable,
                op,
                "the server could not write its log last time",
            ));
        }
        Ok(())
    }

    /// Why a crash could take what was ACKed; empty where nothing could.
    pub(crate) fn weaknesses(&self) -> Vec<Weakness> {
        let mut found = Vec::new();
        let mut weak =
            |fact: String, loss, remedy| found.push(Weakness { fact, loss, remedy, passes: false });
        match &self.settings {
            None => weak(
                "CONFIG GET is refused, so nobody knows when the server syncs".to_owned(),
                "a crash of the server can take what its settings allow",
                "grant the user `+config|get`, where the server has that command",
            ),
            Some(settings) => {
                if let Some((fact, loss, remedy)) = unsynced(settings) {
                    weak(fact, loss, remedy);
                }
                let policy = settings.get("maxmemory-policy").map_or("", String::as_str);
                let limited = settings.get("maxmemory").is_some_and(|bytes| bytes != "0");
                if limited && policy.starts_with("allkeys") {
                    weak(
                        format!("maxmemory-policy is {policy}"),
                        "memory pressure deletes whole streams",
                        "CONFIG SET maxmemory-policy noeviction",
                    );
                }
            }
        }
        if self.info("cluster_enabled") == "1" {
            weak(
                "the server is a node of a Cluster".to_owned(),
                "a failover can take ACKed records that no replica had yet",
                "use a standalone server",
            );
        }
        let replicas = self.number("connected_slaves");
        if replicas > 0 {
            weak(
                format!("the server has {replicas} replicas"),
                "a failover can take ACKed records that the new primary did not have yet",
                "use a standalone server",
            );
        }
        if self.rewrite().is_some() && (self.number("aof_base_size") == 0 || !self.config_calls().never()) {
            found.push(Weakness {
                fact: "the append-only file is just being made, or may be: it is being rewritten, and settings of the server were changed"
                    .to_owned(),
                loss: "a crash of the server before it is made can take everything since",
                remedy: "wait until its rewrite is done",
                passes: true,
            });
        }
        found
    }

    /// Refuses a server whose answers are no ACKs.
    pub(crate) fn demand_durable(&self, op: &'static str) -> Result<()> {
        let found = self.weaknesses();
        if found.is_empty() {
            return Ok(());
        }
        let facts: Vec<_> = found.iter().map(|w| w.fact.as_str()).collect();
        let remedies: Vec<_> = found.iter().map(|w| w.remedy).collect();
        let message = format!("an answer of this server is no durable ACK: {}", facts.join("; "));
        let advice = format!("{}, or set accept_weaker_ack", remedies.join("; "));
        let passes = found.iter().all(|w| w.passes);
        let kind = if passes { ErrorKind::Unavailable } else { ErrorKind::InvalidInput };
        Err(Error::new(kind, op, message).advise(advice))
    }
}

/// What is wrong with the settings that decide about the sync.
fn unsynced(settings: &HashMap<String, String>) -> Option<(String, &'static str, &'static str)> {
    let value = |name: &str| settings.get(name).map_or("unknown", String::as_str);
    let wrong: Vec<_> = SYNC_SETTINGS
        .into_iter()
        .zip(["yes", "always", "no"])
        .filter(|(name, wanted)| value(name) != *wanted)
        .collect();
    let (first, _) = wrong.first()?;
    let loss = match *first {
        "appendonly" => "a crash of the server takes everything since its last snapshot",
        "appendfsync" => {
            "a power cut takes what was not synced yet: a second, or as long as the system waits"
        }
        _ => "a power cut takes what was appended while the file was rewritten",
    };
    let facts: Vec<_> = wrong.iter().map(|(name, _)| format!("{name} is {}", value(name))).collect();
    Some((facts.join(", "), loss, "set appendonly yes, appendfsync always and no-appendfsync-on-rewrite no"))
}

/// Whether the settings that came with an append make its answer an ACK.
pub(crate) fn synced(settings: &HashMap<String, String>) -> Result<()> {
    match unsynced(settings) {
        None => Ok(()),
        Some((fact, _, remedy)) => {
            Err(error::unavailable("publish", format!("the server's settings were changed: {fact}"))
                .advise(remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(changed: &[(&str, &str)]) -> Option<HashMap<String, String>> {
        let good = [
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("no-appendfsync-on-rewrite", "no"),
            ("maxmemory", "0"),
            ("maxmemory-policy", "noeviction"),
        ];
        let all = good.iter().chain(changed);
        Some(all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n# Persistence\r\nloading:0\r\naof_enabled:1\r\naof_base_size:0\r\naof_rewrite_in_progress:0\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n# Cluster\r\ncluster_enabled:0\r\n";

    #[test]
    fn a_standalone_server_that_always_syncs_is_durable() {
        let server = Server::new(INFO, settings(&[]));
        server.usable("open").unwrap();
        server.demand_durable("open").unwrap();
        assert_eq!((server.run_id(), server.rewrite()), ("abc", None));
        let rewritten = INFO.replace(
            "aof_base_size:0\r\naof_rewrite_in_progress:0",
            "aof_base_size:9\r\naof_rewrite_in_progress:1\r\naof_rewrites:4",
        );
        let server = Server::new(&rewritten, settings(&[]));
        server.demand_durable("open").unwrap();
        assert_eq!(server.rewrite(), Some(4), "one that settings had no part in");
    }

    #[test]
    fn each_setting_that_weakens_an_ack_is_named_with_its_remedy() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("appendonly", "no")], "appendonly is no"),
            (&[("appendfsync", "everysec")], "appendfsync is everysec"),
            (&[("no-appendfsync-on-rewrite", "yes")], "no-appendfsync-on-rewrite is yes"),
            (&[("maxmemory", "100"), ("maxmemory-policy", "allkeys-lru")], "maxmemory-policy is allkeys-lru"),
            (&[("appendonly", "no"), ("appendfsync", "no")], "appendonly is no, appendfsync is no"),
        ];
        for (changed, named) in cases {
            let e = Server::new(INFO, settings(changed)).demand_durable("open").unwrap_err();
            assert_eq!(*e.kind(), ErrorKind::InvalidInput);
            assert!(e.to_string().contains(named), "{e}");
            assert!(e.to_string().ends_with("or set accept_weaker_ack"), "{e}");
        }
        let unlimited = [("maxmemory-policy", "allkeys-lru")];
        Server::new(INFO, settings(&unlimited)).demand_durable("open").unwrap();
        let e = Server::new(INFO, None).demand_durable("open").unwrap_err();
        assert!(e.to_string().contains("+config|get"), "{e}");
    }

    #[test]
    fn replicas_clusters_and_a_file_in_the_making_weaken_an_ack() {
        for (from, to, named, retryable) in [
            ("connected_slaves:0", "connected_slaves:2", "2 replicas", false),
            ("cluster_enabled:0", "cluster_enabled:1", "Cluster", false),
            ("aof_rewrite_in_progress:0", "aof_rewrite_in_progress:1", "just being made", true),
            (
                "aof_base_size:0\r\naof_rewrite_in_progress:0",
                "aof_base_size:9\r\naof_rewrite_in_progress:1\r\ncmdstat_config|set:calls=1,usec=9",
                "just being made, or may be",
                true,
            ),
            (
                "aof_base_size:0\r\naof_rewrite_in_progress:0",
                "aof_base_size:9\r\naof_rewrite_in_progress:1\r\ncmdstat_config|resetstat:calls=1,usec=9",
                "just being made, or may be",
                true,
            ),
        ] {
            let e = Server::new(&INFO.replace(from, to), settings(&[])).demand_durable("open").unwrap_err();
            assert!(e.to_string().contains(named), "{e}");
            assert_eq!(e.is_retryable(), retryable, "{e}");
        }
    }

    #[test]
    fn a_server_that_cannot_serve_says_why() {
        for (from, to, kind) in [
            ("loading:0", "loading:1", ErrorKind::Unavailable),
            ("role:master", "role:slave", ErrorKind::Unavailable),
            ("redis_version:7", "redis_version:6", ErrorKind::WrongVersion),
        ] {
            let e = Server::new(&INFO.replace(from, to), settings(&[])).usable("open").unwrap_err();
            assert_eq!(*e.kind(), kind, "{e}");
        }
    }

    #[test]
    fn settings_that_come_with_an_append_are_judged_alike() {
        let good = settings(&[]).unwrap();
        synced(&good).unwrap();
        let changed = settings(&[("appendfsync", "everysec")]).unwrap();
        assert_eq!(*synced(&changed).unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(synced(&HashMap::new()).is_err(), "unknown is not good");
    }
}
