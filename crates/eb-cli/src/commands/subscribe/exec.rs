//! Running a command for an event.

use std::collections::BTreeSet;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use eb_consumer::{HandlerError, HandlerResult, RawEvent};
use eb_contract::ConsumerName;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, Command};

use crate::args::consume::Exec;

/// How much of the end of a command's standard error is kept for a dead letter.
const TAIL: usize = 1_500;
/// What tells that a command should be tried again: `EX_TEMPFAIL` of sysexits.h.
const TRY_AGAIN: i32 = 75;

/// The commands that are running.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<Mutex<BTreeSet<u32>>>);

impl Running {
    /// Kills all of them, with their children.
    pub(crate) fn kill_all(&self) {
        self.0.lock().iter().copied().for_each(kill_group);
    }
}

/// A command to be run for each event.
pub(crate) struct Runner {
    words: Vec<String>,
    shell: bool,
    timeout: Option<Duration>,
    consumer: ConsumerName,
    running: Running,
}

/// Kills the process group unless it has ended: when the handler is dropped, it must not go on.
struct Group {
    leader: u32,
    running: Running,
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.running.0.lock().remove(&self.leader) {
            kill_group(self.leader);
        }
    }
}

#[cfg(unix)]
fn kill_group(leader: u32) {
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

impl Runner {
    pub(crate) fn new(exec: &Exec, consumer: &ConsumerName, running: Running) -> Self {
        let timeout = (exec.timeout > 0).then(|| Duration::from_secs(exec.timeout));
        Self { words: exec.exec.clone(), shell: exec.shell, timeout, consumer: consumer.clone(), running }
    }

    fn command(&self, event: &RawEvent) -> Command {
        let mut command = if self.shell {
            let mut command = Command::new("sh");
            command.arg("-c").arg(self.words.join(" "));
            command
        } else {
            let (program, arguments) = self.words.split_first().expect("clap asks for at least one word");
            let mut command = Command::new(program);
            command.args(arguments);
            command
        };
        let place = event.eb_ref();
        command
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .env("EB_CONSUMER", self.consumer.as_str())
            .env("EB_EVENT_ID", variable(event.event_id()))
            .env("EB_EVENT_TYPE", variable(event.event_type()))
            .env("EB_TOPIC", place.topic.as_str())
            .env("EB_PARTITION", place.partition_id.to_string())
            .env("EB_OFFSET", place.offset.to_string())
            .env("EB_OFFSET_KIND", place.offset.kind().to_string())
            .env("EB_KEY", variable(event.partition_key().as_str()))
            .env("EB_PUBLISHED_AT", place.published_at_utc.to_string())
            .env("EB_ATTEMPT", event.attempt().to_string());
        // A group of its own: Ctrl-C on the terminal is for us, and what it starts is killed with it.
        #[cfg(unix)]
        command.process_group(0);
        command
    }

    /// Runs it to its end. Dropping the future kills it, with its children.
    pub(crate) async fn run(&self, event: RawEvent) -> HandlerResult {
        // Nothing is wrong with the event when its command cannot be started.
        let mut child = self.command(&event).spawn().map_err(|e| {
            HandlerError::transient(format!(
                "cannot run `{}`: {e}",
                self.words.first().map_or("", String::as_str)
            ))
        })?;
        let Some(leader) = child.id() else {
            return Err(HandlerError::transient("the command ended before it began"));
        };
        self.running.0.lock().insert(leader);
        let group = Group { leader, running: self.running.clone() };
        let finished = self.finish(&mut child, &event);
        let (status, said) = match self.timeout {
            None => finished.await?,
            Some(limit) => tokio::time::timeout(limit, finished).await.map_err(|_| {
                HandlerError::transient(format!("it ran longer than {} s and was killed", limit.as_secs()))
            })??,
        };
        // It was waited for: its number may be another process's soon. What it left running in its group goes on.
        group.running.0.lock().remove(&leader);
        self.judge(status, &said)
    }

    async fn finish(
        &self,
        child: &mut Child,
        event: &RawEvent,
    ) -> Result<(ExitStatus, String), HandlerError> {
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command that reads nothing of it is fine.
                let _ = stdin.write_all(event.bytes()).await;
                let _ = stdin.shutdown().await;
            }
        };
        let read = async {
            match stderr {
                Some(stderr) => pass_on(stderr).await,
                None => String::new(),
            }
        };
        // What it started may keep its standard error open: its own end counts.
        let ended = async {
            let status = child.wait().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            status
        };
        tokio::pin!(ended, read);
        let both = async {
            let ((), said) = futures_util::future::join(write, &mut read).await;
            said
        };
        tokio::pin!(both);
        let mut said = None;
        let status = loop {
            tokio::select! { biased;
                text = &mut both, if said.is_none() => said = Some(text),
                status = &mut ended => break status,
            }
        };
        let status = status.map_err(HandlerError::transient)?;
        Ok((status, said.unwrap_or_default()))
    }

    fn judge(&self, status: ExitStatus, said: &str) -> HandlerResult {
        let with = |what: String| if said.is_empty() { what } else { format!("{what}: {said}") };
        match status.code() {
            Some(0) => Ok(()),
            Some(TRY_AGAIN) => Err(HandlerError::transient(with(format!("exit code {TRY_AGAIN}")))),
            Some(code @ (126 | 127)) if self.shell => {
                Err(HandlerError::transient(with(format!("the shell could not run it (exit code {code})"))))
            }
            Some(code) => Err(HandlerError::permanent(with(format!("exit code {code}")))),
            None => Err(HandlerError::transient(with(format!("it was killed ({status})")))),
        }
    }
}

/// Environment variables cannot hold a zero byte.
fn variable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Passes standard error on, and keeps its end.
async fn pass_on(mut stderr: ChildStderr) -> String {
    let (mut tail, mut buffer) = (Vec::new(), vec![0; 8192]);
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let _ = tokio::io::stderr().write_all(&buffer[..read]).await;
        tail.extend_from_slice(&buffer[..read]);
        let surplus = tail.len().saturating_sub(TAIL);
        tail.drain(..surplus);
    }
    String::from_utf8_lossy(&tail).trim().replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}
