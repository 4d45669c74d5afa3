//! What tells this process from others.

use eb_contract::Timestamp;
use serde::{Deserialize, Serialize};

/// Who holds a writer's lock: one JSON line in the lock file, for the message that the next one gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) host: String,
    pub(crate) since: Timestamp,
    #[serde(default)]
    pub(crate) doing: Doing,
}

/// What the lock is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doing {
    /// A writer, which keeps the watermark up to date.
    #[default]
    Writing,
    /// A writer that still opens the log: the watermark is what the one before it left.
    Recovering,
    /// A reader, which holds it only while it makes a dead writer's last records durable.
    Settling,
}

impl Holder {
    pub(crate) fn this_process(doing: Doing) -> Self {
        Self { pid: std::process::id(), host: host_name(), since: Timestamp::now(), doing }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {} on {} since {}", self.pid, self.host, self.since)
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .map(|name| name.trim().chars().filter(|c| !c.is_control()).take(64).collect::<String>())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "this machine".to_owned())
}
