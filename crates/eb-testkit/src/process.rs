//! Child processes that are killed, and what they said until then.
//!
//! A child reports on its standard output, one line a fact, and writes each line only once the fact is true (an ACK in
//! hand, a record read). The parent counts a line when it is whole: what the child had not finished saying when
//! it was killed it has not said.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a test waits for a child to say something before it gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Spoken {
    child: Child,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

/// What an ended child leaves.
#[derive(Debug)]
pub struct LastWords {
    /// The lines that were not taken while it ran, whole ones only.
    pub lines: Vec<String>,
    /// Everything it wrote to standard error.
    pub errors: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Spoken {
    /// Starts a child with pipes to all three streams.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (send, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = String::new();
                while matches!(stdout.read_line(&mut line), Ok(n) if n > 0) {
                    let Some(whole) = line.strip_suffix('\n') else { break };
                    if send.send(whole.to_owned()).is_err() {
                        break;
                    }
                    line.clear();
                }
            });
        }
        let errors = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                // What was read before a failing pipe is still worth showing.
                let _ = stderr.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        Ok(Self { child, lines, errors })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child's standard input; taken once. Children of these suites end when it is closed.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The next line; `None` once the child has closed its output.
    ///
    /// # Panics
    /// When the child says nothing for a minute.
    pub fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("child {} has been silent for {PATIENCE:?}", self.pid()),
        }
    }

    /// The next line if one comes within `patience`.
    pub fn line_within(&mut self, patience: Duration) -> Option<String> {
        self.lines.recv_timeout(patience).ok()
    }

    /// Kills it (`SIGKILL`; it can neither notice nor clean up) and collects what it had said.
    ///
    /// # Errors
    /// When the system cannot kill or reap it.
    pub fn kill(mut self) -> io::Result<LastWords> {
        self.child.kill()?;
        self.collect()
    }

    /// Closes its standard input and waits until it ends by itself.
    ///
    /// # Errors
    /// When the system cannot reap it.
    pub fn wait(mut self) -> io::Result<LastWords> {
        drop(self.child.stdin.take());
        self.collect()
    }

    fn collect(&mut self) -> io::Result<LastWords> {
        // Ends when the child's end of the pipe is closed, so first.
        let lines = self.lines.iter().collect();
        let status = self.child.wait()?;
        let errors = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok(LastWords { lines, errors, status })
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        // Both fail once it has been reaped, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Spoken {
        Spoken::spawn(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_killed_child_has_said_its_whole_lines_and_no_more() {
        let mut child = shell("echo one; echo two; printf thr; echo started >&2; read x");
        assert_eq!(child.line().unwrap(), "one");
        assert_eq!(child.line().unwrap(), "two");
        let words = child.kill().unwrap();
        assert!(words.lines.is_empty(), "{:?}", words.lines);
        assert!(!words.status.success());
    }

    #[test]
    fn a_child_that_ends_by_itself_is_heard_to_its_end() {
        let words = shell("read x; echo done; echo because >&2; exit 3").wait().unwrap();
        assert_eq!(words.lines, ["done"]);
        assert_eq!(words.errors, "because\n");
        assert_eq!(words.status.code(), Some(3));
    }
}
