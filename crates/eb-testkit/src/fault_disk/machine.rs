//! What the processes of one machine share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::folder::{Folder, NameChange, NodeId};
use super::image::FileImage;
use super::plan::{Fault, OpKind, Plan, Struck};
use crate::Rng;

pub(super) const ROOT: NodeId = 0;
const TRACED: usize = 80;

pub(super) struct Machine {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) next_node: NodeId,
    pub(super) locks: BTreeMap<NodeId, u64>,
    pub(super) processes: BTreeSet<u64>,
    pub(super) next_process: u64,
    pub(super) powered: bool,
    pub(super) boots: u64,
    pub(super) capacity: Option<u64>,
    pub(super) rng: Rng,
    pub(super) armed: Vec<Armed>,
    pub(super) meanwhile: Option<Meanwhile>,
    pub(super) struck: Vec<Struck>,
    pub(super) counts: BTreeMap<OpKind, u64>,
    pub(super) operations: u64,
    pub(super) trace: VecDeque<String>,
}

#[derive(Clone)]
pub(super) enum Node {
    File(FileImage),
    Folder(Folder),
}

pub(super) struct Armed {
    pub(super) plan: Plan,
    /// The number, in the plan's own count, of the operation to strike.
    pub(super) due: u64,
}

/// Something to be done at a certain moment of a process.
pub(super) struct Meanwhile {
    pub(super) process: u64,
    pub(super) kind: OpKind,
    pub(super) due: u64,
    pub(super) act: Box<dyn FnOnce() + Send>,
}

impl Machine {
    pub(super) fn count(&self, kind: Option<OpKind>) -> u64 {
        kind.map_or(self.operations, |kind| self.counts.get(&kind).copied().unwrap_or(0))
    }

    pub(super) fn count_and_strike(
        &mut self,
        kind: OpKind,
        path: &Path,
        process: u64,
        detail: fmt::Arguments<'_>,
    ) -> Option<Fault> {
        let number = self.operations;
        let of_kind = self.counts.entry(kind).or_default();
        let number_of_kind = *of_kind;
        *of_kind += 1;
        self.operations += 1;
        let strikes = self.armed.iter().position(|armed| {
            armed.plan.fault.applies_to(kind)
                && match armed.plan.kind {
                    Some(wanted) => wanted == kind && number_of_kind >= armed.due,
                    None => number >= armed.due,
                }
        });
        let fault = strikes.map(|at| self.armed.remove(at).plan.fault);
        if let Some(fault) = fault {
            self.struck.push(Struck { fault, kind, path: path.display().to_string(), number });
        }
        if self.trace.len() == TRACED {
            self.trace.pop_front();
        }
        let shown = fault.map(|fault| format!("  ← {fault:?}")).unwrap_or_default();
        self.trace.push_back(format!("{number} p{process} {kind:?} {}{detail}{shown}", path.display()));
        fault
    }

    pub(super) fn kill(&mut self, process: u64) {
        self.processes.remove(&process);
        self.locks.retain(|_, holder| *holder != process);
    }

    pub(super) fn used(&self) -> u64 {
        let files = self.nodes.values().filter_map(|node| match node {
            Node::File(file) => Some(file.cache().len() as u64),
            Node::Folder(_) => None,
        });
        files.sum()
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                    node = self.folder_ref(node)?.get(name).ok_or(io::ErrorKind::NotFound)?;
                }
                Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        Ok(node)
    }

    /// The folder that holds a path's last name, and that name.
    pub(super) fn parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.find(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        self.folder_ref(folder)?;
        Ok((folder, name.to_owned()))
    }

    pub(super) fn folder_ref(&self, node: NodeId) -> io::Result<&Folder> {
        match self.nodes.get(&node) {
            Some(Node::Folder(folder)) => Ok(folder),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn folder(&mut self, node: NodeId) -> io::Result<&mut Folder> {
        match self.nodes.get_mut(&node) {
            Some(Node::Folder(folder)) => Ok(folder),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&mut self, node: NodeId) -> io::Result<&mut FileImage> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn find_or_create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        let (folder, name) = self.parent(path)?;
        if let Some(node) = self.folder_ref(folder)?.get(&name) {
            self.file(node)?;
            return Ok(node);
        }
        self.add(folder, name, Node::File(FileImage::default()))
    }

    pub(super) fn add(&mut self, folder: NodeId, name: String, node: Node) -> io::Result<NodeId> {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        self.folder(folder)?.change(NameChange::Add { name, node: id });
        Ok(id)
    }

    pub(super) fn files(&self, content: impl Fn(&FileImage) -> &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, folder)) = folders.pop() {
            let Some(Node::Folder(folder)) = self.nodes.get(&folder) else { continue };
            for (name, node) in folder.names() {
                match self.nodes.get(&node) {
                    Some(Node::File(file)) => found.push((path.join(name), content(file).to_vec())),
                    Some(Node::Folder(_)) => folders.push((path.join(name), node)),
                    None => {}
                }
            }
        }
        found.sort();
        found
    }
}
