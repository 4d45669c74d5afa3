//! The real program in fresh folders.
#![allow(clippy::unwrap_used, reason = "tests")]

#[cfg(unix)]
mod beside;
mod checkpoints;
#[cfg(unix)]
mod consuming;
mod face;
mod ingest;
#[cfg(all(feature = "kinesis", feature = "postgres"))]
mod kinesis_local;
mod lint;
#[cfg(all(unix, feature = "redis", feature = "postgres"))]
mod on_redis;
#[cfg(feature = "postgres")]
mod postgres;
mod profiles;
mod publish;
#[cfg(all(unix, feature = "redis"))]
mod rollout;
mod schemas;
#[cfg(unix)]
mod subscribing;
mod tail;
mod topics;
mod verify;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const AUDIT: &str = "fp.bus.audit.v1";
pub(crate) const WORLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A folder with nothing in it, in which `eb` finds its built-in profile.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// With `n` events, e1 to e<n>, in the audit topic.
    pub(crate) fn with_events(n: usize) -> Self {
        let place = Self::new();
        place.write("events.ndjson", &events(1..=n));
        let ran = place.eb(&["ingest", "events.ndjson"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        place
    }

    /// A config folder with the gate's policies and their schemas, for profiles that are not built in.
    pub(crate) fn with_policies(&self) {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        self.copy(&config.join("schemas/events.lock"), "config/schemas/events.lock");
        for folder in ["ig", "schemas/events"] {
            self.copy(&config.join(folder), &format!("config/{folder}"));
        }
    }

    fn copy(&self, from: &Path, to: &str) {
        if !from.is_dir() {
            self.write(to, &std::fs::read_to_string(from).unwrap());
            return;
        }
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            self.copy(&entry.path(), &format!("{to}/{}", entry.file_name().to_str().unwrap()));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eb"));
        command.args(args).current_dir(self.folder.path());
        for name in ["EB_CONFIG_DIR", "EVENT_BUS_KIND", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.env("EB_RUNS", self.path("runs"));
        command
    }

    pub(crate) fn eb(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// With this on standard input.
    pub(crate) fn eb_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut running = self.start(args);
        running.stdin.as_mut().unwrap().write_all(input).unwrap();
        running.stdin = None;
        running.finish()
    }

    /// Starts it with all its ends in our hands.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Running { child, stdin, stdout }
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr,
        }
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// The one result line of a run that was done.
    pub(crate) fn one(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!((self.code, lines.len()), (0, 1), "{self:?}");
        lines.remove(0)
    }

    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// A run under way.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it ended: {:?}", self.child.wait());
        serde_json::from_str(&line).unwrap()
    }

    /// Reads standard error up to a line that begins like this.
    #[cfg(unix)]
    pub(crate) fn hear_of(&mut self, beginning: &str) {
        let stderr = self.child.stderr.as_mut().unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        // Byte by byte: what comes behind the line is for `finish`.
        while std::io::Read::read(stderr, &mut byte).unwrap() == 1 {
            if byte != *b"\n" {
                line.push(byte[0]);
            } else if line.starts_with(beginning.as_bytes()) {
                return;
            } else {
                line.clear();
            }
        }
        panic!("it never said {beginning:?}");
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    #[cfg(unix)]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end and takes what is left of its output.
    pub(crate) fn finish(mut self) -> Ran {
        let mut stdout = String::new();
        if let Some(mut pipe) = self.stdout.take() {
            std::io::Read::read_to_string(&mut pipe, &mut stdout).unwrap();
        }
        drop(self.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        Ran { stdout, ..Ran::of(output) }
    }
}

/// Lines of audit events with these numbers.
pub(crate) fn events(range: std::ops::RangeInclusive<usize>) -> String {
    range.map(event).collect()
}

pub(crate) fn event(n: usize) -> String {
    format!(
        "{{\"event_id\":\"e{n}\",\"event_type\":\"audit.access.granted\",\"ts_utc\":\"2026-01-29T10:00:00.000000Z\",\
         \"manifest_fingerprint\":\"{WORLD}\",\"schema_version\":\"1.0.0\",\"payload\":{{\"n\":{n}}}}}\n"
    )
}

/// The event ids of receipts or records.
pub(crate) fn ids(lines: &[Value]) -> Vec<String> {
    let of = |v: &Value| {
        let id = v.get("event_id").or_else(|| v.get("envelope")?.get("event_id")).unwrap();
        id.as_str().unwrap().to_owned()
    };
    lines.iter().map(of).collect()
}

pub(crate) fn numbered(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    range.map(|n| format!("e{n}")).collect()
}

pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
