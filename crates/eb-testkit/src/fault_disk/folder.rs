//! One folder: the names as processes see them, and which of them the medium has.

use std::collections::BTreeMap;

use super::image::Survival;

/// Names a file or folder whatever it is called.
pub(super) type NodeId = u64;

/// A change of names.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Add { name: String, node: NodeId },
    Remove { name: String },
    Rename { from: String, to: String, node: NodeId },
}

/// How much of a change is on the medium: the number of its parts, in order.
#[derive(Debug, Clone)]
struct Unsynced {
    change: NameChange,
    done: usize,
}

impl NameChange {
    /// A rename puts the new name in place in one step; that the old one goes is another.
    fn parts(&self) -> usize {
        match self {
            Self::Rename { .. } => 2,
            Self::Add { .. } | Self::Remove { .. } => 1,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, NodeId>, parts: usize) {
        match self {
            _ if parts == 0 => {}
            Self::Add { name, node } => _ = names.insert(name.clone(), *node),
            Self::Remove { name } => _ = names.remove(name),
            Self::Rename { from, to, node } => {
                names.insert(to.clone(), *node);
                // What took the old name since is not the renamed one's to remove.
                if parts == 2 && names.get(from) == Some(node) {
                    names.remove(from);
                }
            }
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    now: BTreeMap<String, NodeId>,
    /// As of the last sync that succeeded.
    synced: BTreeMap<String, NodeId>,
    /// What happened since, in order.
    unsynced: Vec<Unsynced>,
}

impl Folder {
    pub(super) fn get(&self, name: &str) -> Option<NodeId> {
        self.now.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&String, NodeId)> {
        self.now.iter().map(|(name, node)| (name, *node))
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.now, change.parts());
        self.unsynced.push(Unsynced { change, done: 0 });
    }

    pub(super) fn sync(&mut self) {
        self.synced.clone_from(&self.now);
        self.unsynced.clear();
    }

    /// Some of the changes reached the medium. Unlike a file's bytes, names stay due: the next sync takes them up.
    pub(super) fn fail_sync(&mut self, survival: &mut Survival) {
        for unsynced in &mut self.unsynced {
            unsynced.done += survival.choose(unsynced.change.parts() - unsynced.done);
        }
    }

    pub(super) fn cut_power(&mut self, survival: &mut Survival) {
        self.fail_sync(survival);
        for unsynced in self.unsynced.drain(..) {
            unsynced.change.apply(&mut self.synced, unsynced.done);
        }
        self.now.clone_from(&self.synced);
    }
}
