//! The table on disk: what of the storage engine the index uses, and nothing else of it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eb_contract::stores::{AdmissionEntry, AdmissionKey, IndexCheckpoint, PolicyEpoch};
use eb_contract::{Error, ErrorKind, Result, Topic};
use lsm_tree::compaction::{CompactionStrategy, Leveled};
use lsm_tree::config::{
    BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy, PinningPolicy,
};
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, Guard, SeqNo, SequenceNumberCounter};
use parking_lot::RwLock;

use super::{codec, layout};
use crate::error;

/// Entries carry a topic's number in 16 bits.
const MAX_TOPICS: usize = 1 << 16;

/// 1 in 1,400 misses reads a block in vain, for 1.9 bytes an entry.
const FILTER_BITS: f32 = 15.0;
/// Small tables and a late start of merging cost the fewest rewritten bytes for keys in random order.
const TABLE_BYTES: u64 = 8 << 20;
const MERGE_AT_RUNS: u8 = 8;

/// What is written in one step, or not at all.
#[derive(Default)]
pub(crate) struct WriteSet<'a> {
    /// In key order, each key once.
    pub(crate) entries: Vec<&'a AdmissionEntry>,
    /// The number of entries in the table, these included.
    pub(crate) count: u64,
    pub(crate) checkpoint: Option<&'a IndexCheckpoint>,
    /// To be numbered from this on.
    pub(crate) policies: (u32, &'a [PolicyEpoch]),
}

/// What the table holds besides entries.
#[derive(Default)]
pub(crate) struct Header {
    pub(crate) checkpoint: Option<IndexCheckpoint>,
    pub(crate) count: u64,
    pub(crate) policies: Vec<PolicyEpoch>,
}

/// The table. Every call may wait for the disk. One thread at a time may [`Store::write`].
pub(crate) struct Store {
    dir: PathBuf,
    tree: AnyTree,
    visible: SequenceNumberCounter,
    topics: RwLock<Topics>,
    /// The folder says that something was written.
    held: AtomicBool,
}

/// The topics by their numbers.
#[derive(Default)]
struct Topics {
    list: Vec<Topic>,
    numbers: HashMap<Topic, u16>,
    /// How many of them are in the table.
    stored: usize,
}

impl Topics {
    fn number(&self, topic: &Topic) -> Option<u16> {
        // For the few topics that there are as a rule, comparing is cheaper than hashing.
        if self.list.len() <= 8 {
            self.list.iter().position(|known| known == topic).map(|number| number as u16)
        } else {
            self.numbers.get(topic).copied()
        }
    }

    fn add(&mut self, topic: Topic) {
        self.numbers.insert(topic.clone(), self.list.len() as u16);
        self.list.push(topic);
    }
}

impl Store {
    /// Opens the table below `dir`, or makes a new one. The caller holds the lock on `dir`.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<(Self, Header)> {
        const OP: &str = "open";
        layout::prepare(dir)?;
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
            let tree = Config::new(dir.join(layout::TREE_FOLDER), seqno.clone(), visible.clone())
                .use_cache(Arc::new(Cache::with_capacity_bytes(cache_bytes)))
                .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(
                    BloomConstructionPolicy::BitsPerKey(FILTER_BITS),
                )))
                // Whole filters and block indexes stay in memory: a look-up then reads one block, or none.
                .filter_block_partitioning_policy(PartitioningPolicy::all(false))
                .index_block_partitioning_policy(PartitioningPolicy::all(false))
                .filter_block_pinning_policy(PinningPolicy::all(true))
                .index_block_pinning_policy(PinningPolicy::all(true))
                .open()?;
            if let Some(highest) = tree.get_highest_persisted_seqno() {
                seqno.fetch_max(highest + 1);
                visible.fetch_max(highest + 1);
            }
            Ok((tree, visible))
        }));
        let (tree, visible) = opened
            .map_err(|_| error::engine_panic(OP, dir))?
            .map_err(|e: lsm_tree::Error| error::engine(OP, dir, e))?;
        let store = Self {
            dir: dir.to_owned(),
            tree,
            visible,
            topics: RwLock::default(),
            held: AtomicBool::new(false),
        };
        let header = store.read_header(OP)?;
        Ok((store, header))
    }

    fn read_header(&self, op: &'static str) -> Result<Header> {
        let damaged = |what: &str| error::corrupt(op, &self.dir, &self.dir, what);
        let checkpoint = self
            .raw(op, codec::CHECKPOINT)?
            .map(|json| serde_json::from_slice(&json))
            .transpose()
            .map_err(|e| damaged("the checkpoint cannot be read").with_source(e))?;
        let count = match self.raw(op, codec::COUNT)? {
            None => 0,
            Some(n) => n
                .as_ref()
                .try_into()
                .map(u64::from_be_bytes)
                .map_err(|_| damaged("the number of entries cannot be read"))?,
        };
        let mut policies = Vec::new();
        for (key, json) in self.pairs(op, codec::POLICIES)? {
            if key[..] != codec::policy_key(policies.len() as u32)[..] {
                return Err(damaged("the policy history has a gap"));
            }
            let epoch = serde_json::from_slice(&json)
                .map_err(|e| damaged("the policy history cannot be read").with_source(e))?;
            policies.push(epoch);
        }
        let mut topics = self.topics.write();
        for (key, name) in self.pairs(op, codec::TOPICS)? {
            let topic = std::str::from_utf8(&name).ok().and_then(|name| Topic::new(name).ok());
            match topic {
                Some(topic) if key[..] == codec::topic_key(topics.list.len() as u16)[..] => topics.add(topic),
                _ => return Err(damaged("the list of topics cannot be read")),
            }
        }
        topics.stored = topics.list.len();
        Ok(Header { checkpoint, count, policies })
    }

    /// Asks the engine. It answers most damage with an error, and some with a panic.
    fn ask<T>(&self, op: &'static str, question: impl FnOnce() -> lsm_tree::Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(question))
            .map_err(|_| error::engine_panic(op, &self.dir))?
            .map_err(|e| error::engine(op, &self.dir, e))
    }

    fn raw(&self, op: &'static str, key: &[u8]) -> Result<Option<lsm_tree::Slice>> {
        self.ask(op, || self.tree.get(key, SeqNo::MAX))
    }

    fn pairs(&self, op: &'static str, prefix: &[u8]) -> Result<Vec<lsm_tree::KvPair>> {
        self.ask(op, || self.tree.prefix(prefix, SeqNo::MAX, None).map(Guard::into_inner).collect())
    }

    fn entry(&self, op: &'static str, key: &[u8], value: &[u8]) -> Result<AdmissionEntry> {
        codec::parse_entry_key(key)
            .and_then(|key| codec::parse_entry(key, value, &self.topics.read().list))
            .ok_or_else(|| error::corrupt(op, &self.dir, &self.dir, "an entry cannot be read"))
    }

    /// The entry of a key. Without one in the table this is a look at filters in memory, nearly always.
    pub(crate) fn get(&self, op: &'static str, key: &AdmissionKey) -> Result<Option<AdmissionEntry>> {
        let key = codec::entry_key(key);
        self.raw(op, &key)?.map(|value| self.entry(op, &key, &value)).transpose()
    }

    /// All entries of an event id, in key order.
    pub(crate) fn find_event(&self, op: &'static str, event: [u8; 8]) -> Result<Vec<AdmissionEntry>> {
        let pairs = self.pairs(op, &codec::event_prefix(event))?;
        pairs.iter().map(|(key, value)| self.entry(op, key, value)).collect()
    }

    /// Entries in key order after `after`, at most `max`.
    pub(crate) fn page(
        &self,
        op: &'static str,
        after: Option<AdmissionKey>,
        max: usize,
    ) -> Result<Vec<AdmissionEntry>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = after.map_or_else(
            || Included(codec::ENTRIES.to_vec()),
            |key| Excluded(codec::entry_key(&key).to_vec()),
        );
        let pairs: Vec<lsm_tree::KvPair> = self.ask(op, || {
            let range = self.tree.range::<Vec<u8>, _>((from, Unbounded), SeqNo::MAX, None);
            range.take(max).map(Guard::into_inner).collect()
        })?;
        pairs.iter().map(|(key, value)| self.entry(op, key, value)).collect()
    }

    /// Writes all of `set` and syncs it: afterwards it is there, whatever happens; after an error or a crash none
    /// of it is, or all. Trying again after an error is safe.
    pub(crate) fn write(&self, set: &WriteSet<'_>) -> Result<()> {
        const OP: &str = "flush";
        if !self.held.load(Ordering::Relaxed) {
            layout::mark_held(&self.dir).map_err(|e| error::io(OP, &self.dir, e))?;
            self.held.store(true, Ordering::Relaxed);
        }
        let numbers = self.number_topics(&set.entries)?;
        match catch_unwind(AssertUnwindSafe(|| self.write_table(set, &numbers))) {
            Ok(Ok(())) => {
                let mut topics = self.topics.write();
                topics.stored = topics.list.len();
                Ok(())
            }
            Ok(Err(Failure::Engine(e))) => Err(error::engine(OP, &self.dir, e)),
            Ok(Err(Failure::Entry(e))) => Err(e),
            Err(_) => Err(error::engine_panic(OP, &self.dir)),
        }
    }

    /// The topic's number for each entry. Readers see an entry from the moment it is written, so a new topic's number
    /// is known before.
    fn number_topics(&self, entries: &[&AdmissionEntry]) -> Result<Vec<u16>> {
        let mut topics = self.topics.write();
        let number = |entry: &&AdmissionEntry| {
            let topic = &entry.eb_ref.topic;
            if let Some(number) = topics.number(topic) {
                return Ok(number);
            }
            if topics.list.len() == MAX_TOPICS {
                let what = format!("the admission index takes events of {MAX_TOPICS} topics at most");
                return Err(Error::new(ErrorKind::Unsupported, "flush", what).at(topic));
            }
            topics.add(topic.clone());
            Ok((topics.list.len() - 1) as u16)
        };
        entries.iter().map(number).collect()
    }

    fn write_table(&self, set: &WriteSet<'_>, topic_numbers: &[u16]) -> Result<(), Failure> {
        let topics = self.topics.read();
        // One new table, sorted and synced, which the engine then makes part of the tree by one atomic rename.
        let mut table = self.tree.ingestion()?;
        if let Some(checkpoint) = set.checkpoint {
            table.write(codec::CHECKPOINT, json(checkpoint)?)?;
        }
        table.write(codec::COUNT, &set.count.to_be_bytes()[..])?;
        for (number, epoch) in (set.policies.0..).zip(set.policies.1) {
            table.write(codec::policy_key(number), json(epoch)?)?;
        }
        for (number, topic) in topics.list.iter().enumerate().skip(topics.stored) {
            table.write(codec::topic_key(number as u16), topic.as_str().as_bytes())?;
        }
        let mut value = Vec::with_capacity(128);
        for (entry, topic) in set.entries.iter().zip(topic_numbers) {
            value.clear();
            codec::put_entry(&mut value, entry, *topic).map_err(Failure::Entry)?;
            table.write(&codec::entry_key(&entry.key)[..], &value[..])?;
        }
        table.finish()?;
        Ok(())
    }

    /// Merges tables until there is nothing left worth merging, or `stop` says so.
    pub(crate) fn compact(&self, stop: impl Fn() -> bool) -> Result<()> {
        const OP: &str = "compact";
        while !stop() {
            let before = self.shape();
            let strategy: Arc<dyn CompactionStrategy> = Arc::new(
                Leveled::default().with_l0_threshold(MERGE_AT_RUNS).with_table_target_size(TABLE_BYTES),
            );
            self.ask(OP, || self.tree.compact(strategy, self.visible.get()))?;
            if self.shape() == before {
                break;
            }
        }
        Ok(())
    }

    fn shape(&self) -> [Option<usize>; 8] {
        std::array::from_fn(|level| self.tree.level_table_count(level))
    }

    /// Tables that were written and not yet merged; a look-up asks the filter of each.
    pub(crate) fn unmerged(&self) -> usize {
        self.tree.l0_run_count()
    }

    /// Bytes of all tables.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.tree.disk_space()
    }
}

enum Failure {
    Engine(lsm_tree::Error),
    Entry(Error),
}

impl From<lsm_tree::Error> for Failure {
    fn from(e: lsm_tree::Error) -> Self {
        Self::Engine(e)
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|e| {
        let what = "the checkpoint or policy cannot be written as JSON";
        Failure::Entry(Error::new(ErrorKind::InvalidInput, "flush", what).with_source(e))
    })
}
