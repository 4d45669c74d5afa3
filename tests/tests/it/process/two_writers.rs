//! Two processes that want to write one partition.

use eb_system_tests::facts::Fact;
use eb_system_tests::ledger::Ledger;

use super::{check, child, enter};

#[test]
fn the_second_writer_is_refused_naming_the_holder_and_nothing_interleaves() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    let mut first = child("publish", dir.path(), &["run=first".to_owned(), "tasks=4".to_owned()]);
    let pid = first.pid();
    let mut heard: Vec<String> = (0..20).map(|_| first.line().expect("the first one publishes")).collect();

    for run in 0..3 {
        let options = [format!("run=second-{run}"), "tasks=2".to_owned()];
        let mut second = child("publish", dir.path(), &options);
        let _stdin = second.stdin();
        let words = second.wait().unwrap();
        let failures = enter(&mut ledger, words.lines);
        assert_eq!(failures.len(), 2, "one for each task: {failures:?}");
        for failure in failures {
            let Fact::Failed { code, unknown, text, .. } = failure else { unreachable!() };
            assert_eq!((code.as_str(), unknown), ("locked", false), "{text}");
            assert!(text.contains(&format!("pid {pid} ")), "names the holder: {text}");
        }
        assert_eq!(ledger.acks(), 0, "the second one got no ACK");
    }
    // The holder goes on undisturbed, and closes in order.
    heard.extend((0..20).map(|_| first.line().expect("the first one still publishes")));
    let words = first.wait().unwrap();
    assert!(words.status.success(), "{words:?}");
    assert!(enter(&mut ledger, heard.into_iter().chain(words.lines)).is_empty());
    assert_eq!(check(dir.path(), &ledger).unwrap(), ledger.acks());
}

#[test]
fn two_processes_of_300_publishes_each_give_600_acks_at_600_places() {
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let options = |run: &str| {
            ["tasks=3", "count=100", "patient=1", &format!("run={run}")].map(str::to_owned).to_vec()
        };
        // Both from the first moment on: one of them makes the bus and the topic under the other's eyes.
        let both = ["a", "b"].map(|run| child("publish", dir.path(), &options(run)));
        let mut ledger = Ledger::default();
        for mut process in both {
            // They end by themselves; their standard input stays open until they have.
            let _stdin = process.stdin();
            let words = process.wait().unwrap();
            assert!(words.status.success(), "{words:?}");
            assert!(enter(&mut ledger, words.lines).is_empty());
        }
        assert_eq!(ledger.acks(), 600);
        assert_eq!(check(dir.path(), &ledger).unwrap(), 600);
    }
}
