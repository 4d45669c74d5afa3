//! Ports of the loopback interface that nobody takes in between.
//!
//! A server is told its port before it listens there, leaves it while it is stopped, and has it again when it is
//! restarted. A port that the system has chosen may go to somebody else meanwhile: the system gives the same ports to every
//! connection that is made. So these come from below the system's own, and each stays with the process that was given
//! it until that ends, by a locked file in the temporary folder that all processes of a user look at.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{During, Result, ServiceError};

/// Above what services have by custom.
const FIRST: u16 = 20_000;
/// Where the system's own begin on Linux, unless it says otherwise; elsewhere they begin higher.
const SYSTEMS_OWN: u16 = 32_768;
/// With fewer than this below the system's own, it may choose.
const ENOUGH: usize = 1_000;

/// The files of the ports that this process was given. They are unlocked when it ends, however it ends.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of the loopback interface on which nobody listens. Neither the system nor another process of these suites gives it to
/// anybody else as long as this process lives, whether or not anybody listens there.
///
/// # Errors
/// When there is none, or the temporary folder cannot be written to.
pub fn free_port() -> Result<u16> {
    let ports = below(systems_own());
    if ports.len() < ENOUGH {
        return chosen_by_the_system();
    }
    let folder =
        std::env::temp_dir().join(format!("event-bus-ports-{}", rustix::process::geteuid().as_raw()));
    fs::create_dir_all(&folder).during(|| format!("make {}", folder.display()))?;
    // Anywhere: processes that start at once are then seldom in each other's way.
    let anywhere = usize::from(RandomState::new().hash_one(0_u64) as u16);
    for n in 0..ports.len() {
        let port = ports.start + ((anywhere + n) % ports.len()) as u16;
        if let Some(file) = hold(&folder.join(port.to_string()))?
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(file);
            return Ok(port);
        }
    }
    Err(ServiceError::new(format!("no port from {} to {} is free", ports.start, ports.end - 1)))
}

/// The port that was asked for, if nobody has it, or one that is free.
pub(crate) fn port_for(service: &str, asked: Option<u16>) -> Result<u16> {
    let Some(port) = asked else { return free_port() };
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(port),
        Err(e) => Err(ServiceError::new(format!(
            "{service} cannot have port {port}: {e}; name another one, or none for one that is free"
        ))),
    }
}

fn below(systems_own: u16) -> Range<u16> {
    FIRST..systems_own.max(FIRST)
}

/// The first port that the system gives to connections.
fn systems_own() -> u16 {
    let told = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    told.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(SYSTEMS_OWN)
}

/// The file, locked; `None` when somebody else has it.
fn hold(path: &Path) -> Result<Option<File>> {
    let file = File::create(path).during(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(e)) => Err(e).during(|| format!("lock {}", path.display())),
    }
}

fn chosen_by_the_system() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).during(|| "find a free port".to_owned())?;
    Ok(listener.local_addr().during(|| "find a free port".to_owned())?.port())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ports_are_given_once_and_are_none_that_the_system_gives() {
        let given: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        let ports = below(systems_own());
        if ports.len() >= ENOUGH {
            assert_eq!(given.iter().collect::<HashSet<_>>().len(), 50);
            assert!(given.iter().all(|port| ports.contains(port)), "{given:?}");
        }
    }

    #[test]
    fn a_file_that_is_held_is_not_given_to_a_second_one_until_it_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("20000");
        let first = hold(&path).unwrap();
        assert!(first.is_some() && hold(&path).unwrap().is_none());
        drop(first);
        assert!(hold(&path).unwrap().is_some());
    }

    #[test]
    fn where_the_systems_own_begin_low_there_is_nothing_below() {
        assert_eq!(below(32_768), 20_000..32_768);
        assert!(below(1_024).is_empty());
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_refused_with_what_to_do() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = port_for("Redis", Some(port)).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("Redis cannot have port {port}: ")), "{refused}");
    }
}
