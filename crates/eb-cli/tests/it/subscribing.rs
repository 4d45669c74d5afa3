//! What becomes of the commands of `eb subscribe` when it ends, however it ends.
//!
//! A command and its children hold the writing end of a pipe with a name: its reader sees the end when all of them are gone.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{AUDIT, Place, Ran, Running};

/// Longer than anything here takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// What comes out of a pipe with a name, read on a thread of its own.
struct Heard(mpsc::Receiver<String>);

impl Heard {
    /// Makes the pipe.
    fn of(place: &Place, name: &str) -> Self {
        let path = place.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (tell, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(File::open(path).unwrap()).lines();
            while let Some(Ok(line)) = lines.next() {
                tell.send(line).unwrap();
            }
        });
        Self(heard)
    }

    fn line(&self) -> String {
        self.0.recv_timeout(PATIENCE).expect("somebody says something")
    }

    /// Everybody who could say something is gone.
    fn ends(&self) {
        match self.0.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
            other => panic!("somebody is alive: {other:?}"),
        }
    }
}

impl Heard {
    /// Everybody who could say something was gone before now; the reader of the pipe may be a moment behind.
    fn has_ended(&self) -> bool {
        self.0.recv_timeout(Duration::from_millis(250)) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

fn subscribe(place: &Place, more: &[&str], command: &str) -> Running {
    let args = ["--json", "subscribe", "--topic", AUDIT, "--name", "job", "--delay-ms", "1", "--shell"];
    place.start(&[&args[..], more, &["--exec", command]].concat())
}

fn summary(ran: &Ran) -> Value {
    serde_json::from_str(ran.stderr.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{ran:?}"))
}

/// Says its own number and its starter's, has a child, and lasts longer than any test.
const LASTING: &str = "exec 3> alive; sleep 300 & echo $$ $PPID >&3; wait";

#[test]
fn a_killed_subscriber_takes_its_commands_and_their_children_with_it() {
    let place = Place::with_events(1);
    let alive = Heard::of(&place, "alive");
    let running = subscribe(&place, &[], LASTING);
    alive.line();
    running.signal("-KILL");
    alive.ends();
    running.finish();
}

#[test]
fn the_commands_of_a_subscriber_that_is_stopped_end_before_the_next_one_runs_any() {
    let place = Place::with_events(1);
    let (alive, second) = (Heard::of(&place, "alive"), Heard::of(&place, "second"));
    let command = format!("if mkdir first; then {LASTING}; else echo $EB_EVENT_ID > second; fi");
    let stopped = subscribe(&place, &["--lease", "2"], &command);
    alive.line();
    stopped.signal("-STOP");
    let next = subscribe(&place, &["--lease", "2", "--until-head"], &command);
    assert_eq!(second.line(), "e1");
    assert!(alive.has_ended(), "the first command runs beside the second");
    assert_eq!(summary(&next.finish().ended(0))["handled"], 1);
    stopped.signal("-CONT");
    stopped.signal("-INT");
    assert_eq!(summary(&stopped.finish().ended(0)), json!({"handled": 0, "dead_letters": 0}));
}

#[test]
fn a_command_may_outlast_the_lease_as_long_as_it_is_renewed() {
    let place = Place::with_events(1);
    let args = ["--lease", "2", "--until-head", "--max-attempts", "1"];
    let ran = subscribe(&place, &args, "sleep 4; echo done").finish().ended(0);
    assert_eq!((summary(&ran)["handled"].clone(), ran.stdout.as_str()), (json!(1), "done\n"));
}

#[test]
fn commands_that_are_wrapped_or_lead_a_group_of_jobs_are_taken_along_too() {
    let place = Place::with_events(1);
    let alive = Heard::of(&place, "alive");
    let running = subscribe(&place, &[], &format!("exec timeout 300 sh -c '{LASTING}'"));
    alive.line();
    running.signal("-KILL");
    alive.ends();
    running.finish();
}

#[test]
fn what_would_be_run_by_a_killed_subscriber_is_run_by_the_next() {
    let place = Place::with_events(3);
    let alive = Heard::of(&place, "alive");
    let running = subscribe(
        &place,
        &["--concurrency", "1"],
        "[ $EB_EVENT_ID = e1 ] || { exec 3> alive; echo >&3; sleep 300; }",
    );
    alive.line();
    running.signal("-KILL");
    alive.ends();
    running.finish();
    subscribe(&place, &["--until-head"], "echo $EB_EVENT_ID >> got").finish().ended(0);
    let got = std::fs::read_to_string(place.path("got")).unwrap();
    // What was finished right before the end may come once more.
    assert!(["e1\ne2\ne3\n", "e2\ne3\n"].contains(&sorted(&got).as_str()), "{got}");
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn asked_to_stop_it_lets_running_commands_finish() {
    for signal in ["-INT", "-TERM"] {
        let place = Place::with_events(2);
        let said = Heard::of(&place, "said");
        assert!(Command::new("mkfifo").arg(place.path("go")).status().unwrap().success());
        let mut running = subscribe(
            &place,
            &["--concurrency", "1", "--grace", "300"],
            "echo $EB_EVENT_ID > said; read -r go < go; echo $EB_EVENT_ID >> got",
        );
        assert_eq!(said.line(), "e1");
        running.signal(signal);
        running.hear_of("eb: stopping: running commands have 300 s to finish, another Ctrl-C kills them");
        std::fs::write(place.path("go"), "go\n").unwrap();
        let ran = running.finish().ended(0);
        assert_eq!(summary(&ran), json!({"handled": 1, "dead_letters": 0}), "{signal}");
        assert_eq!(std::fs::read_to_string(place.path("got")).unwrap(), "e1\n");
    }
}

#[test]
fn asked_twice_it_leaves_at_once_and_takes_its_commands_along() {
    let place = Place::with_events(1);
    let alive = Heard::of(&place, "alive");
    let mut running = subscribe(&place, &["--grace", "300"], LASTING);
    alive.line();
    running.signal("-INT");
    running.hear_of("eb: stopping: ");
    running.signal("-INT");
    alive.ends();
    let mut rest = String::new();
    running.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    running.finish().ended(130);
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_its_children_and_tried_again() {
    let place = Place::with_events(1);
    let alive = Heard::of(&place, "alive");
    let command = format!("[ $EB_ATTEMPT -gt 1 ] || {{ {LASTING}; }}");
    let running = subscribe(&place, &["--until-head", "--timeout", "1"], &command);
    alive.line();
    alive.ends();
    assert_eq!(summary(&running.finish().ended(0))["handled"], 1);
}

#[test]
fn when_the_process_that_keeps_commands_is_killed_they_are_tried_again_and_never_beside_themselves() {
    let place = Place::with_events(1);
    let alive = Heard::of(&place, "alive");
    let command = format!("[ $EB_ATTEMPT -gt 1 ] || {{ {LASTING}; }}");
    let running = subscribe(&place, &["--until-head"], &command);
    let line = alive.line();
    let keeper = line.split_whitespace().nth(1).unwrap();
    assert_ne!(keeper, running.id().to_string());
    assert!(Command::new("kill").args(["-TERM", keeper]).status().unwrap().success());
    assert!(Command::new("kill").args(["-KILL", keeper]).status().unwrap().success());
    alive.ends();
    assert_eq!(summary(&running.finish().ended(0))["handled"], 1);
}

#[test]
fn what_a_command_leaves_running_goes_on_until_it_ends_by_itself() {
    let place = Place::with_events(2);
    let left = Heard::of(&place, "left");
    // Its standard error stays open, too; the next command does not wait for it.
    let command =
        "if [ $EB_EVENT_ID = e1 ]; then { read -r go < go; echo $go > left; } & else echo $EB_EVENT_ID; fi";
    assert!(Command::new("mkfifo").arg(place.path("go")).status().unwrap().success());
    let running = subscribe(&place, &["--until-head", "--concurrency", "1"], command);
    let waiting = std::thread::spawn({
        let go = place.path("go");
        move || std::fs::write(go, "on\n").unwrap()
    });
    assert_eq!(left.line(), "on");
    waiting.join().unwrap();
    left.ends();
    let ran = running.finish().ended(0);
    assert_eq!((summary(&ran)["handled"].clone(), ran.stdout.as_str()), (json!(2), "e2\n"));
}

#[test]
fn a_command_that_cannot_be_started_is_tried_again_and_says_why() {
    let place = Place::with_events(1);
    let args =
        ["--json", "subscribe", "--topic", AUDIT, "--until-head", "--max-attempts", "2", "--delay-ms", "1"];
    let ran = place.eb(&[&args[..], &["--exec", "no-such-command", "-x"]].concat()).ended(3);
    assert_eq!(summary(&ran)["dead_letters"], 1);
    let letter = place.eb(&["dlq", "list"]).one();
    assert!(letter["last_error"].as_str().unwrap().contains("cannot run `no-such-command`"), "{letter}");
}
