//! The real disk, counting syncs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eb_file::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk};

/// The real disk, counting data syncs.
#[derive(Debug, Default)]
pub(crate) struct CountingDisk {
    flushes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountingFile {
    file: Arc<dyn DiskFile>,
    flushes: Arc<AtomicU64>,
}

impl CountingDisk {
    /// How many syncs there were.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }
}

impl Disk for CountingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> std::io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, mode)?;
        Ok(Arc::new(CountingFile { file, flushes: self.flushes.clone() }))
    }
    fn create_dir(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<DirEntry>> {
        RealDisk.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn try_lock(&self, path: &Path) -> std::io::Result<Box<dyn DiskLock>> {
        RealDisk.try_lock(path)
    }
}

impl DiskFile for CountingFile {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], position: u64) -> std::io::Result<usize> {
        self.file.read_at(buf, position)
    }
    fn write_at(&self, buf: &[u8], position: u64) -> std::io::Result<usize> {
        self.file.write_at(buf, position)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }
    fn reserve(&self, position: u64, bytes: u64) -> std::io::Result<()> {
        self.file.reserve(position, bytes)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }
    fn sync_all(&self) -> std::io::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.file.sync_all()
    }
}
