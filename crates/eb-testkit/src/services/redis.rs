//! Redis from the system's package, with its data in a folder of its own.
//!
//! Every write is in the append-only file and synced before it is answered, unless [`RedisOptions::settings`] say
//! otherwise: what is crashed here is what would be crashed elsewhere.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::daemon::{Daemon, Paused, Signal};
use super::kinesis_local::record;
use super::{During, PATIENCE, Result, ServiceError, folder, install, poll_until, port_for};

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Settings beyond the usual ones, such as `("appendfsync", "everysec")`; the last of a name counts.
    pub settings: Vec<(String, String)>,
    /// Files for its folder, such as a certificate and its key; settings may name them without a path.
    pub files: Vec<(String, Vec<u8>)>,
    /// The port to listen on; a free one without.
    pub port: Option<u16>,
}

/// A server of this process. Dropping it stops the server and removes its data.
#[derive(Debug)]
pub struct Redis {
    binary: PathBuf,
    folder: PathBuf,
    port: u16,
    options: RedisOptions,
    daemon: Option<Daemon>,
    remove: bool,
}

impl Redis {
    /// Starts an empty server.
    ///
    /// # Errors
    /// When Redis is not installed and cannot be, or does not start.
    pub fn start(options: &RedisOptions) -> Result<Self> {
        folder::clean_orphans()?;
        let binary = Self::install()?;
        Self::start_in(binary, folder::make_own("redis")?, options, true)
    }

    /// Finds the server program, or installs it by apt where this process may.
    pub(crate) fn install() -> Result<PathBuf> {
        let find = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let usual = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from);
            let all = std::env::split_paths(&path).chain(usual).map(|folder| folder.join("redis-server"));
            all.into_iter().find(|program| program.is_file())
        };
        const PACKAGE: install::Package = install::Package {
            name: "redis-server",
            // It would start a server of the machine's own.
            environment: &[("RUNLEVEL", "1")],
            missing: "no redis-server was found",
            advice: "install Redis 7.0 or newer (Debian and Ubuntu: apt install redis-server, macOS: brew install redis)",
        };
        install::found_or_by_apt(find, &PACKAGE)
    }

    pub(crate) fn start_in(
        binary: PathBuf,
        folder: PathBuf,
        options: &RedisOptions,
        remove: bool,
    ) -> Result<Self> {
        let port = port_for("Redis", options.port)?;
        let mut server = Self { binary, folder, port, options: options.clone(), daemon: None, remove };
        let data = server.data();
        fs::create_dir_all(&data).during(|| format!("make {}", data.display()))?;
        for (name, bytes) in &options.files {
            let file = data.join(name);
            let private = || fs::set_permissions(&file, fs::Permissions::from_mode(0o600));
            fs::write(&file, bytes).and_then(|()| private()).during(|| format!("write {name}"))?;
        }
        server.run()?;
        Ok(server)
    }

    /// The port on the loopback interface; it stays the same through restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The folder of its append-only file. Touch it only while the server is stopped.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Changes what the next start is told.
    pub fn options_mut(&mut self) -> &mut RedisOptions {
        &mut self.options
    }

    /// Halts it until the answer is dropped: it takes connections in, and answers nobody.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<Paused> {
        let running = self.daemon.as_ref();
        running.ok_or_else(|| ServiceError::new("Redis is not running"))?.pause()
    }

    /// Stops the server, in good order or by `SIGKILL`; its data and its port stay.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |daemon| daemon.stop(signal))
    }

    /// Starts the stopped server again, on the same port, and waits until it has loaded its data.
    ///
    /// # Errors
    /// When it does not start, with the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        match self.daemon {
            Some(_) => Ok(()),
            None => self.run(),
        }
    }

    /// A connection for a test's own commands.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn wire(&self) -> Result<RedisWire> {
        RedisWire::connect(self.port)
    }

    /// An error with the end of its log when it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), |daemon| daemon.check_alive("Redis"))
    }

    pub(crate) fn leave(mut self) -> Option<u32> {
        self.remove = false;
        self.daemon.take().map(Daemon::leave)
    }

    fn run(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        for (name, value) in &self.options.settings {
            command.arg(format!("--{name}")).args(value.split(' '));
        }
        command.arg("--dir").arg(self.data()).current_dir(self.data());
        let mut daemon = Daemon::start(&mut command, &self.folder, Signal::Term, self.remove)?;
        record("redis", &mut daemon, &self.folder, &self.url())?;
        poll_until("Redis", PATIENCE, || {
            daemon.check_alive("Redis")?;
            let answer = RedisWire::connect(self.port).and_then(|mut wire| wire.send(&["PING"]));
            // A server that wants a password answers too; one that is loading says so.
            Ok(answer.ok().filter(|reply| !matches!(reply, RedisReply::Error(e) if e.starts_with("LOADING"))))
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.daemon.take());
        if self.remove {
            // What is left is found by the next start.
            let _ = folder::remove(&self.folder);
        }
    }
}

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisReply {
    /// A text, lossily.
    Text(String),
    /// A number.
    Number(i64),
    /// Nothing.
    Nil,
    /// A list.
    List(Vec<RedisReply>),
    /// An error, without its dash.
    Error(String),
}

impl RedisReply {
    /// The text of a text or a number.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Number(n) => Some(n.to_string()),
            _ => None,
        }
    }
}

/// A plain connection for commands of tests: blocking, one at a time.
#[derive(Debug)]
pub struct RedisWire {
    stream: BufReader<TcpStream>,
}

impl RedisWire {
    /// Connects to a port of the loopback interface.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn connect(port: u16) -> Result<Self> {
        let stream =
            TcpStream::connect(("127.0.0.1", port)).during(|| format!("connect to Redis at {port}"))?;
        let patience = Some(Duration::from_secs(30));
        stream
            .set_read_timeout(patience)
            .and_then(|()| stream.set_nodelay(true))
            .during(|| "set up a connection".to_owned())?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends one command and brings its answer.
    ///
    /// # Errors
    /// When the connection breaks, or the answer is none of the protocol's.
    pub fn send(&mut self, words: &[&str]) -> Result<RedisReply> {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(text.as_bytes()).during(|| format!("send {words:?}"))?;
        self.read()
    }

    /// Sends one command that must succeed.
    ///
    /// # Errors
    /// As [`RedisWire::send`], and what the server says.
    pub fn must(&mut self, words: &[&str]) -> Result<RedisReply> {
        match self.send(words)? {
            RedisReply::Error(said) => Err(ServiceError::new(format!("{words:?}: {said}"))),
            reply => Ok(reply),
        }
    }

    fn read(&mut self) -> Result<RedisReply> {
        let odd = |line: &str| ServiceError::new(format!("Redis answered {line:?}"));
        let mut line = String::new();
        self.stream.read_line(&mut line).during(|| "read an answer".to_owned())?;
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| odd(line))?;
        let number = || rest.parse::<i64>().map_err(|_| odd(line));
        Ok(match kind {
            "+" => RedisReply::Text(rest.to_owned()),
            "-" => RedisReply::Error(rest.to_owned()),
            ":" => RedisReply::Number(number()?),
            "$" => match usize::try_from(number()?) {
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes).during(|| "read an answer".to_owned())?;
                    RedisReply::Text(String::from_utf8_lossy(&bytes[..length]).into_owned())
                }
                Err(_) => RedisReply::Nil,
            },
            "*" => match number()? {
                -1 => RedisReply::Nil,
                count => RedisReply::List((0..count).map(|_| self.read()).collect::<Result<_>>()?),
            },
            _ => return Err(odd(line)),
        })
    }
}
