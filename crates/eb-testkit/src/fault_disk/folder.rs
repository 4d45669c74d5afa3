//! One folder: the names as processes see them, and which of them the medium has.

use std::collections::BTreeMap;

use super::image::Survival;

/// Names a file or folder whatever it is called.
pub(super) type NodeId = u64;

/// A change of names that happens whole or not at all.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Add { name: String, node: NodeId },
    Remove { name: String },
    Rename { from: String, to: String, node: NodeId },
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    now: BTreeMap<String, NodeId>,
    medium: BTreeMap<String, NodeId>,
    unsynced: Vec<NameChange>,
}

impl Folder {
    pub(super) fn get(&self, name: &str) -> Option<NodeId> {
        self.now.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&String, NodeId)> {
        self.now.iter().map(|(name, node)| (name, *node))
    }

    pub(super) fn change(&mut self, change: NameChange) {
        apply(&mut self.now, &change);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        self.medium.clone_from(&self.now);
        self.unsynced.clear();
    }

    /// Some of the changes reached the medium. Unlike a file's bytes, names stay due: the next sync takes them up.
    pub(super) fn fail_sync(&mut self, survival: &mut Survival) {
        self.settle(survival);
    }

    pub(super) fn cut_power(&mut self, survival: &mut Survival) {
        self.settle(survival);
        self.now.clone_from(&self.medium);
        self.unsynced.clear();
    }

    fn settle(&mut self, survival: &mut Survival) {
        for change in &self.unsynced {
            if survival.choose(1) == 1 {
                apply(&mut self.medium, change);
            }
        }
    }
}

fn apply(names: &mut BTreeMap<String, NodeId>, change: &NameChange) {
    match change {
        NameChange::Add { name, node } => _ = names.insert(name.clone(), *node),
        NameChange::Remove { name } => _ = names.remove(name),
        NameChange::Rename { from, to, node } => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}
