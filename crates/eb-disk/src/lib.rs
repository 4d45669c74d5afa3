//! The one way to the file system: every byte that the backends and stores on disk read or write goes through [`Disk`].
//!
//! The traits are small, blocking and object-safe, so that a test can put a disk underneath that fails,
//! shortens or loses any operation. Two things that are easy to forget are separate calls here, because a power cut treats
//! them separately: the *bytes* of a file ([`DiskFile::sync_data`]) and its *name* in the folder ([`Disk::sync_dir`]).
//!
//! # What a disk is assumed to do
//! - What was synced with success survives a power cut, bytes and names each by their own sync. What was not may survive in
//!   any part and in any order, a rename as the old or the new name, or both.
//! - After a sync that failed nothing is known of the bytes since the last success, and the next sync proves nothing about
//!   them: they have to be written again.
//! - A process that dies loses nothing that it has written; its locks are free.
//!
//! [`offload`](offload::offload) runs the blocking calls off the callers' threads, [`boot`] tells one life of the machine from
//! another.

pub mod boot;
pub mod offload;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How [`Disk::open`] treats a file that is or is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; must exist.
    Read,
    /// For reading and writing; must exist.
    Write,
    /// For reading and writing; made empty if it does not exist, kept if it does.
    Create,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name; one that is not UTF-8 is shown lossily, and never is one of ours.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// A file system as far as the bus needs one. Paths are as the caller joined them; the bus only ever builds them from its
/// root and from names that cannot leave it.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// As the operating system says; [`io::ErrorKind::NotFound`] where it must exist and does not.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes one folder, whose parent exists. A folder that is there already is fine.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// What is in a folder, in any order.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Gives a file another name in the same folder, replacing what had it. Atomic; durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable: created, renamed and removed ones.
    ///
    /// # Errors
    /// After an error it is unknown which of them are.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes an exclusive advisory lock on a file, which is made if it is not there. The lock ends when what is returned is
    /// dropped, and when the process dies. It binds only those who ask for it, also within one process.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when someone else holds it.
    fn try_lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Names the life of the page cache in front of this disk: while it is the same, whatever was written can still be
    /// read, synced or not. Zeros where nobody can tell.
    fn boot_id(&self) -> [u8; 16] {
        boot::id()
    }
}

/// A file, read and written by position, so that it can be shared without a cursor to fight over.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Reads at `position`; may come short, and gives 0 only at the end of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes at `position`, lengthening the file where needed; may come short.
    ///
    /// # Errors
    /// As the operating system says. Any part may have been written.
    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize>;

    /// Cuts or lengthens (with zeros) the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Asks for room for bytes to come, from `position` on, without changing the file's length or anything that is read. Writing them
    /// then costs less, for the file system need not look for a place at each sync. A hint: nothing depends on it, and
    /// [`DiskFile::set_len`], to the present length too, gives back what was not used.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system or the system cannot; [`io::ErrorKind::StorageFull`] where there is not as
    /// much room. The file is as it was.
    fn reserve(&self, _position: u64, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes the bytes durable, and of the metadata what reading them needs.
    ///
    /// # Errors
    /// After an error nothing is known of the bytes since the last success.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`DiskFile::sync_data`], with all metadata: for changes that shorten the file.
    ///
    /// # Errors
    /// As for [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// As [`DiskFile::read_at`] where that needs no waiting for the device, because the bytes are in memory; `None` where it would have to
    /// wait, or where nobody can tell. So it may be called on a thread that must not block. It may come short of what `read_at` would bring.
    ///
    /// # Errors
    /// As for [`DiskFile::read_at`].
    fn read_ready(&self, _buf: &mut [u8], _position: u64) -> io::Result<Option<usize>> {
        Ok(None)
    }

    /// What tells this file from another of the same name; `None` where nobody can tell.
    ///
    /// # Errors
    /// As the operating system says.
    fn identity(&self) -> io::Result<Option<FileIdentity>> {
        Ok(None)
    }

    /// Whether it holds no bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Tells a file from another one that took its name; see [`DiskFile::identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// Of the device.
    pub device: u64,
    /// Of the file on it.
    pub file: u64,
}

/// A lock that is held until it is dropped.
pub trait DiskLock: fmt::Debug + Send + Sync {}

/// Reads until `buf` is full or the file ends; says how much.
///
/// # Errors
/// As [`DiskFile::read_at`] says; an interruption is tried again.
pub fn read_full(file: &dyn DiskFile, mut buf: &mut [u8], mut position: u64) -> io::Result<usize> {
    let mut done = 0;
    while !buf.is_empty() {
        match file.read_at(buf, position) {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                position += n as u64;
                buf = &mut buf[n..];
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes all of `buf`.
///
/// # Errors
/// As [`DiskFile::write_at`] says, [`io::ErrorKind::WriteZero`] when it writes nothing; an interruption is tried again. Any part may
/// have been written.
pub fn write_full(file: &dyn DiskFile, mut buf: &[u8], mut position: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                position += n as u64;
                buf = &buf[n..];
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads a small file whole.
///
/// # Errors
/// As the operating system says; [`io::ErrorKind::InvalidData`] when it is longer than `limit` bytes.
pub fn read_small(disk: &dyn Disk, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; limit + 1];
    let len = read_full(&*file, &mut bytes, 0)?;
    if len > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {limit} bytes")));
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Makes an empty file of its own under this name.
///
/// What had the name before is removed, not emptied: where a crash cut off a rename, a file system without a journal may show
/// one file under both names, and emptying the temporary one would empty the good one.
///
/// # Errors
/// As the operating system says.
pub fn create_anew(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    match disk.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    disk.open(path, OpenMode::Create)
}

/// Replaces a small file so that a crash leaves the old or the new content, durable when this returns.
///
/// # Errors
/// As the operating system says; the old content may or may not still be there, whole.
pub fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let file = create_anew(disk, temporary)?;
    write_full(&*file, content, 0)?;
    file.sync_all()?;
    drop(file);
    disk.rename(temporary, path)?;
    disk.sync_dir(dir)
}

/// Makes a folder and those above it, each durable in the one above. Also where they are there already: whoever made them
/// may have died before syncing their names.
///
/// # Errors
/// As the operating system says.
pub fn create_dir_all(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    create_missing(disk, path)?;
    for above in path.ancestors().skip(1) {
        match disk.sync_dir(if above.as_os_str().is_empty() { Path::new(".") } else { above }) {
            // A folder that we may not even read is none that we made, and neither are those above it.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => break,
            other => other?,
        }
    }
    Ok(())
}

fn create_missing(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match (disk.create_dir(path), path.parent()) {
        (Err(e), Some(parent)) if e.kind() == io::ErrorKind::NotFound => {
            create_missing(disk, parent)?;
            disk.create_dir(path)
        }
        (done, _) => done,
    }
}

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => _ = options.write(true),
            OpenMode::Create => _ = options.write(true).create(true).truncate(false),
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        fs::read_dir(path)?
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                // Follows symbolic links: a topic's folder may be one.
                let is_dir = entry.path().is_dir();
                Ok(DirEntry { name, is_dir })
            })
            .collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Windows has no way to sync a folder: best effort there, as its documentation says.
        if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&self.0, buf, position);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(&self.0, buf, position);
    }

    #[cfg(target_os = "linux")]
    fn read_ready(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags};
        let mut parts = [io::IoSliceMut::new(buf)];
        match rustix::io::preadv2(&self.0, &mut parts, position, ReadWriteFlags::NOWAIT) {
            Ok(n) => Ok(Some(n)),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(unix)]
    fn identity(&self) -> io::Result<Option<FileIdentity>> {
        use std::os::unix::fs::MetadataExt;
        let metadata = self.0.metadata()?;
        Ok(Some(FileIdentity { device: metadata.dev(), file: metadata.ino() }))
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_at(&self.0, buf, position);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_write(&self.0, buf, position);
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, position: u64, bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::KEEP_SIZE, position, bytes)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[derive(Debug)]
struct RealLock {
    _file: fs::File,
}

impl DiskLock for RealLock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_content_and_leaves_no_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus.json");
        replace_file(&RealDisk, &path, b"a longer first version").unwrap();
        replace_file(&RealDisk, &path, b"second").unwrap();
        assert_eq!(read_small(&RealDisk, &path, 100).unwrap(), b"second");
        assert_eq!(RealDisk.list(dir.path()).unwrap().len(), 1);
        assert!(read_small(&RealDisk, &path, 5).is_err());
    }

    #[test]
    fn a_lock_excludes_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = RealDisk.try_lock(&path).unwrap();
        assert_eq!(RealDisk.try_lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(RealDisk.try_lock(&path).is_ok());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn reserved_room_is_no_part_of_the_file_and_given_back_by_its_length() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = RealDisk.open(&path, OpenMode::Create).unwrap();
        write_full(&*file, b"hello", 0).unwrap();
        match file.reserve(5, 1 << 20) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => return,
            done => done.unwrap(),
        }
        assert_eq!(file.len().unwrap(), 5);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
        file.set_len(5).unwrap();
        file.sync_all().unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
        assert_eq!(read_small(&RealDisk, &path, 100).unwrap(), b"hello");
    }

    #[test]
    fn files_are_read_and_written_by_position() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(RealDisk.open(&path, OpenMode::Write).is_err());
        let file = RealDisk.open(&path, OpenMode::Create).unwrap();
        write_full(&*file, b"hello world", 0).unwrap();
        write_full(&*file, b"W", 6).unwrap();
        let mut buf = [0; 20];
        assert_eq!(read_full(&*file, &mut buf, 6).unwrap(), 5);
        assert_eq!(&buf[..5], b"World");
        let again = RealDisk.open(&path, OpenMode::Create).unwrap();
        assert_eq!(again.len().unwrap(), 11);
        assert!(RealDisk.open(&path, OpenMode::Read).unwrap().write_at(b"x", 0).is_err());
    }
}
