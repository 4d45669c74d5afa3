//! A bus in a fresh folder, images of it as a crash would leave it, and a disk whose faults a test switches on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use eb_contract::{EbRef, EnvelopeRef, Error, EventBusPublisher, PartitionKey, PublishRecord, Topic};
use eb_file::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, RealDisk};
use eb_file::format::line::decode_line;
use eb_file::{FileBus, FileBusConfig, FilePublisher, RecoveryReport};
use futures_util::FutureExt;

pub(crate) fn topic() -> Topic {
    Topic::new("fp.bus.traffic.v1").unwrap()
}

pub(crate) fn record(key: &str, text: &str) -> PublishRecord {
    let envelope = EnvelopeRef::new(format!("{{\"e\":\"{text}\"}}")).unwrap();
    PublishRecord::new(PartitionKey::new(key.to_owned()).unwrap(), envelope)
}

/// A folder with a bus in it, which is removed in the end.
pub(crate) struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    /// A new bus with the topic in it.
    pub(crate) fn with_topic(partitions: u32) -> Self {
        let folder = Self { dir: tempfile::tempdir().unwrap() };
        folder.open().create_topic(&topic(), partitions).unwrap();
        folder
    }

    /// What a crash at this moment would leave: a copy of every file.
    pub(crate) fn image(&self) -> Self {
        let copy = Self { dir: tempfile::tempdir().unwrap() };
        copy_dir(&self.root(), &copy.root());
        copy
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("bus")
    }

    pub(crate) fn config(&self) -> FileBusConfig {
        FileBusConfig::new(self.root())
    }

    pub(crate) fn open(&self) -> FileBus {
        FileBus::open(self.config()).unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root().join(topic().as_str()).join(name)
    }

    pub(crate) fn log(&self) -> Vec<u8> {
        std::fs::read(self.file("partition=0.jsonl")).unwrap()
    }

    pub(crate) fn write_log(&self, bytes: &[u8]) {
        std::fs::write(self.file("partition=0.jsonl"), bytes).unwrap();
    }

    pub(crate) fn sidecar(&self) -> Vec<u8> {
        std::fs::read(self.file("partition=0.idx")).unwrap()
    }

    pub(crate) fn write_sidecar(&self, bytes: &[u8]) {
        std::fs::write(self.file("partition=0.idx"), bytes).unwrap();
    }

    /// The set-aside files' contents, by name.
    pub(crate) fn torn(&self) -> Vec<Vec<u8>> {
        let mut names: Vec<_> = std::fs::read_dir(self.root().join(topic().as_str()))
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.to_string_lossy().contains(".torn-"))
            .collect();
        names.sort();
        names.iter().map(|p| std::fs::read(p).unwrap()).collect()
    }

    /// The log's lines with their ends, each checked to be a record with the offset of its place.
    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        let log = self.log();
        let lines: Vec<Vec<u8>> = log.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        for (offset, line) in lines.iter().enumerate() {
            let line = decode_line(line.strip_suffix(b"\n").unwrap()).unwrap();
            assert_eq!(line.offset, offset as u64);
        }
        lines
    }

    /// The envelopes in the log.
    pub(crate) fn envelopes(&self) -> Vec<String> {
        let text = |line: &Vec<u8>| {
            let line = decode_line(line.strip_suffix(b"\n").unwrap()).unwrap();
            String::from_utf8(line.envelope.to_vec()).unwrap()
        };
        self.lines().iter().map(text).collect()
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Publishes `n` records one after the other, numbered from `from`.
pub(crate) fn publish(publisher: &FilePublisher, from: usize, n: usize) -> Vec<EbRef> {
    (from..from + n)
        .map(|i| publisher.publish_blocking(&topic(), record("key", &format!("record {i}"))).unwrap())
        .collect()
}

pub(crate) fn offset(eb_ref: &EbRef) -> u64 {
    eb_ref.offset.to_string().parse().unwrap()
}

/// Recovers the one partition and closes it again.
pub(crate) fn recover(folder: &Folder) -> Result<RecoveryReport, Error> {
    let publisher = folder.open().publisher();
    let report = block_on(publisher.recover(&topic())).map(|mut reports| reports.remove(0));
    block_on(publisher.close()).unwrap();
    report
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Polls a future once, so that what it does by itself is begun.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    future.now_or_never()
}

/// The real disk with faults in the logs, switched on from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyDisk {
    pub(crate) faults: Arc<Faults>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Writes come short after so many bytes, then fail with "no space"; 0 is off, 1 fails at once.
    pub(crate) full_after: AtomicUsize,
    pub(crate) sync_fails: AtomicBool,
    pub(crate) cut_fails: AtomicBool,
    /// Syncs wait until this is off again.
    pub(crate) sync_waits: parking_lot::Mutex<bool>,
    pub(crate) go_on: parking_lot::Condvar,
    pub(crate) syncs: AtomicUsize,
}

impl Faults {
    pub(crate) fn hold_syncs(&self) {
        *self.sync_waits.lock() = true;
    }

    pub(crate) fn release_syncs(&self) {
        *self.sync_waits.lock() = false;
        self.go_on.notify_all();
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, mode)?;
        if path.extension().is_some_and(|e| e == "jsonl") {
            Ok(Arc::new(FaultyFile { file, faults: self.faults.clone() }))
        } else {
            Ok(file)
        }
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        RealDisk.try_lock(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }
    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        match self.faults.full_after.load(Ordering::SeqCst) {
            0 => self.file.write_at(buf, position),
            1 => Err(io::ErrorKind::StorageFull.into()),
            n => {
                self.faults.full_after.store(1, Ordering::SeqCst);
                self.file.write_at(&buf[..buf.len().min(n)], position)
            }
        }
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.faults.cut_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the cut fails on purpose"));
        }
        self.file.set_len(len)
    }
    fn reserve(&self, position: u64, bytes: u64) -> io::Result<()> {
        self.file.reserve(position, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut waits = self.faults.sync_waits.lock();
        while *waits {
            self.faults.go_on.wait(&mut waits);
        }
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        if self.faults.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the sync fails on purpose"));
        }
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
