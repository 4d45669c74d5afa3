//! Server processes: in a group of their own, with a guardian that outlives their owner by a moment.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as Sig};

use super::{During, Result, ServiceError};

/// How long a server may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the owner's end, then does what the owner can no longer do. Arguments: process group, signal, folder to
/// remove (or nothing).
const GUARDIAN: &str = r#"
# A zombie is nobody any more: where nobody reaps, it would stay.
alive() { ps -A -o pgid=,stat= | grep -q "^ *$1 *[^Z ]"; }
read -r word
[ "$word" = dismissed ] && exit 0
kill "-$2" "-$1" 2>/dev/null
tries=0
while alive "$1" && [ "$tries" -lt 60 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "-$1" 2>/dev/null
if [ -n "$3" ]; then rm -rf -- "$3"; sleep 0.3; rm -rf -- "$3"; fi
"#;

/// What to tell a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End in good order.
    Term,
    /// Postgres: disconnect everyone and end in good order.
    Int,
    /// Postgres: end at once, as after a crash.
    Quit,
    /// No chance to do anything.
    Kill,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
        }
    }

    const fn number(self) -> Sig {
        match self {
            Self::Term => Sig::TERM,
            Self::Int => Sig::INT,
            Self::Quit => Sig::QUIT,
            Self::Kill => Sig::KILL,
        }
    }
}

/// A running server. Dropping it stops its whole process group.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    guardian: Option<Child>,
    log: PathBuf,
    stop_by: Signal,
}

impl Daemon {
    /// Starts a server whose output goes to `log`. `stop_by` ends it; `folder` goes with it when its owner dies.
    pub(crate) fn start(
        command: &mut Command,
        log: &Path,
        stop_by: Signal,
        folder: Option<&Path>,
    ) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.during(|| format!("open {}", log.display()))?;
        let err = out.try_clone().during(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .during(|| format!("start {}", command.get_program().display()))?;
        let mut daemon = Self { child, guardian: None, log: log.to_owned(), stop_by };
        daemon.guardian = Some(guard(daemon.pid(), stop_by, folder)?);
        Ok(daemon)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of the log, if the process has ended.
    pub(crate) fn check_alive(&mut self, what: &str) -> Result<()> {
        match self.child.try_wait().during(|| format!("look after {what}"))? {
            None => Ok(()),
            Some(status) => Err(ServiceError::new(format!("{what} ended with {status}: {}", self.log_end()))),
        }
    }

    /// The last lines of the log, as one.
    pub(crate) fn log_end(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        let end = lines[lines.len().saturating_sub(6)..].join(" | ");
        format!("{end} (log: {})", self.log.display())
    }

    /// Tells the leader alone.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = pid_of(self.pid()) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, signal.number());
        }
    }

    /// Waits for the leader's end.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().during(|| "wait for a server".to_owned())? {
                return Ok(status);
            }
            if start.elapsed() > patience {
                return Err(ServiceError::new(format!(
                    "process {} did not end within {patience:?}: {}",
                    self.pid(),
                    self.log_end()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the leader by `signal`, then whatever is left of its group.
    pub(crate) fn stop(mut self, signal: Signal) -> Result<()> {
        self.end(signal)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal);
        let ended = match self.wait(STOP_PATIENCE) {
            Ok(_) => Ok(()),
            Err(late) => {
                self.signal(Signal::Kill);
                self.wait(STOP_PATIENCE).map(drop).map_err(|_| late)
            }
        };
        kill_group(self.pid(), Signal::Kill);
        self.dismiss();
        ended
    }

    /// Leaves the server running without an owner.
    pub(crate) fn leave(mut self) -> u32 {
        self.dismiss();
        self.stop_by = Signal::Kill;
        let pid = self.pid();
        // Neither stopped nor reaped: it outlives this process.
        std::mem::forget(self);
        pid
    }

    fn dismiss(&mut self) {
        if let Some(mut guardian) = self.guardian.take() {
            if let Some(mut stdin) = guardian.stdin.take() {
                // A guardian that is gone needs no dismissal.
                let _ = stdin.write_all(b"dismissed\n");
            }
            let _ = guardian.wait();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.guardian.is_some() {
            // Nobody is left to tell; the next start looks for orphans.
            let _ = self.end(self.stop_by);
        }
    }
}

fn guard(group: u32, signal: Signal, folder: Option<&Path>) -> Result<Child> {
    Command::new("sh")
        .args(["-c", GUARDIAN, "guardian", &group.to_string(), signal.name()])
        .arg(folder.unwrap_or(Path::new("")))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .during(|| "start the guardian (sh)".to_owned())
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

fn kill_group(leader: u32, signal: Signal) {
    if let Some(pid) = pid_of(leader) {
        // Gone already is what was wanted.
        let _ = rustix::process::kill_process_group(pid, signal.number());
    }
}

/// Ends a process group that is not a child of ours: politely, then for good.
pub(crate) fn stop_group(leader: u32) {
    let Some(pid) = pid_of(leader) else { return };
    // For Postgres this is the fast shutdown, for the others an interrupt from the keyboard.
    kill_group(leader, Signal::Int);
    let start = Instant::now();
    let mut asked = false;
    while rustix::process::test_kill_process_group(pid).is_ok() && start.elapsed() < STOP_PATIENCE {
        if !asked && start.elapsed() > Duration::from_secs(3) {
            kill_group(leader, Signal::Term);
            asked = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_group(leader, Signal::Kill);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::folder::ProcessName;

    /// A leader with a child of its own, as LocalStack has one.
    fn family(folder: &Path, folder_goes: bool) -> (Daemon, u32) {
        let log = folder.join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 300 & echo $!; wait"]);
        let daemon = Daemon::start(&mut command, &log, Signal::Term, folder_goes.then_some(folder)).unwrap();
        let child = crate::services::poll_until("the child", Duration::from_secs(20), || {
            let text = std::fs::read_to_string(&log).unwrap();
            Ok(text.strip_suffix('\n').and_then(|line| line.parse().ok()))
        });
        (daemon, child.unwrap())
    }

    fn ends(pid: u32) {
        crate::services::poll_until("the end of a process", Duration::from_secs(20), || {
            Ok(ProcessName::of(pid).is_none().then_some(()))
        })
        .unwrap();
    }

    #[test]
    fn dropping_a_server_ends_its_children_too() {
        let folder = tempfile::tempdir().unwrap();
        let (daemon, child) = family(folder.path(), false);
        let leader = daemon.pid();
        drop(daemon);
        ends(leader);
        ends(child);
    }

    #[test]
    fn the_guardian_ends_a_server_whose_owner_has_died_and_removes_its_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("server");
        std::fs::create_dir(&folder).unwrap();
        let (mut daemon, child) = family(&folder, true);
        // What the system does for a process that is killed: its end of the pipe is closed, nothing else happens.
        drop(daemon.guardian.as_mut().unwrap().stdin.take());
        daemon.wait(Duration::from_secs(20)).unwrap();
        ends(child);
        daemon.guardian.as_mut().unwrap().wait().unwrap();
        assert!(!folder.exists());
    }
}
