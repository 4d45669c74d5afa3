//! Native servers: they start, survive crashes as their makers promise, and never outlive their owner.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use eb_testkit::is_long;
use eb_testkit::process::Spoken;
use eb_testkit::services::{
    KinesisLocal, KinesisLocalOptions, LocalStack, PgWire, Postgres, PostgresOptions, Signal, Stop,
    TestDatabase, folder, http,
};

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn rows(port: u16, sql: &str) -> Vec<String> {
    let mut wire = PgWire::connect(port, "postgres", "postgres").expect("the server answers");
    wire.query(sql).expect("the statement is right")
}

#[test]
fn what_postgres_committed_is_there_after_every_way_to_stop_it() {
    let mut server = Postgres::start(&PostgresOptions::default()).unwrap();
    let port = server.port();
    assert_eq!(rows(port, "SHOW fsync"), ["on"]);
    rows(port, "CREATE TABLE facts (n int)");
    for (n, how) in (0..).zip([Stop::Fast, Stop::Immediate, Stop::Kill, Stop::Immediate]) {
        rows(port, &format!("INSERT INTO facts VALUES ({n})"));
        server.stop(how).unwrap();
        // Children of a killed server end a moment later, and one that was just being made has its socket.
        wait_until("the end of the server", || !answers(port));
        server.restart().unwrap();
        assert_eq!(server.port(), port);
        assert_eq!(rows(port, "SELECT count(*) FROM facts"), [(n + 1).to_string()], "{how:?}");
    }
    drop(server);
    wait_until("the end of the server", || !answers(port));
}

#[test]
fn a_postgres_of_a_killed_owner_ends_and_its_folder_goes() {
    let me = std::env::current_exe().unwrap();
    let mut owner = Spoken::spawn(
        Command::new(me)
            .args(["--exact", "services::an_owner_that_waits_to_be_killed", "--ignored", "--nocapture"])
            .env("EB_TESTKIT_OWNER", "1"),
    )
    .unwrap();
    let port: u16 = loop {
        let line = owner.line().expect("the owner says its port");
        if let Some(port) = line.strip_prefix("port ") {
            break port.parse().unwrap();
        }
    };
    let folder = folder::root().join(format!("run/postgres-{}-0", owner.pid()));
    assert!(answers(port) && folder.exists());
    owner.kill().unwrap();
    wait_until("the end of the server", || !answers(port));
    wait_until("the end of its folder", || !folder.exists());
}

/// Not a test of its own: the process that the test above kills.
#[test]
#[ignore = "run by a_postgres_of_a_killed_owner_ends_and_its_folder_goes"]
fn an_owner_that_waits_to_be_killed() {
    if std::env::var_os("EB_TESTKIT_OWNER").is_none() {
        return;
    }
    let server = Postgres::start(&PostgresOptions::default()).unwrap();
    println!("\nport {}", server.port());
    let mut end = String::new();
    std::io::stdin().read_line(&mut end).unwrap();
}

#[test]
fn each_test_has_a_database_of_its_own() {
    let (a, b) = (TestDatabase::create().unwrap(), TestDatabase::create().unwrap());
    assert_ne!(a.url(), b.url());
    let (rest, name) = a.url().rsplit_once('/').map(|(r, n)| (r.to_owned(), n.to_owned())).unwrap();
    let port = rest.rsplit_once(':').unwrap().1.parse().unwrap();
    PgWire::connect(port, "postgres", &name).unwrap().query("CREATE TABLE own (n int)").unwrap();
    drop(a);
    assert!(PgWire::connect(port, "postgres", &name).is_err());
    drop(b);
}

#[test]
fn kinesis_engines_start_answer_and_take_their_children_with_them() {
    if !is_long() {
        println!("not run: the Kinesis engines, which are installed from registries: --long runs them");
        return;
    }
    let mut engine = KinesisLocal::start(&KinesisLocalOptions::default()).unwrap();
    let port = engine.url().rsplit_once(':').unwrap().1.parse().unwrap();
    engine.stop(Signal::Kill).unwrap();
    assert!(!answers(port));
    engine.restart().unwrap();
    assert!(answers(port));

    let localstack = LocalStack::start().unwrap();
    let port: u16 = localstack.url().rsplit_once(':').unwrap().1.parse().unwrap();
    let streams = || {
        Command::new("curl")
            .args(["-s", "-H", "X-Amz-Target: Kinesis_20131202.ListStreams", "-d", "{}"])
            .args(["-H", "Content-Type: application/x-amz-json-1.1"])
            .args(["-H", "Authorization: AWS4-HMAC-SHA256 Credential=test/20250101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00"])
            .arg(localstack.url())
            .output()
            .unwrap()
    };
    let answer = String::from_utf8(streams().stdout).unwrap();
    assert!(answer.contains("StreamNames"), "{answer}");
    localstack.fail_writes(0.5).unwrap();
    localstack.fail_writes(0.0).unwrap();
    assert_eq!(http(port, "GET", "/_localstack/health", None).unwrap().status, 200);
    let engines = || {
        let all = Command::new("ps").args(["-A", "-o", "args="]).output().unwrap();
        let all = String::from_utf8_lossy(&all.stdout).into_owned();
        all.lines().filter(|l| l.contains("kinesis-local/0.4.13")).count()
    };
    assert_eq!(engines(), 1, "the engine that LocalStack has started");
    drop(localstack);
    assert_eq!(engines(), 0);
}
