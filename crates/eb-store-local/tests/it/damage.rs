use std::fs;
use std::path::{Path, PathBuf};

use eb_contract::ErrorKind;
use eb_contract::stores::AdmissionIndex;
use eb_store_local::{AdmissionIndexConfig, EmbeddedAdmissionIndex};

use crate::support::*;

async fn filled(dir: &Path) {
    let index = open(dir);
    admit(&index, &(0..200).collect::<Vec<_>>(), 0).await;
    index.commit_checkpoint(checkpoint(200)).await.unwrap();
    index.close().await.unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn refusal(dir: &Path) -> eb_contract::Error {
    EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir)).unwrap_err()
}

#[tokio::test]
async fn another_format_is_refused_and_the_refusal_says_to_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let mark = dir.path().join("FORMAT");
    fs::write(&mark, "event-bus-admission-index 2\n").unwrap();
    let refused = refusal(dir.path());
    assert_eq!(*refused.kind(), ErrorKind::WrongVersion);
    assert!(refused.to_string().contains("rebuilds the index from the log"), "{refused}");
    for other in ["something else\n", "", "\u{fffd}"] {
        fs::write(&mark, other).unwrap();
        assert!(matches!(refusal(dir.path()).kind(), ErrorKind::Corrupt { .. }));
    }
    fs::write(&mark, b"\xff\xfe").unwrap();
    assert!(matches!(refusal(dir.path()).kind(), ErrorKind::Corrupt { .. }));
    fs::remove_file(&mark).unwrap();
    assert!(matches!(refusal(dir.path()).kind(), ErrorKind::Corrupt { .. }));
    EmbeddedAdmissionIndex::remove(dir.path()).unwrap();
    assert_eq!(open(dir.path()).checkpoint().await.unwrap(), None);
}

#[tokio::test]
async fn a_file_of_the_index_that_is_cut_short_or_gone_is_never_taken_for_a_whole_index() {
    let pattern = tempfile::tempdir().unwrap();
    filled(pattern.path()).await;
    let originals = files(&pattern.path().join("tree"));
    assert!(originals.len() >= 3, "{originals:?}");
    for original in &originals {
        let len = fs::metadata(original).unwrap().len();
        for keep in [None, Some(0), Some(len / 2), Some(len.saturating_sub(1))] {
            let dir = tempfile::tempdir().unwrap();
            copy(pattern.path(), dir.path());
            let file = dir.path().join(original.strip_prefix(pattern.path()).unwrap());
            match keep {
                None => fs::remove_file(&file).unwrap(),
                Some(len) => fs::File::options().write(true).open(&file).unwrap().set_len(len).unwrap(),
            }
            judge(dir.path(), &format!("{} cut to {keep:?}", file.display())).await;
        }
    }
}

#[tokio::test]
async fn an_index_that_has_lost_the_pointer_to_its_tables_does_not_start_empty() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    fs::remove_file(dir.path().join("tree/current")).unwrap();
    let refused = refusal(dir.path());
    assert!(matches!(refused.kind(), ErrorKind::Corrupt { .. }), "{refused:?}");
    assert!(refused.to_string().contains("older events would be admitted again"), "{refused}");
    assert!(files(&dir.path().join("tree")).len() > 1, "what is left is left alone");
    EmbeddedAdmissionIndex::remove(dir.path()).unwrap();
    assert_eq!(open(dir.path()).checkpoint().await.unwrap(), None);
}

#[tokio::test]
async fn an_index_whose_tables_are_gone_as_a_whole_does_not_start_empty() {
    let pattern = tempfile::tempdir().unwrap();
    filled(pattern.path()).await;
    for emptied in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        copy(pattern.path(), dir.path());
        fs::remove_dir_all(dir.path().join("tree")).unwrap();
        if emptied {
            fs::create_dir(dir.path().join("tree")).unwrap();
        }
        for _ in 0..2 {
            let refused = refusal(dir.path());
            assert!(matches!(refused.kind(), ErrorKind::Corrupt { .. }), "{refused:?}");
            assert!(refused.to_string().contains("older events would be admitted again"), "{refused}");
        }
        EmbeddedAdmissionIndex::remove(dir.path()).unwrap();
        assert_eq!(open(dir.path()).checkpoint().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_first_opening_that_was_cut_short_is_begun_anew_and_a_removal_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().await.unwrap();
    fs::remove_file(dir.path().join("tree/current")).unwrap();
    open(dir.path()).close().await.unwrap();

    filled(dir.path()).await;
    fs::write(dir.path().join("REMOVING"), "").unwrap();
    fs::remove_file(dir.path().join("tree/current")).unwrap();
    let index = open(dir.path());
    assert_eq!((index.checkpoint().await.unwrap(), scan_all(&index, 10).await), (None, Vec::new()));
    assert!(!dir.path().join("REMOVING").exists());
}

#[tokio::test]
async fn a_flipped_bit_is_noticed_or_harmless() {
    let pattern = tempfile::tempdir().unwrap();
    filled(pattern.path()).await;
    for original in files(&pattern.path().join("tree")) {
        let bytes = fs::read(&original).unwrap();
        // Every byte of the small files, a sample of the table.
        let step = (bytes.len() / 150).max(1);
        for at in (0..bytes.len()).step_by(step) {
            let dir = tempfile::tempdir().unwrap();
            copy(pattern.path(), dir.path());
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let file = dir.path().join(original.strip_prefix(pattern.path()).unwrap());
            fs::write(&file, damaged).unwrap();
            judge(dir.path(), &format!("{} byte {at}", file.display())).await;
        }
    }
}

/// Opens a damaged index: it must refuse with a way out, or have the checkpoint and give for each event its entry or an
/// error, never that it was not admitted.
async fn judge(dir: &Path, what: &str) {
    let index = match EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir)) {
        Ok(index) => index,
        Err(refused) => {
            assert!(
                matches!(refused.kind(), ErrorKind::Corrupt { .. } | ErrorKind::WrongVersion),
                "{what}: {refused:?}"
            );
            assert!(refused.advice().is_some_and(|a| a.contains("rebuilds")), "{what}: {refused}");
            return;
        }
    };
    match index.checkpoint().await.unwrap() {
        None => panic!("{what}: the index has forgotten what it held"),
        Some(stored) => {
            assert_eq!(stored, checkpoint(200), "{what}");
            for event in 0..200 {
                match index.get(key(event)).await {
                    Ok(found) => assert_eq!(found, Some(entry(event, event)), "{what}"),
                    Err(e) => assert!(matches!(e.kind(), ErrorKind::Corrupt { .. }), "{what}: {e}"),
                }
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_disk_that_does_not_take_writes_is_reported_and_nothing_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let index =
        EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir.path()).with_max_lag(10)).unwrap();
    admit(&index, &[0], 0).await;
    index.commit_checkpoint(checkpoint(1)).await.unwrap();
    // Where the next list of tables should go, there is a folder in the way.
    let version = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix('v')?.parse::<u64>().ok();
    let newest = files(&dir.path().join("tree")).iter().filter_map(version).max().unwrap();
    let in_the_way = dir.path().join(format!("tree/v{}", newest + 1));
    fs::create_dir(&in_the_way).unwrap();

    admit(&index, &[1, 2], 1).await;
    let refused = index.commit_checkpoint(checkpoint(3)).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    assert!(index.probe().await.is_err());
    assert_eq!(get(&index, 1).await, Some(entry(1, 1)), "still known");
    assert_eq!(index.checkpoint().await.unwrap(), Some(checkpoint(1)));
    let mut line = 3;
    let full = loop {
        let reservation = reserve(&index, &[line]).await[0];
        let confirmation = eb_contract::stores::Confirmation { reservation, entry: entry(line, line) };
        if let Err(full) = index.confirm(vec![confirmation]).await {
            break full;
        }
        line += 1;
        assert!(line < 100, "the tail is bounded");
    };
    assert!(full.is_retryable(), "{full:?}");

    fs::remove_dir(&in_the_way).unwrap();
    index.commit_checkpoint(checkpoint(line)).await.unwrap();
    index.probe().await.unwrap();
    drop(index);
    let index = open(dir.path());
    assert_eq!(index.checkpoint().await.unwrap(), Some(checkpoint(line)));
    for event in 0..line {
        assert_eq!(get(&index, event).await, Some(entry(event, event)));
    }
}
