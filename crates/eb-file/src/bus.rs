//! The open bus: what publishers, readers and admin handles of one process share.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use eb_contract::{
    BoxFuture, BusIncarnation, Capabilities, Error, ErrorKind, EventBusAdmin, OffsetKind, PartitionId,
    Result, Topic,
};
use parking_lot::{Mutex, RwLock};

use crate::config::FileBusConfig;
use crate::disk::{Disk, RealDisk};
use crate::horizon::ReadSide;
use crate::layout::{Layout, PartitionFiles, TopicMeta};
use crate::offload::offload;
use crate::publisher::{FilePublisher, Session};
use crate::reader::FileReader;
use crate::state::TailState;

/// A file bus in one folder. Cloning shares it: open it once per process and folder, and take handles from it.
#[derive(Clone)]
pub struct FileBus {
    pub(crate) shared: Arc<BusShared>,
}

impl fmt::Debug for FileBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBus").field("root", &self.shared.layout.root()).finish_non_exhaustive()
    }
}

impl FileBus {
    /// Opens a bus, making its folder where the configuration allows. Starts no thread and locks nothing: a partition is locked and
    /// recovered when it is first published to.
    ///
    /// Blocks on a handful of small file operations.
    ///
    /// # Errors
    /// `NotFound` without a bus where none may be made, `InvalidInput` for a configuration that cannot be, `Corrupt` or `WrongVersion`
    /// for a folder that is not this version's, `Io` for what the file system says.
    pub fn open(config: FileBusConfig) -> Result<Self> {
        Self::open_on(config, Arc::new(RealDisk))
    }

    /// As [`FileBus::open`], on another disk: for tests that make a disk fail.
    ///
    /// # Errors
    /// As for [`FileBus::open`].
    pub fn open_on(config: FileBusConfig, disk: Arc<dyn Disk>) -> Result<Self> {
        config.check()?;
        let layout = Layout::new(config.root.clone());
        layout.open_root(&*disk, config.create)?;
        let boot_id = disk.boot_id();
        let shared = BusShared {
            disk,
            layout,
            capabilities: capabilities(&config),
            config,
            boot_id,
            topics: RwLock::new(HashMap::new()),
            session: Mutex::new(Weak::new()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The publisher of this bus: the same one for everyone who asks, until it is closed; then a new one, which recovers the logs
    /// again when it first needs them.
    #[must_use]
    pub fn publisher(&self) -> FilePublisher {
        let mut session = self.shared.session.lock();
        if let Some(open) = session.upgrade().filter(|s| !s.is_closed()) {
            return FilePublisher::new(open);
        }
        let new = Session::new(self.shared.clone(), self.shared.capabilities.clone());
        *session = Arc::downgrade(&new);
        FilePublisher::new(new)
    }

    /// A new reader of this bus. Each is closed on its own.
    #[must_use]
    pub fn reader(&self) -> FileReader {
        FileReader::new(self.shared.clone())
    }

    /// The handle that makes topics.
    #[must_use]
    pub fn admin(&self) -> FileAdmin {
        FileAdmin { shared: self.shared.clone() }
    }

    /// Makes a topic, blocking; see [`EventBusAdmin::create_topic`].
    ///
    /// # Errors
    /// As for [`EventBusAdmin::create_topic`].
    pub fn create_topic(&self, topic: &Topic, partitions: u32) -> Result<()> {
        self.shared.create_topic(topic, partitions)
    }
}

fn capabilities(config: &FileBusConfig) -> Capabilities {
    let mut capabilities = Capabilities::new("file", OffsetKind::FileLine);
    capabilities.max_envelope_bytes = config.max_envelope_bytes;
    capabilities.max_batch_records = config.max_batch_records;
    // Only when the device fails a sync, but then nobody can tell.
    capabilities.unknown_outcomes = true;
    if cfg!(windows) {
        capabilities
            .notes
            .push("On Windows a folder cannot be synced: new files are durable as best effort.".to_owned());
    }
    capabilities
}

/// What all handles share.
pub(crate) struct BusShared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) layout: Layout,
    pub(crate) config: FileBusConfig,
    pub(crate) capabilities: Capabilities,
    pub(crate) boot_id: [u8; 16],
    /// The publisher that was handed out last.
    session: Mutex<Weak<Session>>,
    /// Topics that were used. One that another process makes later is found when it is asked for.
    topics: RwLock<HashMap<Topic, Arc<TopicState>>>,
}

impl BusShared {
    /// A topic's state, read from its metadata when it is first asked for: two small file operations, blocking.
    pub(crate) fn topic(&self, op: &'static str, topic: &Topic) -> Result<Arc<TopicState>> {
        if let Some(state) = self.topics.read().get(topic) {
            return Ok(state.clone());
        }
        let meta = self.layout.load_topic(&*self.disk, op, topic)?;
        Ok(self.remember(meta))
    }

    /// A topic's state, where it has been asked for before.
    pub(crate) fn known_topic(&self, topic: &Topic) -> Option<Arc<TopicState>> {
        self.topics.read().get(topic).cloned()
    }

    fn create_topic(&self, topic: &Topic, partitions: u32) -> Result<()> {
        let meta = self.layout.create_topic(&*self.disk, topic, partitions)?;
        self.remember(meta);
        Ok(())
    }

    fn remember(&self, meta: TopicMeta) -> Arc<TopicState> {
        let mut topics = self.topics.write();
        let state =
            topics.entry(meta.topic.clone()).or_insert_with(|| Arc::new(TopicState::new(&self.layout, meta)));
        state.clone()
    }
}

/// One topic in this process.
pub(crate) struct TopicState {
    pub(crate) meta: TopicMeta,
    pub(crate) incarnation: BusIncarnation,
    pub(crate) partitions: Vec<Arc<PartitionState>>,
}

impl TopicState {
    fn new(layout: &Layout, meta: TopicMeta) -> Self {
        let partition = |n| {
            let id = PartitionId(n);
            Arc::new(PartitionState {
                topic: meta.topic.clone(),
                id,
                files: layout.partition(&meta.topic, id),
                tail: Mutex::new(None),
                reads: ReadSide::default(),
            })
        };
        let partitions = (0..meta.partitions).map(partition).collect();
        Self { incarnation: meta.bus_incarnation(), meta, partitions }
    }

    /// One of its partitions.
    pub(crate) fn partition(&self, op: &'static str, id: PartitionId) -> Result<&Arc<PartitionState>> {
        self.partitions.get(id.0 as usize).ok_or_else(|| {
            let what = format!("the topic has {} partitions", self.meta.partitions);
            Error::new(ErrorKind::NotFound, op, what).at(format_args!("{}/{id}", self.meta.topic))
        })
    }
}

/// One partition in this process.
pub(crate) struct PartitionState {
    pub(crate) topic: Topic,
    pub(crate) id: PartitionId,
    pub(crate) files: PartitionFiles,
    tail: Mutex<Option<Arc<TailState>>>,
    /// What the readers of this process know of it.
    pub(crate) reads: ReadSide,
}

impl PartitionState {
    /// How far the log is synced, while a writer of this process has it open. Otherwise only the watermark in the sidecar bounds a reader.
    pub(crate) fn tail(&self) -> Option<Arc<TailState>> {
        self.tail.lock().clone()
    }

    /// A writer of this process has recovered the log and goes on from here, or has closed it.
    pub(crate) fn set_tail(&self, tail: Option<Arc<TailState>>) {
        *self.tail.lock() = tail;
    }
}

impl fmt::Display for PartitionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.id)
    }
}

/// Makes topics; see [`FileBus::admin`].
#[derive(Clone)]
pub struct FileAdmin {
    shared: Arc<BusShared>,
}

impl fmt::Debug for FileAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileAdmin").field("root", &self.shared.layout.root()).finish_non_exhaustive()
    }
}

impl EventBusAdmin for FileAdmin {
    fn create_topic<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<()>> {
        let shared = self.shared.clone();
        let topic = topic.clone();
        Box::pin(offload("create topic", move || shared.create_topic(&topic, partitions)))
    }
}
