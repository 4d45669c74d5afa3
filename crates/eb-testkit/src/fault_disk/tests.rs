use std::path::Path;

use eb_disk::{Disk, DiskFile, OpenMode, RealDisk, read_full, replace_file, write_full};

use super::*;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn content(disk: &FaultDisk, name: &str) -> Option<Vec<u8>> {
    disk.files().into_iter().find(|(path, _)| path == Path::new(name)).map(|(_, content)| content)
}

fn written(disk: &FaultDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(path(name), OpenMode::Create).unwrap();
    write_full(&*file, bytes, 0).unwrap();
    file
}

fn durable(disk: &FaultDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = written(disk, name, bytes);
    file.sync_data().unwrap();
    disk.sync_dir(path("/")).unwrap();
    file
}

#[test]
fn synced_bytes_under_a_synced_name_survive_a_power_cut() {
    for seed in 0..50 {
        let disk = FaultDisk::new(seed);
        durable(&disk, "/f", b"hello");
        assert_eq!(content(&disk.power_on(Survival::draw(&mut Rng::new(seed))), "/f").unwrap(), b"hello");
    }
}

#[test]
fn a_file_whose_folder_was_not_synced_may_be_gone_although_its_bytes_were() {
    let disk = FaultDisk::new(0);
    written(&disk, "/f", b"hello").sync_all().unwrap();
    assert_eq!(content(&disk.power_on(Survival::Nothing), "/f"), None);
}

#[test]
fn every_subset_of_unsynced_sectors_and_lengths_can_survive() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let disk = FaultDisk::new(seed);
        let file = durable(&disk, "/f", &[b'a'; 600]);
        write_full(&*file, &[b'b'; 1436], 100).unwrap();
        let after = content(&disk.power_on(Survival::Chance(Rng::new(seed))), "/f").unwrap();
        assert!([600, 1536].contains(&after.len()), "{}", after.len());
        assert!(
            after[..100].iter().all(|b| *b == b'a'),
            "the part of a sector that was written anew with the same bytes"
        );
        seen.insert((after.len(), after[100], after[599], after.get(1100).copied()));
    }
    // 2 sectors and the length; where the length survived, a third sector: new or zeros.
    assert_eq!(seen.len(), 4 + 8, "{seen:?}");
}

#[test]
fn a_sector_written_twice_may_hold_its_first_or_second_state_or_the_one_before() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = FaultDisk::new(seed);
        let file = durable(&disk, "/f", b"a");
        write_full(&*file, b"b", 0).unwrap();
        write_full(&*file, b"c", 0).unwrap();
        seen.insert(content(&disk.power_on(Survival::Chance(Rng::new(seed))), "/f").unwrap());
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn what_a_failed_sync_did_not_write_is_not_written_by_the_next_one() {
    let mut lost = 0;
    for seed in 0..100 {
        let disk = FaultDisk::new(seed);
        let file = durable(&disk, "/f", b"old");
        disk.plan(Plan::of(OpKind::SyncData, 0, Fault::Eio));
        write_full(&*file, b"new", 0).unwrap();
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(content(&disk, "/f").unwrap(), b"new", "the page cache shows it all the same");
        let after = content(&disk.power_on(Survival::All), "/f").unwrap();
        lost += u32::from(after == b"old");
        disk.evict();
        assert_eq!(content(&disk, "/f").unwrap(), after, "reading it back from the medium tells");
    }
    assert!((20..80).contains(&lost), "{lost}");
}

#[test]
fn bytes_written_again_after_a_failed_sync_are_written_by_the_next_one() {
    for seed in 0..50 {
        let disk = FaultDisk::new(seed);
        let file = durable(&disk, "/f", b"");
        disk.plan(Plan::of(OpKind::SyncData, 0, Fault::Eio));
        write_full(&*file, &[7; 2000], 0).unwrap();
        assert!(file.sync_data().is_err());
        write_full(&*file, &[7; 2000], 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(content(&disk.power_on(Survival::Nothing), "/f").unwrap(), vec![7; 2000]);
    }
}

#[test]
fn a_cut_file_that_grows_again_reads_as_zeros_and_may_come_back_as_it_was_until_synced() {
    let disk = FaultDisk::new(1);
    let file = durable(&disk, "/f", &[1; 1024]);
    file.set_len(100).unwrap();
    file.set_len(1024).unwrap();
    assert!(content(&disk, "/f").unwrap()[100..].iter().all(|b| *b == 0));
    assert_eq!(content(&disk.power_on(Survival::Nothing), "/f").unwrap(), vec![1; 1024]);

    let disk = FaultDisk::new(1);
    let file = durable(&disk, "/f", &[1; 1024]);
    file.set_len(100).unwrap();
    file.sync_all().unwrap();
    file.set_len(1024).unwrap();
    file.sync_all().unwrap();
    let after = content(&disk.power_on(Survival::Nothing), "/f").unwrap();
    assert_eq!((&after[..100], &after[100..]), (&[1; 100][..], &[0; 924][..]));
}

#[test]
fn a_replaced_file_has_its_old_or_new_content_whatever_survives() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = FaultDisk::new(seed);
        durable(&disk, "/f", b"old");
        let cut = Rng::new(seed).range(0..9);
        disk.plan(Plan::any(cut, Fault::PowerCut));
        let done = replace_file(&disk, path("/f"), b"new");
        let after = content(&disk.power_on(Survival::draw(&mut Rng::new(seed))), "/f").unwrap();
        assert!(after == b"old" || after == b"new", "{after:?}");
        assert!(done.is_err() || after == b"new");
        seen.insert((done.is_ok(), after));
    }
    assert_eq!(seen.len(), 3);
}

/// A rename that was cut off may leave the temporary file as another name of the good one.
#[test]
fn a_file_that_is_replaced_again_after_a_power_cut_has_a_whole_content_too() {
    let mut doubled = 0;
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let disk = FaultDisk::new(seed);
        durable(&disk, "/f", b"old");
        disk.plan(Plan::of(OpKind::SyncDir, 0, Fault::PowerCut));
        assert!(replace_file(&disk, path("/f"), b"new").is_err());
        let disk = disk.power_on(Survival::draw(&mut rng));
        doubled += u32::from(content(&disk, "/f") == content(&disk, "/f.tmp"));
        disk.plan(Plan::any(rng.range(0..9), Fault::PowerCut));
        let _ = replace_file(&disk, path("/f"), b"newest");
        let after = content(&disk.power_on(Survival::draw(&mut rng)), "/f").unwrap();
        assert!([&b"old"[..], b"new", b"newest"].contains(&&after[..]), "seed {seed}: {after:?}");
    }
    assert!(doubled > 20, "{doubled}");
}

#[test]
fn without_the_sync_before_the_rename_a_replaced_file_may_be_empty() {
    let torn = (0..100).filter(|seed| {
        let disk = FaultDisk::new(*seed);
        durable(&disk, "/f", b"old");
        written(&disk, "/f.tmp", b"new");
        disk.rename(path("/f.tmp"), path("/f")).unwrap();
        disk.sync_dir(path("/")).unwrap();
        content(&disk.power_on(Survival::Chance(Rng::new(*seed))), "/f").unwrap() != b"new"
    });
    assert!(torn.count() > 20);
}

#[test]
fn a_killed_process_leaves_the_page_cache_and_its_locks_to_others() {
    let disk = FaultDisk::new(0);
    let file = written(&disk, "/f", b"hello");
    let lock = disk.try_lock(path("/lock")).unwrap();
    let other = disk.new_process();
    assert_eq!(other.try_lock(path("/lock")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    disk.plan(Plan::of(OpKind::Write, 0, Fault::Kill));
    assert!(file.write_at(b"J", 0).is_err());
    assert!(!disk.is_alive() && other.is_alive());
    assert!(file.len().is_err() && disk.list(path("/")).is_err());
    let held = other.try_lock(path("/lock")).unwrap();
    drop(lock);
    assert!(other.try_lock(path("/lock")).is_err(), "a dead process frees no one else's lock");
    drop(held);
    let after = content(&other, "/f").unwrap();
    assert!(after == b"hello" || after == b"Jello");
}

#[test]
fn a_full_disk_takes_what_fits_and_what_overwrites() {
    let disk = FaultDisk::new(0);
    let file = written(&disk, "/f", b"12345");
    disk.set_capacity(Some(8));
    assert_eq!(file.write_at(b"abcdef", 5).unwrap(), 3);
    assert_eq!(file.write_at(b"def", 8).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.write_at(b"ABCDEFGH", 0).unwrap(), 8);
    file.set_len(2).unwrap();
    assert_eq!(file.write_at(b"zz", 2).unwrap(), 2);
    assert_eq!(disk.used(), 4);
}

#[test]
fn a_plan_strikes_the_operation_it_names_and_says_so() {
    let disk = FaultDisk::new(0);
    let file = written(&disk, "/f", b"0123456789");
    disk.plan(Plan::of(OpKind::Write, 1, Fault::ShortThenFull));
    disk.plan(Plan::of(OpKind::Read, 0, Fault::Short));
    disk.plan(Plan::of(OpKind::Len, 0, Fault::Eio));
    assert_eq!(file.write_at(b"abc", 0).unwrap(), 3);
    assert!(file.write_at(b"abc", 3).unwrap() < 3);
    assert_eq!(file.write_at(b"abc", 3).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(file.read_at(&mut [0; 5], 0).unwrap() < 5);
    assert_eq!(read_full(&*file, &mut [0; 5], 0).unwrap(), 5);
    assert!(file.len().is_err() && file.len().is_ok());
    let faults: Vec<Fault> = disk.struck().into_iter().map(|struck| struck.fault).collect();
    assert_eq!(faults, [Fault::ShortThenFull, Fault::Enospc, Fault::Short, Fault::Eio]);
    assert!(disk.trace().contains("Write /f 3 at 3  ← ShortThenFull"), "{}", disk.trace());
}

#[test]
fn something_can_be_done_just_before_an_operation_by_another_process() {
    let disk = FaultDisk::new(0);
    let file = written(&disk, "/f", b"old");
    let other = disk.new_process();
    let (send, seen) = std::sync::mpsc::channel();
    disk.meanwhile(OpKind::Write, 1, move || send.send(content(&other, "/f").unwrap()).unwrap());
    write_full(&*file, b"mid", 0).unwrap();
    assert!(seen.try_recv().is_err());
    write_full(&*file, b"new", 0).unwrap();
    write_full(&*file, b"end", 0).unwrap();
    assert_eq!(seen.iter().collect::<Vec<_>>(), [b"mid".to_vec()]);
}

/// Both disks are taken through the same random calls and must answer alike.
#[test]
fn without_faults_it_behaves_as_the_real_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(7);
    let fault = FaultDisk::new(7);
    let under = |root: &Path, name: &str| root.join(name);
    let (real_root, fault_root) = (dir.path().to_owned(), PathBuf::from("/"));
    let names = ["a", "b", "d", "d/a", "d/b"];
    let outcome = |disk: &dyn Disk, root: &Path, rng: &mut Rng| -> Result<String, io::ErrorKind> {
        let first = under(root, names[rng.index(names.len())]);
        let mode = *rng.pick(&[OpenMode::Read, OpenMode::Write, OpenMode::Create]);
        let (choice, len, position) = (rng.range(0..7), rng.index(700), rng.range(0..1500));
        let text = match choice {
            0 => format!("{:?}", disk.create_dir(&under(root, "d")).map_err(|e| e.kind())?),
            1 => {
                let mut found = disk.list(&first).map_err(|e| e.kind())?;
                found.sort_by(|a, b| a.name.cmp(&b.name));
                format!("{found:?}")
            }
            2 => {
                let to = first.with_file_name("b");
                if first.ends_with("d") {
                    return Ok(String::new());
                }
                format!("{:?}", disk.rename(&first, &to).map_err(|e| e.kind())?)
            }
            3 if !first.ends_with("d") => format!("{:?}", disk.remove(&first).map_err(|e| e.kind())?),
            _ if first.ends_with("d") => String::new(),
            other => {
                let file = disk.open(&first, mode).map_err(|e| e.kind())?;
                if mode != OpenMode::Read && other == 4 {
                    file.set_len(position).map_err(|e| e.kind())?;
                } else if mode != OpenMode::Read {
                    write_full(&*file, &vec![len as u8; len], position).map_err(|e| e.kind())?;
                }
                let mut content = vec![0; 4000];
                let len = read_full(&*file, &mut content, 0).map_err(|e| e.kind())?;
                content.truncate(len);
                file.sync_data().map_err(|e| e.kind())?;
                format!("{} {content:?}", file.len().map_err(|e| e.kind())?)
            }
        };
        Ok(text)
    };
    let mut good = 0;
    for step in 0..2000 {
        let mut same = rng.fork();
        let real = outcome(&RealDisk, &real_root, &mut same.clone());
        let ours = outcome(&fault, &fault_root, &mut same);
        good += u32::from(real.is_ok());
        assert_eq!(real, ours, "step {step}");
    }
    assert!(good > 500, "{good}");
}
