//! One file: what the page cache holds, what the medium holds, and what may happen to the difference.

use std::collections::BTreeMap;

use crate::Rng;

/// What a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;

/// The content of one sector at some moment.
type Version = Box<[u8; SECTOR]>;

/// Which unsynced changes a power cut lets through.
#[derive(Debug, Clone)]
pub enum Survival {
    /// All: as if everything had been synced just before.
    All,
    /// None: exactly what the last sync left.
    Nothing,
    /// For every sector, length and name a choice of its own among all the states it had since the last sync.
    Chance(Rng),
}

impl Survival {
    /// A survival drawn from `rng`: mostly [`Survival::Chance`], at times one of the two extremes.
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.range(0..8) {
            0 => Self::All,
            1 => Self::Nothing,
            _ => Self::Chance(rng.fork()),
        }
    }

    /// Which of `states` states after the durable one survives; 0 is the durable one.
    pub(super) fn choose(&mut self, states: usize) -> usize {
        match self {
            Self::All => states,
            Self::Nothing => 0,
            Self::Chance(rng) => rng.index(states + 1),
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct FileImage {
    cache: Vec<u8>,
    medium: Vec<u8>,
    /// Each sector's states since the last sync, oldest first. The last one is what the cache holds.
    dirty: BTreeMap<usize, Vec<Version>>,
    /// The lengths since the last sync, oldest first; empty if it has not changed.
    lengths: Vec<usize>,
}

impl FileImage {
    /// What a process reads.
    pub(super) fn cache(&self) -> &[u8] {
        &self.cache
    }

    /// What survives a power cut that takes everything unsynced.
    pub(super) fn medium(&self) -> &[u8] {
        &self.medium
    }

    /// Damage at rest: both cache and medium hold `content` from now on.
    pub(super) fn replace(&mut self, content: &[u8]) {
        *self = Self { cache: content.to_vec(), medium: content.to_vec(), ..Self::default() };
    }

    /// How much longer the file becomes by writing `len` bytes at `position`.
    pub(super) fn growth(&self, len: usize, position: usize) -> usize {
        (position + len).saturating_sub(self.cache.len())
    }

    pub(super) fn write(&mut self, buf: &[u8], position: usize) {
        if buf.is_empty() {
            return;
        }
        let end = position + buf.len();
        let grows = end > self.cache.len();
        if grows {
            self.cache.resize(end, 0);
        }
        self.cache[position..end].copy_from_slice(buf);
        // The second case follows a failed sync that left the medium shorter than the cache: writing there again
        // makes the file system write the length again.
        if grows || end > self.medium.len() {
            self.lengths.push(self.cache.len());
        }
        for sector in position / SECTOR..end.div_ceil(SECTOR) {
            self.touch(sector);
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        let before = self.cache.len();
        self.cache.resize(len, 0);
        // Also if it is the one that the cache shows: after a failed sync, that is how a program puts it before the next one.
        self.lengths.push(len);
        // What was cut off reads as zeros should the file grow again.
        if len < before {
            for sector in len / SECTOR..before.div_ceil(SECTOR) {
                self.touch(sector);
            }
        }
    }

    fn touch(&mut self, sector: usize) {
        let mut version = Box::new([0; SECTOR]);
        let start = (sector * SECTOR).min(self.cache.len());
        let end = (start + SECTOR).min(self.cache.len());
        version[..end - start].copy_from_slice(&self.cache[start..end]);
        self.dirty.entry(sector).or_default().push(version);
    }

    /// Everything written so far, and the length, is on the medium.
    pub(super) fn sync(&mut self) {
        self.settle(&mut Survival::All);
    }

    /// Some of it is, and the rest counts as clean from now on: the cache holds what the medium does not, and a
    /// later sync, finding nothing to write, succeeds.
    pub(super) fn fail_sync(&mut self, survival: &mut Survival) {
        self.settle(survival);
    }

    /// The cache is gone and read anew.
    pub(super) fn cut_power(&mut self, survival: &mut Survival) {
        self.settle(survival);
        self.cache.clone_from(&self.medium);
    }

    /// Memory pressure: what counts as clean is dropped from the cache and comes back from the medium.
    pub(super) fn evict(&mut self) {
        let mut fresh = self.medium.clone();
        let len = if self.lengths.is_empty() { self.medium.len() } else { self.cache.len() };
        fresh.resize(len, 0);
        for (sector, versions) in &self.dirty {
            if let Some(version) = versions.last() {
                put(&mut fresh, *sector, version);
            }
        }
        self.cache = fresh;
    }

    fn settle(&mut self, survival: &mut Survival) {
        let length = match survival.choose(self.lengths.len()) {
            0 => self.medium.len(),
            n => self.lengths[n - 1],
        };
        self.medium.resize(length, 0);
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            if let Some(n) = survival.choose(versions.len()).checked_sub(1) {
                put(&mut self.medium, sector, &versions[n]);
            }
        }
        self.lengths.clear();
    }
}

fn put(bytes: &mut [u8], sector: usize, version: &[u8; SECTOR]) {
    let start = (sector * SECTOR).min(bytes.len());
    let end = (start + SECTOR).min(bytes.len());
    bytes[start..end].copy_from_slice(&version[..end - start]);
}
