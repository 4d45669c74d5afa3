//! What tells this boot of this machine from others, and how long it has lasted.

use std::sync::OnceLock;
use std::time::Duration;

/// The boot's id; zeros where the system has none to give. Read once.
#[must_use]
pub fn id() -> [u8; 16] {
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

/// How long the machine has been up, time asleep included.
#[must_use]
pub fn uptime() -> Duration {
    // On macOS the monotonic clock goes on while the machine sleeps, as the boot clock does on Linux.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    let clock = rustix::time::ClockId::Monotonic;
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(clock);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
    }
    // Best effort: a clock of this process alone would not be shared, so the time of day has to do.
    #[cfg(not(unix))]
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
