//! What tells this boot of this machine, and this process, from others.

use std::sync::OnceLock;

use eb_contract::Timestamp;
use serde::{Deserialize, Serialize};

/// The boot's id; zeros where the system has none to give. Read once.
pub(crate) fn boot_id() -> [u8; 16] {
    static ID: OnceLock<[u8; 16]> = OnceLock::new();
    *ID.get_or_init(|| read_boot_id().unwrap_or_default())
}

#[cfg(target_os = "linux")]
fn read_boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    uuid::Uuid::parse_str(text.trim()).ok().map(uuid::Uuid::into_bytes)
}

#[cfg(target_os = "macos")]
fn read_boot_id() -> Option<[u8; 16]> {
    // The library call needs unsafe code; the tool is part of the system.
    let output =
        std::process::Command::new("/usr/sbin/sysctl").args(["-n", "kern.bootsessionuuid"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    uuid::Uuid::parse_str(text.trim()).ok().map(uuid::Uuid::into_bytes)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn read_boot_id() -> Option<[u8; 16]> {
    None
}

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
