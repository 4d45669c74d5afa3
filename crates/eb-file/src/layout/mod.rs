//! Names of files, and the two metadata files: `bus.json` and `topic.json` (FORMAT.md, section 1).

mod meta;
mod partition;

use std::io;
use std::path::{Path, PathBuf};

use eb_contract::{Error, ErrorKind, PartitionId, Result, Timestamp, Topic};

pub use self::meta::TopicMeta;
use self::meta::{BusFile, TopicFile, VERSION, json_line, parse_meta};
pub use self::partition::PartitionFiles;
use self::partition::check_placeable;
use crate::disk::{Disk, OpenMode, create_dir_all, read_small, replace_file};
use crate::error::{corrupt, io_error};
use crate::lock::lock_for_a_moment;

/// The most partitions of a topic.
pub const MAX_PARTITIONS: u32 = 4096;

const BUS_FORMAT: &str = "eb-file";
const TOPIC_FORMAT: &str = "eb-file-topic";
const BUS_FILE: &str = "bus.json";
const BUS_LOCK: &str = "bus.lock";
const TOPIC_FILE: &str = "topic.json";
const TOPIC_LOCK: &str = "topic.lock";
const CHECKPOINTS: &str = "checkpoints";
const META_LIMIT: usize = 4096;

/// A folder in which the creation of a topic has begun and not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The topic.
    pub topic: Topic,
    /// Its folder.
    pub dir: PathBuf,
    /// There are records in it all the same.
    pub records: bool,
    /// How many partitions it was to have, where that can be read.
    pub planned: Option<u32>,
}

/// The folder of a bus.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// A bus in this folder.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where file checkpoints lie.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join(CHECKPOINTS)
    }

    /// A topic's folder.
    #[must_use]
    pub fn topic_dir(&self, topic: &Topic) -> PathBuf {
        self.root.join(topic.as_str())
    }

    /// The files of one partition.
    #[must_use]
    pub fn partition(&self, topic: &Topic, partition: PartitionId) -> PartitionFiles {
        PartitionFiles::new(self.topic_dir(topic), partition)
    }

    /// Checks `bus.json`; with `create`, makes folder and file where they are missing, durably. A crash leaves either no bus or a whole one.
    ///
    /// # Errors
    /// `NotFound` without a bus and without `create`; `Corrupt` or `WrongVersion` for a file that is not ours to use.
    pub fn open_root(&self, disk: &dyn Disk, create: bool) -> Result<()> {
        match self.read_root(disk) {
            Err(e) if *e.kind() == ErrorKind::NotFound && create => {}
            other => return other,
        }
        create_dir_all(disk, &self.root)
            .map_err(|e| io_error("open", &self.root, "cannot make the folder", e))?;
        // Two makers at once would take each other's temporary file away.
        let lock = self.root.join(BUS_LOCK);
        let _lock =
            lock_for_a_moment(disk, &lock).map_err(|e| io_error("open", &lock, "cannot lock it", e))?;
        match self.read_root(disk) {
            Err(e) if *e.kind() == ErrorKind::NotFound => {}
            made_meanwhile => return made_meanwhile,
        }
        let file =
            BusFile { format: BUS_FORMAT.to_owned(), version: VERSION, created_at_utc: Timestamp::now() };
        let path = self.root.join(BUS_FILE);
        replace_file(disk, &path, &json_line(&file))
            .map_err(|e| io_error("open", &path, "cannot make it", e))?;
        self.read_root(disk)
    }

    fn read_root(&self, disk: &dyn Disk) -> Result<()> {
        let path = self.root.join(BUS_FILE);
        let bytes = read_small(disk, &path, META_LIMIT).map_err(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                Error::new(ErrorKind::NotFound, "open", "there is no file bus in this folder")
                    .at(self.root.display())
                    .advise("check the path, or create the bus by publishing through a profile that names it")
            } else {
                io_error("open", &path, "cannot read it", e)
            }
        })?;
        parse_meta::<BusFile>("open", &path, &bytes, BUS_FORMAT).map(drop)
    }

    /// The topics there are, sorted.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn topics(&self, disk: &dyn Disk) -> Result<Vec<Topic>> {
        let entries =
            disk.list(&self.root).map_err(|e| io_error("topics", &self.root, "cannot list the folder", e))?;
        let mut topics = Vec::new();
        for entry in entries.into_iter().filter(|e| e.is_dir && !is_reserved(&e.name)) {
            let Ok(topic) = Topic::new(&entry.name) else { continue };
            let meta = self.topic_dir(&topic).join(TOPIC_FILE);
            match disk.open(&meta, OpenMode::Read) {
                Ok(_) => topics.push(topic),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io_error("topics", &meta, "cannot open it", e)),
            }
        }
        topics.sort();
        Ok(topics)
    }

    /// The topics that were begun and not finished, sorted. Folders that hold nothing of a topic are none of them.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn unfinished(&self, disk: &dyn Disk) -> Result<Vec<Unfinished>> {
        const OP: &str = "topics";
        let finished = self.topics(disk)?;
        let entries =
            disk.list(&self.root).map_err(|e| io_error(OP, &self.root, "cannot list the folder", e))?;
        let mut all = Vec::new();
        for entry in entries.into_iter().filter(|e| e.is_dir && !is_reserved(&e.name)) {
            let Some(topic) = Topic::new(&entry.name).ok().filter(|t| !finished.contains(t)) else {
                continue;
            };
            let dir = self.topic_dir(&topic);
            let names = disk.list(&dir).map_err(|e| io_error(OP, &dir, "cannot list the folder", e))?;
            let logs =
                names.iter().filter(|n| n.name.starts_with("partition=") && n.name.ends_with(".jsonl"));
            let mut records = false;
            let mut begun = names.iter().any(|n| n.name == TOPIC_LOCK);
            for log in logs.map(|n| dir.join(&n.name)) {
                begun = true;
                let empty = disk.open(&log, OpenMode::Read).and_then(|f| f.is_empty());
                records |= !empty.map_err(|e| io_error(OP, &log, "cannot look at the log", e))?;
            }
            let planned = read_small(disk, &dir.join(format!("{TOPIC_FILE}.tmp")), META_LIMIT).ok();
            let planned = planned.and_then(|bytes| serde_json::from_slice::<TopicFile>(&bytes).ok());
            if begun || planned.is_some() {
                let planned = planned.filter(|p| p.topic == topic).map(|p| p.partitions);
                all.push(Unfinished { topic, dir, records, planned });
            }
        }
        all.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(all)
    }

    /// Reads a topic's metadata and checks that every log in its folder can be placed.
    ///
    /// # Errors
    /// `NotFound` when the topic does not exist; `Corrupt` or `WrongVersion` when its folder holds what this version cannot place.
    pub fn load_topic(&self, disk: &dyn Disk, op: &'static str, topic: &Topic) -> Result<TopicMeta> {
        let dir = self.topic_dir(topic);
        let path = dir.join(TOPIC_FILE);
        if is_reserved(topic.as_str()) {
            return Err(no_such_topic(op, topic));
        }
        let bytes = match read_small(disk, &path, META_LIMIT) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(no_such_topic(op, topic));
            }
            Err(e) => return Err(io_error(op, &path, "cannot read it", e)),
        };
        let file: TopicFile = parse_meta(op, &path, &bytes, TOPIC_FORMAT)?;
        if file.topic != *topic {
            let what = format!(
                "it describes the topic {}; two names that differ only in case need two file systems",
                file.topic
            );
            return Err(corrupt(op, &path, None, None, what));
        }
        let incarnation = (file.incarnation.len() == 32)
            .then(|| u128::from_str_radix(&file.incarnation, 16).ok())
            .flatten()
            .filter(|_| (1..=MAX_PARTITIONS).contains(&file.partitions))
            .ok_or_else(|| corrupt(op, &path, None, None, "partition count or incarnation make no sense"))?;
        let meta = TopicMeta {
            topic: file.topic,
            partitions: file.partitions,
            incarnation: incarnation.to_be_bytes(),
        };
        let names = disk.list(&dir).map_err(|e| io_error(op, &dir, "cannot list the folder", e))?;
        check_placeable(op, &dir, &names, meta.partitions)?;
        Ok(meta)
    }

    /// Makes a topic durably, or finds that it is there with as many partitions. A crash leaves it whole or not at all, and the same call completes it.
    ///
    /// # Errors
    /// `AlreadyExists` when it has another number of partitions; `InvalidInput` for a reserved name or a bad count; `Locked` while
    /// another process makes it.
    pub fn create_topic(&self, disk: &dyn Disk, topic: &Topic, partitions: u32) -> Result<TopicMeta> {
        const OP: &str = "create topic";
        if is_reserved(topic.as_str()) {
            let what = "the name is reserved in a file bus";
            return Err(Error::new(ErrorKind::InvalidInput, OP, what)
                .at(topic)
                .advise("choose another name"));
        }
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            let what = format!("{partitions} partitions; choose from 1 to {MAX_PARTITIONS}");
            return Err(Error::new(ErrorKind::InvalidInput, OP, what).at(topic));
        }
        let dir = self.topic_dir(topic);
        let failed = |what: &str, e| io_error(OP, &dir, what, e);
        disk.create_dir(&dir).map_err(|e| failed("cannot make the folder", e))?;
        disk.sync_dir(&self.root).map_err(|e| failed("cannot sync the folder above", e))?;
        let _lock = disk.try_lock(&dir.join(TOPIC_LOCK)).map_err(|e| {
            if e.kind() == io::ErrorKind::WouldBlock {
                let holder = "another process that is making the topic".to_owned();
                Error::new(ErrorKind::Locked { holder }, OP, "someone is making it now")
                    .at(topic)
                    .advise("try again")
            } else {
                failed("cannot lock the topic", e)
            }
        })?;

        match self.load_topic(disk, OP, topic) {
            Ok(meta) if meta.partitions == partitions => {
                // Its maker may have died between rename and sync.
                disk.sync_dir(&dir).map_err(|e| failed("cannot sync the folder", e))?;
                return Ok(meta);
            }
            Ok(meta) => {
                let what = format!("it exists with {} partitions, not {partitions}", meta.partitions);
                return Err(Error::new(ErrorKind::AlreadyExists, OP, what)
                    .at(topic)
                    .advise("use it as it is, or choose another name"));
            }
            Err(e) if *e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }

        let names = disk.list(&dir).map_err(|e| failed("cannot list the folder", e))?;
        check_placeable(OP, &dir, &names, partitions)?;
        for partition in 0..partitions {
            let log = self.partition(topic, PartitionId(partition)).log;
            let file = disk
                .open(&log, OpenMode::Create)
                .map_err(|e| io_error(OP, &log, "cannot make the log", e))?;
            if !file.is_empty().map_err(|e| io_error(OP, &log, "cannot look at the log", e))? {
                let what = "it holds records, but topic.json is missing; restore it, or move the folder away";
                return Err(corrupt(OP, &log, None, None, what));
            }
        }
        disk.sync_dir(&dir).map_err(|e| failed("cannot sync the folder", e))?;
        let incarnation = uuid::Uuid::new_v4();
        let file = TopicFile {
            format: TOPIC_FORMAT.to_owned(),
            version: VERSION,
            topic: topic.clone(),
            partitions,
            incarnation: incarnation.simple().to_string(),
            created_at_utc: Timestamp::now(),
        };
        let path = dir.join(TOPIC_FILE);
        replace_file(disk, &path, &json_line(&file))
            .map_err(|e| io_error(OP, &path, "cannot write it", e))?;
        Ok(TopicMeta { topic: topic.clone(), partitions, incarnation: *incarnation.as_bytes() })
    }
}

fn no_such_topic(op: &'static str, topic: &Topic) -> Error {
    Error::new(ErrorKind::NotFound, op, "the topic does not exist").at(topic).advise("create it first")
}

/// Names in the root that are not topics, in any case, since some file systems do not tell cases apart.
fn is_reserved(name: &str) -> bool {
    [CHECKPOINTS, BUS_FILE, BUS_LOCK, "bus.json.tmp"]
        .iter()
        .any(|reserved| name.eq_ignore_ascii_case(reserved))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{RealDisk, write_full};

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn fresh() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("deep/er/bus"));
        layout.open_root(&RealDisk, true).unwrap();
        (dir, layout)
    }

    #[test]
    fn a_bus_is_made_once_and_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("bus"));
        assert_eq!(*layout.open_root(&RealDisk, false).unwrap_err().kind(), ErrorKind::NotFound);
        layout.open_root(&RealDisk, true).unwrap();
        let made = std::fs::read(layout.root().join(BUS_FILE)).unwrap();
        layout.open_root(&RealDisk, true).unwrap();
        layout.open_root(&RealDisk, false).unwrap();
        assert_eq!(std::fs::read(layout.root().join(BUS_FILE)).unwrap(), made);
    }

    #[test]
    fn creating_a_topic_twice_keeps_its_incarnation_and_another_count_is_refused() {
        let (_dir, layout) = fresh();
        let t = topic("fp.bus.traffic.v1");
        assert_eq!(*layout.load_topic(&RealDisk, "read", &t).unwrap_err().kind(), ErrorKind::NotFound);
        let made = layout.create_topic(&RealDisk, &t, 3).unwrap();
        assert_eq!(layout.create_topic(&RealDisk, &t, 3).unwrap(), made);
        assert_eq!(layout.load_topic(&RealDisk, "read", &t).unwrap(), made);
        assert_eq!(*layout.create_topic(&RealDisk, &t, 4).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(layout.topics(&RealDisk).unwrap(), [t]);
        assert_eq!(made.bus_incarnation().as_str().len(), 32);
    }

    #[test]
    fn an_unfinished_creation_is_no_topic_and_is_completed_by_the_next() {
        let (_dir, layout) = fresh();
        let t = topic("t");
        let dir = layout.topic_dir(&t);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("partition=0.jsonl"), b"").unwrap();
        std::fs::write(dir.join("topic.json.tmp"), b"{\"form").unwrap();
        assert!(layout.topics(&RealDisk).unwrap().is_empty());
        layout.create_topic(&RealDisk, &t, 2).unwrap();
        assert_eq!(layout.load_topic(&RealDisk, "read", &t).unwrap().partitions, 2);
    }

    #[test]
    fn records_without_topic_json_are_not_taken_over() {
        let (_dir, layout) = fresh();
        let t = topic("t");
        std::fs::create_dir(layout.topic_dir(&t)).unwrap();
        std::fs::write(layout.partition(&t, PartitionId(0)).log, b"{}\n").unwrap();
        let e = layout.create_topic(&RealDisk, &t, 1).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Corrupt { .. }), "{e}");
    }

    #[test]
    fn reserved_names_are_no_topics() {
        let (_dir, layout) = fresh();
        for name in ["checkpoints", "Checkpoints", "bus.json", "BUS.JSON", "bus.lock"] {
            let e = layout.create_topic(&RealDisk, &topic(name), 1).unwrap_err();
            assert_eq!(*e.kind(), ErrorKind::InvalidInput);
            assert_eq!(
                *layout.load_topic(&RealDisk, "read", &topic(name)).unwrap_err().kind(),
                ErrorKind::NotFound
            );
        }
    }

    #[test]
    fn a_log_that_cannot_be_placed_refuses_the_topic() {
        for (name, version) in [
            ("partition=0.00000000000000000100.jsonl", true),
            ("partition=2.jsonl", false),
            ("partition=00.jsonl", false),
            ("partition=0.old.jsonl", false),
        ] {
            let (_dir, layout) = fresh();
            let t = topic("t");
            layout.create_topic(&RealDisk, &t, 2).unwrap();
            std::fs::write(layout.topic_dir(&t).join(name), b"").unwrap();
            let e = layout.load_topic(&RealDisk, "read", &t).unwrap_err();
            assert_eq!(*e.kind() == ErrorKind::WrongVersion, version, "{name}: {e}");
            assert!(e.to_string().contains(name), "{e}");
        }
        let (_dir, layout) = fresh();
        let t = topic("t");
        layout.create_topic(&RealDisk, &t, 1).unwrap();
        std::fs::write(layout.topic_dir(&t).join("notes.txt"), b"").unwrap();
        std::fs::write(layout.topic_dir(&t).join("partition=0.torn-20260129T100000.123456Z"), b"").unwrap();
        layout.load_topic(&RealDisk, "read", &t).unwrap();
    }

    #[test]
    fn metadata_of_a_later_version_or_another_topic_is_refused() {
        let (_dir, layout) = fresh();
        let t = topic("t");
        layout.create_topic(&RealDisk, &t, 1).unwrap();
        let path = layout.topic_dir(&t).join(TOPIC_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to, version) in [
            ("\"version\":1", "\"version\":2,\"new\":true", true),
            ("\"topic\":\"t\"", "\"topic\":\"T\"", false),
            ("\"partitions\":1", "\"partitions\":0", false),
            ("eb-file-topic", "something-else", false),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            std::fs::write(&path, changed).unwrap();
            let e = layout.load_topic(&RealDisk, "read", &t).unwrap_err();
            assert_eq!(*e.kind() == ErrorKind::WrongVersion, version, "{e}");
        }
        let bus = RealDisk.open(&layout.root().join(BUS_FILE), OpenMode::Write).unwrap();
        write_full(&*bus, b"X", 0).unwrap();
        assert!(matches!(layout.open_root(&RealDisk, true).unwrap_err().kind(), ErrorKind::Corrupt { .. }));
    }

    #[test]
    fn set_aside_files_have_names_that_sort_by_time_and_hold_no_colon() {
        let files = Layout::new("/bus").partition(&topic("t"), PartitionId(3));
        let at = Timestamp::parse("2026-01-29T10:00:00.123456Z").unwrap();
        assert_eq!(files.torn(at), Path::new("/bus/t/partition=3.torn-20260129T100000.123456Z"));
    }
}
