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
/// remove (or nothing). What strays are known by comes in the environment, for in an argument the guardian's own command
/// line would hold it.
const GUARDIAN: &str = r#"
# A zombie is nobody any more: where nobody reaps, it would stay.
alive() { ps -A -o pgid=,stat= | grep -q "^ *$1 *[^Z ]"; }
read -r word
[ "$word" = dismissed ] && exit 0
kill "-$2" "-$1" 2>/dev/null
tries=0
while alive "$1" && [ "$tries" -lt 60 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "-$1" 2>/dev/null
ps -A -ww -o pid=,args= | while read -r pid args; do
    case "$args" in *"$EB_STRAYS"*) kill -KILL "$pid" 2>/dev/null ;; esac
done
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

/// A server that is halted: connections to it stand, or are taken in by the system, and nothing answers. It goes on,
/// also with what it was sent meanwhile, when this is dropped.
#[derive(Debug)]
pub struct Paused {
    group: rustix::process::Pid,
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been stopped meanwhile.
        let _ = rustix::process::kill_process_group(self.group, Sig::CONT);
    }
}

/// A running server. Dropping it stops its whole process group.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    guardian: Option<Child>,
    log: PathBuf,
    home: PathBuf,
    stop_by: Signal,
}

impl Daemon {
    /// Starts a server whose home is a folder of its own: its output goes to `log` in it, and processes that it starts
    /// are known by it. `stop_by` ends the server; where `home_goes`, the folder goes with it when its owner dies.
    pub(crate) fn start(
        command: &mut Command,
        home: &Path,
        stop_by: Signal,
        home_goes: bool,
    ) -> Result<Self> {
        let log = home.join("log");
        let out = File::options().create(true).append(true).open(&log);
        let out = out.during(|| format!("open {}", log.display()))?;
        let err = out.try_clone().during(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .during(|| format!("start {}", command.get_program().display()))?;
        let mut daemon = Self { child, guardian: None, log, home: home.to_owned(), stop_by };
        daemon.guardian = Some(guard(daemon.pid(), stop_by, home, home_goes)?);
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

    /// Halts the whole group until the answer is dropped.
    pub(crate) fn pause(&self) -> Result<Paused> {
        let group = pid_of(self.pid()).ok_or_else(|| ServiceError::new("the server has no process id"))?;
        rustix::process::kill_process_group(group, Sig::STOP)
            .map_err(std::io::Error::from)
            .during(|| "halt a server".to_owned())?;
        Ok(Paused { group })
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
        kill_strays(&self.home);
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

fn guard(group: u32, signal: Signal, home: &Path, home_goes: bool) -> Result<Child> {
    Command::new("sh")
        .args(["-c", GUARDIAN, "guardian", &group.to_string(), signal.name()])
        .arg(if home_goes { home } else { Path::new("") })
        .env("EB_STRAYS", stray_mark(home))
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

/// What the command line of a process holds that a server started out of its folder, and of no other.
fn stray_mark(home: &Path) -> PathBuf {
    home.join("root").join("")
}

/// Ends what a server has started in process groups of their own, as LocalStack does with its engine, and has not ended.
pub(crate) fn kill_strays(home: &Path) {
    let mark = stray_mark(home).display().to_string();
    let Ok(output) = Command::new("ps").args(["-A", "-ww", "-o", "pid=,args="]).output() else { return };
    for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(&mark)) {
        let pid =
            line.trim_start().split(' ').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may end by itself meanwhile.
            let _ = rustix::process::kill_process(pid, Sig::KILL);
        }
    }
}

/// Ends a server that is not a child of ours, with all it started: in good order, then for good.
pub(crate) fn stop_other(leader: u32, home: &Path, stop_by: Signal) {
    if let Some(pid) = pid_of(leader) {
        kill_group(leader, stop_by);
        let start = Instant::now();
        while rustix::process::test_kill_process_group(pid).is_ok() && start.elapsed() < STOP_PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        kill_group(leader, Signal::Kill);
    }
    kill_strays(home);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::folder::ProcessName;

    /// A leader with two children: one of its group, and one that has a group of its own, as LocalStack's engine has.
    fn family(home: &Path, home_goes: bool) -> (Daemon, [u32; 2]) {
        let stray = home.join("root/engine.sh");
        std::fs::create_dir_all(home.join("root")).unwrap();
        std::fs::write(&stray, "while :; do sleep 1; done").unwrap();
        let mut command = Command::new("bash");
        let script = "sleep 300 & echo $!; set -m; sh \"$0\" & echo $!; wait";
        command.args(["-c", script]).arg(&stray);
        let daemon = Daemon::start(&mut command, home, Signal::Term, home_goes).unwrap();
        let children = crate::services::poll_until("the children", Duration::from_secs(20), || {
            let text = std::fs::read_to_string(home.join("log")).unwrap();
            let mut pids =
                text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok());
            Ok(pids.next().zip(pids.next()).map(|(a, b)| [a, b]))
        });
        (daemon, children.unwrap())
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
        let (daemon, children) = family(folder.path(), false);
        let leader = daemon.pid();
        drop(daemon);
        ends(leader);
        children.into_iter().for_each(ends);
    }

    #[test]
    fn killing_a_server_leaves_none_of_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let (daemon, children) = family(folder.path(), false);
        daemon.stop(Signal::Kill).unwrap();
        children.into_iter().for_each(ends);
    }

    #[test]
    fn the_guardian_ends_a_server_whose_owner_has_died_and_removes_its_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("server");
        std::fs::create_dir(&folder).unwrap();
        let (mut daemon, children) = family(&folder, true);
        // What the system does for a process that is killed: its end of the pipe is closed, nothing else happens.
        drop(daemon.guardian.as_mut().unwrap().stdin.take());
        daemon.wait(Duration::from_secs(20)).unwrap();
        children.into_iter().for_each(ends);
        daemon.guardian.as_mut().unwrap().wait().unwrap();
        assert!(!folder.exists());
    }
}
