//! `cargo xtask services`, each test with a target folder of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use eb_testkit::services::{PgWire, RedisReply, RedisWire, free_port};
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    path: Option<String>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Postgres runs as another user where the tests run as root.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, path: None }
    }

    /// With a `docker` of ours before all others: a script that writes down what it was told.
    fn with_docker(script: &str) -> Self {
        let mut place = Self::new();
        let bin = place.folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let said = place.said_to_docker();
        let text = format!(
            "#!/bin/sh\necho \"$EB_POSTGRES_PORT $EB_LOCALSTACK_PORT $EB_REDIS_PORT $*\" >> {}\n{script}\n",
            said.display()
        );
        for name in ["docker", "docker-compose"] {
            fs::write(bin.join(name), &text).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        place.path = Some(format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
        place
    }

    fn said_to_docker(&self) -> PathBuf {
        self.folder.path().join("said")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("services").args(args).env("CARGO_TARGET_DIR", self.folder.path());
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    fn folder_of(&self, service: &str) -> PathBuf {
        self.folder.path().join("services/up").join(service)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that failed may have left something up.
        self.run(&["down"]);
    }
}

/// `up` in the foreground, past the line that says so.
struct Held {
    child: Child,
    shown: String,
    stdout: BufReader<ChildStdout>,
}

impl Held {
    fn start(place: &Place, args: &[&str]) -> Self {
        let mut child = place.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut shown = String::new();
        while !shown.contains("export ") {
            assert_ne!(stdout.read_line(&mut shown).unwrap(), 0, "it ended: {shown}");
        }
        Self { child, shown, stdout }
    }

    fn end(mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.stdout.read_to_string(&mut self.shown).unwrap();
        self.child.wait().unwrap().code()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The port in a line that `up` prints for the shell.
fn postgres_port(shown: &str) -> u16 {
    let line = shown.lines().find_map(|line| line.strip_prefix("export EB_POSTGRES_URL=")).unwrap();
    let port = line.strip_prefix("postgres://event_bus:event_bus@127.0.0.1:").unwrap();
    port.strip_suffix("/event_bus").unwrap().parse().unwrap()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn gone(port: u16, folder: &Path) {
    wait_until("the end of the server", || TcpStream::connect(("127.0.0.1", port)).is_err());
    wait_until("the end of its folder", || !folder.exists());
}

#[test]
fn postgres_held_in_the_foreground_ends_with_ctrl_c_and_with_a_kill() {
    let place = Place::new();
    for (signal, code) in [("-INT", Some(0)), ("-TERM", Some(0)), ("-KILL", None)] {
        let asked = free_port().unwrap();
        let args = ["up", "--native", "--only", "postgres", "--postgres-port", &asked.to_string()];
        let held = Held::start(&place, &args);
        let port = postgres_port(&held.shown);
        assert_eq!(port, asked);
        PgWire::connect(port, "event_bus", "event_bus").unwrap().query("CREATE TABLE t (n int)").unwrap();
        assert!(text(&place.run(&["status"]).stdout).contains(&format!("127.0.0.1:{port}/event_bus")));
        assert_eq!(held.end(signal), code, "{signal}");
        gone(port, &place.folder_of("postgres"));
        assert!(!text(&place.run(&["status"]).stdout).contains(" up "), "{signal}");
    }
}

#[test]
fn postgres_left_running_is_found_again_until_it_is_taken_down() {
    let place = Place::new();
    let up = ["up", "--native", "--only", "postgres", "--detach", "--postgres-port"];
    let port = free_port().unwrap().to_string();
    let args = [&up[..], &[port.as_str()]].concat();
    let first = place.run(&args);
    assert!(first.status.success(), "{first:?}");
    let port = postgres_port(&text(&first.stdout));
    let again = place.run(&["up", "--native", "--only", "postgres", "--detach"]);
    assert_eq!(again.stdout, first.stdout);
    assert!(text(&again.stderr).contains("up already"), "{again:?}");
    assert!(PgWire::connect(port, "event_bus", "event_bus").is_ok());
    assert_eq!(text(&place.run(&["down"]).stdout), "stopped: postgres\n");
    gone(port, &place.folder_of("postgres"));
    assert_eq!(text(&place.run(&["down"]).stdout), "nothing was up\n");
}

#[test]
fn redis_held_and_left_running_syncs_before_it_answers_and_is_gone_when_it_is_taken_down() {
    let place = Place::new();
    let port = free_port().unwrap();
    let args = ["up", "--native", "--only", "redis", "--redis-port", &port.to_string()];
    let held = Held::start(&place, &args);
    assert!(
        held.shown.contains(&format!("export EB_REDIS_URL=redis://127.0.0.1:{port}\n")),
        "{}",
        held.shown
    );
    assert!(
        text(&place.run(&["status"]).stdout).contains(&format!("up    redis://127.0.0.1:{port}  process"))
    );
    let mut wire = RedisWire::connect(port).unwrap();
    let setting = |wire: &mut RedisWire, name: &str| match wire.must(&["CONFIG", "GET", name]).unwrap() {
        RedisReply::List(pair) => pair[1].text().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(setting(&mut wire, "appendonly"), "yes");
    assert_eq!(setting(&mut wire, "appendfsync"), "always");
    assert_eq!(held.end("-INT"), Some(0));
    gone(port, &place.folder_of("redis"));
    let left = place.run(&[&args[..], &["--detach"]].concat());
    assert!(left.status.success(), "{left:?}");
    assert!(RedisWire::connect(port).unwrap().must(&["PING"]).is_ok());
    assert_eq!(text(&place.run(&["down", "--only", "redis"]).stdout), "stopped: redis\n");
    gone(port, &place.folder_of("redis"));
}

#[test]
fn a_service_that_cannot_be_had_is_named_with_its_reason() {
    let place = Place::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ran = place.run(&["up", "--native", "--detach", "--only", "postgres", "--postgres-port", &port]);
    assert_eq!(ran.status.code(), Some(1));
    let expected = format!("services: postgres cannot be had: postgres cannot have port {port}: ");
    assert!(text(&ran.stderr).contains(&expected), "{ran:?}");
}

#[test]
fn containers_are_started_and_stopped_by_compose_where_an_engine_answers() {
    let place = Place::with_docker(
        "case \"$1\" in version) echo 28.0 ;; esac; case \"$*\" in *ps*) echo postgres ;; esac",
    );
    let ports = ["--postgres-port", "16001", "--localstack-port", "16002", "--redis-port", "16003"];
    let ran = place.run(&[&["up", "--detach"][..], &ports].concat());
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(
        text(&ran.stdout),
        "# postgres postgres://event_bus:event_bus@127.0.0.1:16001/event_bus, container\n\
         # localstack http://127.0.0.1:16002, container\n\
         # redis redis://127.0.0.1:16003, container\n\
         export EB_POSTGRES_URL=postgres://event_bus:event_bus@127.0.0.1:16001/event_bus\n\
         export EB_KINESIS_ENDPOINT_URL=http://127.0.0.1:16002\n\
         export EB_REDIS_URL=redis://127.0.0.1:16003\n"
    );
    let status = text(&place.run(&["status"]).stdout);
    assert!(
        status.contains("postgres       up    postgres://event_bus:event_bus@127.0.0.1:16001"),
        "{status}"
    );
    assert!(status.contains("localstack     down"), "what the engine does not list is down: {status}");
    assert_eq!(text(&place.run(&["down"]).stdout), "stopped: the containers\n");
    let said = fs::read_to_string(place.said_to_docker()).unwrap();
    let compose: Vec<_> = said.lines().filter(|line| line.contains(" --file ")).collect();
    assert!(compose[0].starts_with("16001 16002 16003 compose --file "), "{said}");
    assert!(
        compose[0].ends_with("docker-compose.localstack.yml up --detach --wait postgres localstack redis")
    );
    assert!(compose.last().unwrap().ends_with(" down --volumes"), "{said}");
}

#[test]
fn containers_that_were_asked_for_are_not_replaced_by_something_else() {
    let place = Place::with_docker("echo 'the engine sleeps' >&2; exit 1");
    let ran = place.run(&["up", "--docker", "--detach"]);
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(
        text(&ran.stderr),
        "cargo xtask: no containers: the engine sleeps; start the engine, or leave out --docker\n"
    );
    assert_eq!(text(&place.run(&["status"]).stdout).matches(" down").count(), 4);
}
