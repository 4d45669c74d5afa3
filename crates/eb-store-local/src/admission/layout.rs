//! The folder: the mark of the format, the engine's tree, and what must hold before the engine may read it.
//!
//! | path | what |
//! |---|---|
//! | `FORMAT` | one line, `event-bus-admission-index 1`; synced before the tree is made |
//! | `lock` | the advisory lock; its text is the holder's name |
//! | `tree/current` | the engine's pointer: version u64 · XXH3-128 of that version's list · a zero byte (little-endian) |
//! | `tree/v<version>` | the list of the tables in force |
//! | `tree/tables/<id>` | tables; each block has a checksum that every read verifies |
//! | `HELD` | empty; synced before the first table is written: from then on the tree is never made anew |
//! | `REMOVING` | there while the index is being removed |
//!
//! A tree without a pointer, or none at all, is begun anew in two cases alone: nothing was ever written to it (neither
//! `HELD` nor a table is there: a first opening that was cut short), or `REMOVING` is there (a removal that was).
//! Otherwise it is damage: to start empty over what the index held would forget what a stream that expires no longer
//! tells. (A folder that is gone as a whole tells nothing; the gate says so where it fills an empty index from such a
//! stream.)
//!
//! The engine (3.1) believes its list of tables without looking at the checksum, and a damaged length in it can ask
//! for any amount of memory. So the list is verified here, before it is opened.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use eb_contract::Result;
use xxhash_rust::xxh3::xxh3_128;

use crate::error;

const OP: &str = "open";
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_NAME: &str = "event-bus-admission-index";
const FORMAT_VERSION: &str = "1";
const HELD_FILE: &str = "HELD";
const REMOVING_FILE: &str = "REMOVING";
pub(crate) const TREE_FOLDER: &str = "tree";
/// The engine's file that names the tables in force.
const TREE_POINTER: &str = "current";
const TABLES_FOLDER: &str = "tables";
const POINTER_LEN: usize = 8 + 16 + 1;

/// Makes a new folder ready for the engine, or checks an old one.
pub(crate) fn prepare(dir: &Path) -> Result<()> {
    let finish = |e| error::io(OP, dir, e);
    if dir.join(REMOVING_FILE).try_exists().map_err(finish)? {
        tracing::warn!(dir = %dir.display(), "a removal of the admission index was cut short; it is finished now");
        remove(dir).map_err(finish)?;
    }
    check_format(dir)?;
    clear_half_made(dir)?;
    check_pointer(dir)
}

/// Verifies the list of tables that the engine will believe.
fn check_pointer(dir: &Path) -> Result<()> {
    let tree = dir.join(TREE_FOLDER);
    if !tree.exists() {
        return Ok(());
    }
    let damaged = |file: &Path, what: &str| error::corrupt(OP, dir, file, what);
    let read = |file: &Path| {
        fs::read(file).map_err(|e| match e.kind() {
            ErrorKind::NotFound => damaged(file, "a file of the admission index is missing"),
            _ => error::io(OP, file, e),
        })
    };
    let pointer_file = tree.join(TREE_POINTER);
    let pointer: [u8; POINTER_LEN] = read(&pointer_file)?
        .try_into()
        .map_err(|_| damaged(&pointer_file, "the pointer to the tables is not whole"))?;
    let (version, rest) = pointer.split_at(8);
    let version = version.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let (checksum, kind) = rest.split_at(16);
    let checksum = checksum.iter().rev().fold(0, |n, byte| n << 8 | u128::from(*byte));
    if kind != [0] {
        return Err(damaged(&pointer_file, "the pointer to the tables is of a kind that is not known"));
    }
    let list_file = tree.join(format!("v{version}"));
    if xxh3_128(&read(&list_file)?) != checksum {
        return Err(damaged(
            &list_file,
            "the list of tables does not have the checksum that the pointer gives",
        ));
    }
    Ok(())
}

/// Refuses a folder of another format; marks a new one.
fn check_format(dir: &Path) -> Result<()> {
    let path = dir.join(FORMAT_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim_end().split_once(' ') {
            Some((FORMAT_NAME, FORMAT_VERSION)) => Ok(()),
            Some((FORMAT_NAME, other)) => {
                let what = format!("its format is {other}, this program knows {FORMAT_VERSION}");
                Err(error::wrong_version(OP, dir, what))
            }
            _ => Err(error::corrupt(OP, dir, &path, "this is not the mark of an admission index")),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => {
            if dir.join(TREE_FOLDER).exists() {
                // The mark is synced before the first table exists.
                return Err(error::corrupt(OP, dir, &path, "the index has lost its format mark"));
            }
            mark_format(dir, &path).map_err(|e| error::io(OP, &path, e))
        }
        Err(e) if e.kind() == ErrorKind::InvalidData => {
            Err(error::corrupt(OP, dir, &path, "this is not the mark of an admission index"))
        }
        Err(e) => Err(error::io(OP, &path, e)),
    }
}

fn mark_format(dir: &Path, path: &Path) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{FORMAT_NAME} {FORMAT_VERSION}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(dir)
}

/// Notes, once, that the index holds something from now on. Synced when it returns.
pub(crate) fn mark_held(dir: &Path) -> std::io::Result<()> {
    let mark = dir.join(HELD_FILE);
    if mark.try_exists()? {
        return Ok(());
    }
    File::create(&mark)?.sync_all()?;
    sync_folder(dir)
}

/// Removes the index from `dir`; the caller holds the lock. Cut short, it is finished by the next opening, which then
/// starts empty.
pub(crate) fn remove(dir: &Path) -> std::io::Result<()> {
    let found = |result: std::io::Result<()>| match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let mark = dir.join(REMOVING_FILE);
    File::create(&mark)?.sync_all()?;
    sync_folder(dir)?;
    found(fs::remove_dir_all(dir.join(TREE_FOLDER)))?;
    found(fs::remove_file(dir.join(HELD_FILE)))?;
    found(fs::remove_file(dir.join(FORMAT_FILE)))?;
    sync_folder(dir)?;
    fs::remove_file(&mark)?;
    sync_folder(dir)
}

/// Clears away a tree whose first opening was cut short; refuses one that has lost its pointer, or is gone, after
/// something was written to it.
fn clear_half_made(dir: &Path) -> Result<()> {
    let tree = dir.join(TREE_FOLDER);
    let io = |e| error::io(OP, dir, e);
    let pointer = tree.join(TREE_POINTER);
    if pointer.try_exists().map_err(io)? {
        return Ok(());
    }
    let has_tables = match fs::read_dir(tree.join(TABLES_FOLDER)) {
        Ok(mut tables) => tables.next().transpose().map_err(io)?.is_some(),
        Err(e) if e.kind() == ErrorKind::NotFound => false,
        Err(e) => return Err(io(e)),
    };
    if has_tables {
        return Err(error::corrupt(OP, dir, &pointer, "the index has tables but no pointer to them"));
    }
    if dir.join(HELD_FILE).try_exists().map_err(io)? {
        return Err(error::corrupt(OP, dir, &tree, "the index has held admissions, and its tables are gone"));
    }
    match fs::remove_dir_all(&tree) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_folder(dir)).map_err(io),
    }
}

#[cfg(unix)]
fn sync_folder(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}
