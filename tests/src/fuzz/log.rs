//! Logs and sidecars as a bus finds them.

use std::path::Path;
use std::sync::Arc;

use eb_contract::{ErrorKind, EventBusPublisher};
use eb_file::disk::{Disk, OpenMode, write_full};
use eb_file::{FileBus, FileBusConfig};
use eb_testkit::fault_disk::FaultDisk;

use super::sidecar::mend;
use crate::ledger::{Found, Ledger};
use crate::{block_on, read_all, record, topic};

const RECORDS: u64 = 4;

/// A bus whose log holds a few ACKed records, and the log's bytes.
struct World {
    disk: FaultDisk,
    acked: Vec<Found>,
    log: Vec<u8>,
    sidecar: Vec<u8>,
}

impl World {
    fn path(name: &str) -> std::path::PathBuf {
        Path::new("/bus").join(topic().as_str()).join(name)
    }

    fn open(disk: &FaultDisk) -> FileBus {
        let mut config = FileBusConfig::new("/bus");
        config.group_wait = std::time::Duration::ZERO;
        FileBus::open_on(config, Arc::new(disk.clone())).expect("bus.json is whole")
    }

    fn new(close: bool) -> Self {
        let disk = FaultDisk::new(0);
        let bus = Self::open(&disk);
        bus.create_topic(&topic(), 1).expect("a new topic");
        let publisher = bus.publisher();
        for call in 1..=RECORDS {
            block_on(publisher.publish(&topic(), record("k", call, 10))).expect("a calm disk");
        }
        let next = if close {
            block_on(publisher.close()).expect("a calm disk");
            disk.restart()
        } else {
            let next = disk.restart();
            let _ = block_on(publisher.close());
            next
        };
        let content = |name: &str| {
            let path = Self::path(name);
            next.files().into_iter().find(|(p, _)| *p == path).expect("it was written").1
        };
        let (log, sidecar) = (content("partition=0.jsonl"), content("partition=0.idx"));
        let acked = Found::in_log(0, &log).expect("a whole log");
        Self { disk: next, acked, log, sidecar }
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = Self::path(name);
        // Writing through the disk first makes the file if it is not there.
        let file = self.disk.open(&path, OpenMode::Create).expect("a calm disk");
        write_full(&*file, b"", 0).expect("a calm disk");
        self.disk.damage(&path, content);
    }

    /// What a reader hands out, or the kind of its refusal.
    fn read(&self) -> Result<Vec<Found>, ErrorKind> {
        let bus = Self::open(&self.disk.new_process());
        let all = block_on(read_all(&bus.reader(), &topic())).map_err(|e| e.kind().clone())?;
        Ok(all.into_iter().flat_map(|(_, records)| records).collect())
    }

    /// Recovers, appends a record, and gives what the log then holds; or the kind of its refusal.
    fn write(&self) -> Result<Vec<Found>, ErrorKind> {
        let publisher = Self::open(&self.disk).publisher();
        let appended = block_on(publisher.publish(&topic(), record("k", 1_000_000, 0)));
        block_on(publisher.close()).expect("a calm disk");
        let eb_ref = appended.map_err(|e| e.kind().clone())?;
        let files = self.disk.files();
        let path = Self::path("partition=0.jsonl");
        let log = &files.iter().find(|(p, _)| *p == path).expect("it was written").1;
        let found = Found::in_log(0, log).expect("after recovery every line is a record");
        assert_eq!(eb_ref.offset.as_u64(), Some(found.len() as u64 - 1), "the next append is the last line");
        Ok(found)
    }
}

/// Whatever follows the ACKed records in a log, none of them is lost or changed, and either the log is refused or the next append stands
/// on its own line. Mode bit 0: closed in order before. Bit 1: the bytes are the content of one more line, whose checksum fits.
///
/// # Panics
/// When that does not hold.
pub fn log(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let world = World::new(mode & 1 == 1);
    let mut log = world.log.clone();
    if mode & 2 == 2 {
        log.extend_from_slice(format!("{{\"crc32c\":\"{:08x}", crc_fast::crc32_iscsi(rest)).as_bytes());
        log.extend_from_slice(rest);
        log.push(b'\n');
    } else {
        log.extend_from_slice(rest);
    }
    world.put("partition=0.jsonl", &log);
    let read = world.read();
    if let Ok(read) = &read {
        assert_eq!(
            read.get(..world.acked.len()),
            Some(&world.acked[..]),
            "ACKed records are read as they were"
        );
    }
    match world.write() {
        Ok(written) => {
            assert_eq!(written[..world.acked.len()], world.acked, "ACKed records stay as they were");
            let read = read.expect("what can be recovered can be read");
            assert_eq!(written.get(..read.len()), Some(&read[..]), "what was read before recovery stays");
        }
        Err(kind) => assert!(matches!(kind, ErrorKind::Corrupt { .. } | ErrorKind::FactsMissing), "{kind:?}"),
    }
}

/// Whatever the sidecar says, no reader is shown a record that is not there or other than it is. A lying watermark may make the log be
/// refused; it never makes it shorter. Mode bit 0: keep the true header's beginning. Bit 1: make the header's checksum fit.
/// Bit 2: the log is long enough for index entries to be believed.
///
/// # Panics
/// When that does not hold.
pub fn index(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let world = World::new(false);
    let mut sidecar = rest.to_vec();
    if mode & 1 == 1 {
        // Magic, version, flags, incarnation, boot: from there on the bytes are the fuzzer's.
        sidecar.splice(0..0, world.sidecar[..48].iter().copied());
    }
    if mode & 2 == 2 {
        sidecar.resize(sidecar.len().max(512), 0);
        mend(&mut sidecar, 512);
    }
    world.put("partition=0.idx", &sidecar);
    let mut ledger = Ledger::default();
    if let Ok(read) = world.read() {
        assert_eq!(read, world.acked[..read.len()], "what is read is there");
        for found in read {
            ledger.see(found.at, found.said);
        }
    }
    if let Ok(written) = world.write() {
        assert_eq!(written[..world.acked.len()], world.acked, "no whole record is cut off");
        ledger.check(eb_contract::PartitionId(0), &written).expect("what was read stays");
    }
}
