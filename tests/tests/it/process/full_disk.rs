//! A disk that is really full, in the two ways that need no real disk: a limit on the size of files, and a small file
//! system in memory.

use std::cell::OnceCell;
use std::path::Path;
use std::process::Command;

use eb_system_tests::facts::Fact;
use eb_system_tests::ledger::Ledger;
use eb_testkit::process::Spoken;

use super::{check, child, command, enter};

/// Runs a child under a shell that first does `setup`.
fn under(setup: &str, root: &Path, options: &[&str]) -> Command {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let inner = command("publish", root, &options);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{setup}; exec \"$@\""), "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    shell
}

/// Hears a child until it pauses after a failed call.
fn until_pause(child: &mut Spoken, ledger: &mut Ledger) -> Vec<Fact> {
    let mut lines = Vec::new();
    loop {
        let line = child.line().expect("the child pauses before it ends");
        if Fact::hear(&line) == Fact::Reached("pause".to_owned()) {
            return enter(ledger, lines);
        }
        lines.push(line);
    }
}

fn assert_without_effect(failures: &[Fact]) {
    assert!(!failures.is_empty());
    for failure in failures {
        let Fact::Failed { unknown, text, .. } = failure else { unreachable!() };
        assert!(!unknown, "the failed record is known to be absent: {text}");
    }
}

fn let_it_go_on(child: &mut std::process::ChildStdin) {
    use std::io::Write;
    child.write_all(b"go on\n").expect("the child waits for a line");
}

/// What holds in both cases: the failed records are absent, those before them intact, and the next append, in the same process or in
/// the next one, stands on its own line.
fn fills_up(mut writer: Spoken, make_room: impl FnOnce(u32), check: impl Fn(&Ledger)) -> Ledger {
    let mut ledger = Ledger::default();
    let mut stdin = writer.stdin().expect("piped");
    let failures = until_pause(&mut writer, &mut ledger);
    assert_without_effect(&failures);
    let before = ledger.acks();
    assert!(before > 0);
    check(&ledger);

    let_it_go_on(&mut stdin);
    let failures = until_pause(&mut writer, &mut ledger);
    assert_without_effect(&failures);
    check(&ledger);

    make_room(writer.pid());
    let_it_go_on(&mut stdin);
    let mut more = Vec::new();
    while more.len() < 30 {
        more.push(writer.line().expect("with room again it publishes"));
    }
    drop(stdin);
    let words = writer.wait().expect("a child can be waited for");
    assert!(words.status.success(), "{words:?}");
    assert!(enter(&mut ledger, more.into_iter().chain(words.lines)).is_empty());
    assert!(ledger.acks() >= before + 30);
    check(&ledger);
    ledger
}

#[test]
fn a_record_beyond_the_file_size_limit_is_absent_and_the_log_goes_on_once_it_is_lifted() {
    let dir = tempfile::tempdir().unwrap();
    // 120 blocks of 512 bytes; without the trap the process would die of SIGXFSZ.
    let mut shell = under("trap '' XFSZ; ulimit -S -f 120", dir.path(), &["pause=1"]);
    let writer = Spoken::spawn(&mut shell).unwrap();
    let lift = |pid: u32| {
        let done = Command::new("prlimit").arg(format!("--pid={pid}")).arg("--fsize=unlimited").status();
        assert!(done.expect("prlimit is part of util-linux").success());
    };
    let mut ledger = fills_up(writer, lift, |ledger| {
        check(dir.path(), ledger).unwrap();
    });
    let next = child("publish", dir.path(), &["run=next".to_owned(), "count=5".to_owned()]).wait().unwrap();
    assert!(enter(&mut ledger, next.lines).is_empty());
    assert_eq!(check(dir.path(), &ledger).unwrap(), ledger.acks());
}

/// Needs leave to mount a file system in a namespace of its own (usual for root, and for users on most distributions).
#[test]
#[cfg(target_os = "linux")]
fn a_record_that_finds_the_disk_full_is_absent_and_the_log_goes_on_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let may_mount =
        Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs"]).arg(dir.path()).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        println!("not run: no leave to mount a small file system here");
        return;
    }
    let mount = dir.path().display();
    // The ballast makes room when it goes.
    let setup = format!(
        "mount -t tmpfs -o size=320k tmpfs '{mount}' && head -c 100000 /dev/zero > '{mount}/ballast'"
    );
    let inner = under(&setup, &dir.path().join("bus"), &["pause=1"]);
    let mut outer = Command::new("unshare");
    outer.args(["-rm"]).arg(inner.get_program()).args(inner.get_args());
    let writer = Spoken::spawn(&mut outer).unwrap();
    // The child's view of the mount, kept open: it outlives the child, and with it the mount.
    let inside = Path::new("/proc").join(writer.pid().to_string()).join("root");
    let mount = inside.join(dir.path().strip_prefix("/").expect("temporary folders have absolute paths"));
    let kept = OnceCell::new();
    let view = || {
        use std::os::fd::AsRawFd;
        let folder =
            kept.get_or_init(|| std::fs::File::open(&mount).expect("the child lives and has mounted it"));
        Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string())
    };
    fills_up(
        writer,
        |_| std::fs::remove_file(view().join("ballast")).unwrap(),
        |ledger| {
            assert!(view().join("bus/bus.json").exists());
            check(&view().join("bus"), ledger).unwrap();
        },
    );
}
