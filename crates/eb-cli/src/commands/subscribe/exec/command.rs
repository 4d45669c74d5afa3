//! One command: started, fed, listened to, judged by its end.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
#[cfg(not(unix))]
use eb_consumer::Hold;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, Command};

/// How much of the end of a command's standard error is kept for a dead letter.
const TAIL: usize = 1_500;
/// How long a command that has ended is listened to while others keep its standard error open.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// Which command is run.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) words: Vec<String>,
    pub(super) shell: bool,
    pub(super) timeout: Option<Duration>,
}

/// What it is run for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) env: Vec<(String, String)>,
    /// Its standard input.
    pub(super) envelope: Bytes,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ended {
    /// By itself, or by a signal where there is no code.
    Exit {
        code: Option<i32>,
        how: String,
        /// The end of its standard error.
        said: String,
    },
    NotStarted(String),
    /// It was killed.
    TimedOut,
    /// It was killed, or never started: the lease under which it ran was not renewed in time.
    LeaseOver,
}

/// The leaders of the process groups that are running.
#[derive(Clone, Default)]
pub(crate) struct Groups(Arc<Mutex<BTreeSet<u32>>>);

impl Groups {
    /// Kills all of them.
    pub(crate) fn kill_all(&self) {
        self.0.lock().iter().copied().for_each(kill_group);
    }

    #[cfg(not(unix))]
    pub(super) async fn run(&self, spec: &Spec, job: Job, _hold: Option<Hold>) -> Ended {
        run(spec, job, self, async |_leader| {}).await
    }
}

/// Kills the process group unless it has ended: when the future is dropped, it must not go on.
struct Group {
    leader: u32,
    running: Groups,
}

impl Group {
    /// It has ended.
    fn forget(&self) {
        self.running.0.lock().remove(&self.leader);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.running.0.lock().remove(&self.leader) {
            kill_group(self.leader);
        }
    }
}

#[cfg(unix)]
pub(super) fn kill_group(leader: u32) {
    let pid = i32::try_from(leader).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It has ended already where this fails.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

#[cfg(not(unix))]
fn kill_group(_leader: u32) {
    // `kill_on_drop` ends the command itself.
}

fn command(spec: &Spec, env: Vec<(String, String)>) -> Command {
    let mut command = if spec.shell {
        let mut command = Command::new("sh");
        command.arg("-c").arg(spec.words.join(" "));
        command
    } else {
        let (program, arguments) = spec.words.split_first().expect("clap asks for at least one word");
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    command.stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).envs(env);
    // A group of its own: Ctrl-C on the terminal is for us, and what it starts is killed with it.
    #[cfg(unix)]
    command.process_group(0);
    command
}

/// Runs it to its end; `started` is told its process group. Dropping the future kills it, with its children.
pub(super) async fn run(spec: &Spec, job: Job, running: &Groups, started: impl AsyncFnOnce(u32)) -> Ended {
    let Job { env, envelope } = job;
    let mut child = match command(spec, env).spawn() {
        Ok(child) => child,
        Err(e) => {
            let program = spec.words.first().map_or("", String::as_str);
            return Ended::NotStarted(format!("cannot run `{program}`: {e}"));
        }
    };
    let Some(leader) = child.id() else {
        return Ended::NotStarted("the command ended before it began".to_owned());
    };
    running.0.lock().insert(leader);
    let group = Group { leader, running: running.clone() };
    started(leader).await;
    let said = Tail::default();
    let talk = talk(child.stdin.take(), child.stderr.take(), &envelope, &said);
    tokio::pin!(talk);
    let mut silent = false;
    let finished = async {
        loop {
            tokio::select! { biased;
                () = &mut talk, if !silent => silent = true,
                status = child.wait() => break status,
            }
        }
    };
    let status = match spec.timeout {
        None => finished.await,
        Some(limit) => match tokio::time::timeout(limit, finished).await {
            Ok(status) => status,
            Err(_) => return Ended::TimedOut,
        },
    };
    // It was waited for: its number may be another process's soon. What it left running in its group goes on.
    group.forget();
    if !silent {
        // What it started may keep its standard error open: its own end counts.
        let _ = tokio::time::timeout(LAST_WORDS, talk).await;
    }
    match status {
        Ok(status) => Ended::Exit { code: status.code(), how: status.to_string(), said: said.text() },
        Err(e) => Ended::NotStarted(format!("nobody knows how the command ended: {e}")),
    }
}

/// Gives the envelope, and takes what is said, until both ends are closed.
async fn talk(stdin: Option<ChildStdin>, stderr: Option<ChildStderr>, envelope: &[u8], said: &Tail) {
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command that reads nothing of it is fine.
            let _ = stdin.write_all(envelope).await;
            let _ = stdin.shutdown().await;
        }
    };
    let read = async {
        if let Some(stderr) = stderr {
            pass_on(stderr, said).await;
        }
    };
    futures_util::future::join(write, read).await;
}

/// Passes standard error on, and keeps its end.
async fn pass_on(mut stderr: ChildStderr, said: &Tail) {
    let mut buffer = vec![0; 8192];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        said.push(&buffer[..read]);
        let _ = tokio::io::stderr().write_all(&buffer[..read]).await;
    }
}

/// The end of what a command has said so far.
#[derive(Default)]
struct Tail(Mutex<Vec<u8>>);

impl Tail {
    fn push(&self, said: &[u8]) {
        let mut tail = self.0.lock();
        tail.extend_from_slice(said);
        let surplus = tail.len().saturating_sub(TAIL);
        tail.drain(..surplus);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock())
            .trim()
            .replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
    }
}
