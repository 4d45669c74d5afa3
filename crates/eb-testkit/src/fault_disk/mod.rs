//! A disk in memory that keeps apart what processes see and what the medium holds, and fails on request.
//!
//! # The machine
//! A [`FaultDisk`] is one process's view of a machine; [`FaultDisk::new_process`] gives another process on the same
//! machine, with the same page cache and locks of its own. The model follows FORMAT.md, section 4, at its harshest:
//!
//! * **Bytes.** Every write lands in the page cache. Until a sync of that file succeeds, a power cut leaves in each
//!   512-byte sector *any one* of the states it has had since the last sync, independently of its neighbours, and the
//!   file any one of the lengths it has had. What was never written reads as zeros.
//! * **Names.** Creating, renaming and removing change the folder that processes see. Until the folder was synced, a
//!   power cut lets any subset of those changes through. A rename puts the new name in place in one step or not at all, but
//!   the old name may still be there too (as on file systems without a journal). Syncing a file does not sync its name.
//! * **Failed syncs.** Any part of the unsynced bytes reaches the medium, all of them count as clean from then on, and the next sync
//!   succeeds without them. [`FaultDisk::evict`] then shows what the medium holds.
//! * **Full disk.** Either one operation fails ([`Fault::Enospc`]), or the machine has a capacity
//!   ([`FaultDisk::set_capacity`]): a write that would exceed it comes short, the next fails.
//! * **Locks** end with the process that holds them, or with the power.
//!
//! What it does *not* model: bit rot (use [`FaultDisk::damage`]), sectors torn in the middle, and metadata that is
//! written without being asked for in an order that an application could come to rely on.
//!
//! # Striking
//! [`FaultDisk::plan`] arms a [`Plan`]; [`FaultDisk::struck`] tells which have struck. After [`Fault::PowerCut`] and
//! [`Fault::Kill`] every operation of the process fails, as if it were not there to see it; the test then goes on with
//! what [`FaultDisk::power_on`] or [`FaultDisk::restart`] returns. Everything random is drawn from the seed.

mod file;
mod folder;
mod image;
mod machine;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eb_disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};
use parking_lot::Mutex;

pub use image::Survival;
pub use plan::{Fault, OpKind, Plan, Struck};

use crate::Rng;
use file::File;
use folder::{Folder, NameChange, NodeId};
use image::FileImage;
use machine::{Armed, Machine, Meanwhile, Node, ROOT};

/// One process's view of a machine with a faulty disk. Clones are the same process. See the [module](self).
#[derive(Clone)]
pub struct FaultDisk {
    machine: Arc<Mutex<Machine>>,
    process: u64,
}

impl FaultDisk {
    /// A machine with an empty disk and one process. Everything random is drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::boot(BTreeMap::from([(ROOT, Node::Folder(Folder::default()))]), 1, 1, None, Rng::new(seed))
    }

    fn boot(
        nodes: BTreeMap<NodeId, Node>,
        next_node: NodeId,
        boots: u64,
        capacity: Option<u64>,
        rng: Rng,
    ) -> Self {
        let machine = Machine {
            nodes,
            next_node,
            locks: BTreeMap::new(),
            processes: BTreeSet::from([1]),
            next_process: 2,
            powered: true,
            boots,
            capacity,
            rng,
            armed: Vec::new(),
            meanwhile: None,
            struck: Vec::new(),
            counts: BTreeMap::new(),
            operations: 0,
            trace: VecDeque::new(),
        };
        Self { machine: Arc::new(Mutex::new(machine)), process: 1 }
    }

    /// Arms a fault. Several may be armed at once.
    pub fn plan(&self, plan: Plan) {
        let mut machine = self.machine.lock();
        let due = plan.nth + machine.count(plan.kind);
        machine.armed.push(Armed { plan, due });
    }

    /// Does something just before the `nth` operation of `kind` (counted from now) takes place, on the thread that asked for it:
    /// what others see at that very moment. The machine is not locked meanwhile.
    pub fn meanwhile(&self, kind: OpKind, nth: u64, act: impl FnOnce() + Send + 'static) {
        let mut machine = self.machine.lock();
        let due = nth + machine.count(Some(kind));
        machine.meanwhile = Some(Meanwhile { process: self.process, kind, due, act: Box::new(act) });
    }

    /// Disarms what has not struck yet.
    pub fn calm(&self) {
        let mut machine = self.machine.lock();
        machine.armed.clear();
        machine.meanwhile = None;
    }

    /// The faults that struck since the machine was switched on.
    #[must_use]
    pub fn struck(&self) -> Vec<Struck> {
        self.machine.lock().struck.clone()
    }

    /// Operations since the machine was switched on, of one kind or of all.
    #[must_use]
    pub fn operations(&self, kind: Option<OpKind>) -> u64 {
        self.machine.lock().count(kind)
    }

    /// Limits the bytes that all files together may hold; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.machine.lock().capacity = bytes;
    }

    /// The bytes that all files hold now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.machine.lock().used()
    }

    /// Another process on the same machine.
    #[must_use]
    pub fn new_process(&self) -> Self {
        let mut machine = self.machine.lock();
        let process = machine.next_process;
        machine.next_process += 1;
        machine.processes.insert(process);
        Self { machine: self.machine.clone(), process }
    }

    /// Ends this process as `kill -9` does: its operations fail from now on, its locks are free, the page cache lives on.
    pub fn kill(&self) {
        self.machine.lock().kill(self.process);
    }

    /// Kills this process if it still lives, and gives the one that is started in its place.
    #[must_use]
    pub fn restart(&self) -> Self {
        self.kill();
        self.new_process()
    }

    /// Whether this process can still do anything.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let machine = self.machine.lock();
        machine.powered && machine.processes.contains(&self.process)
    }

    /// Whether the machine has power.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        self.machine.lock().powered
    }

    /// Cuts the power if it is still on, and switches the machine on again: what was not synced survives as
    /// `survival` chooses. All views of the old machine stay dead. Plans and counts start anew.
    #[must_use]
    pub fn power_on(&self, mut survival: Survival) -> Self {
        let mut old = self.machine.lock();
        old.powered = false;
        let mut nodes = old.nodes.clone();
        for node in nodes.values_mut() {
            match node {
                Node::File(file) => file.cut_power(&mut survival),
                Node::Folder(folder) => folder.cut_power(&mut survival),
            }
        }
        Self::boot(nodes, old.next_node, old.boots + 1, old.capacity, old.rng.fork())
    }

    /// Drops from the page cache what counts as clean: after a failed sync, reading tells what the medium holds.
    pub fn evict(&self) {
        for node in self.machine.lock().nodes.values_mut() {
            if let Node::File(file) = node {
                file.evict();
            }
        }
    }

    /// Counts how often the machine was switched on.
    #[must_use]
    pub fn boots(&self) -> u64 {
        self.machine.lock().boots
    }

    /// All files with their content as processes see it, sorted by path.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.machine.lock().files(FileImage::cache)
    }

    /// All files that processes see, with what the medium holds of them for sure.
    #[must_use]
    pub fn media(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.machine.lock().files(FileImage::medium)
    }

    /// Replaces the content of a file behind the programs' backs, in cache and medium.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn damage(&self, path: &Path, content: &[u8]) {
        let mut machine = self.machine.lock();
        let node = machine.find(path).expect("damage needs a file that is there");
        machine.file(node).expect("damage is for files").replace(content);
    }

    /// The last operations, one a line: for the message of a test that fails.
    #[must_use]
    pub fn trace(&self) -> String {
        let machine = self.machine.lock();
        let lines: Vec<&str> = machine.trace.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    /// Counts an operation and finds what shall happen to it.
    fn begin<'a>(
        &'a self,
        kind: OpKind,
        path: &Path,
        detail: fmt::Arguments<'_>,
    ) -> io::Result<(parking_lot::MutexGuard<'a, Machine>, Option<Fault>)> {
        let mut machine = self.machine.lock();
        let number = machine.count(Some(kind));
        let due = |m: &mut Meanwhile| m.process == self.process && m.kind == kind && number >= m.due;
        if let Some(meanwhile) = machine.meanwhile.take_if(due) {
            drop(machine);
            (meanwhile.act)();
            machine = self.machine.lock();
        }
        if !machine.powered {
            return Err(io::Error::other("the power is off"));
        }
        if !machine.processes.contains(&self.process) {
            return Err(io::Error::other("the process is dead"));
        }
        let fault = machine.count_and_strike(kind, path, self.process, detail);
        match fault {
            Some(Fault::Eio) if !kind.is_sync() && kind != OpKind::Write => Err(eio()),
            Some(Fault::Enospc) if !kind.is_sync() && kind != OpKind::Write => Err(enospc()),
            Some(Fault::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
            other => Ok((machine, other)),
        }
    }

    /// Ends the process or the machine if that is what was planned; whether the operation took place before is chance.
    fn end(&self, machine: &mut Machine, fault: Option<Fault>) -> io::Result<()> {
        match fault {
            Some(Fault::PowerCut) => {
                machine.powered = false;
                Err(io::Error::other("the power went off"))
            }
            Some(Fault::Kill) => {
                machine.kill(self.process);
                Err(io::Error::other("the process died"))
            }
            _ => Ok(()),
        }
    }

    /// Does a change that happens whole or not at all.
    fn atomic<T>(
        &self,
        kind: OpKind,
        path: &Path,
        change: impl FnOnce(&mut Machine) -> io::Result<T>,
    ) -> io::Result<T> {
        let (mut machine, fault) = self.begin(kind, path, format_args!(""))?;
        let last_gasp = matches!(fault, Some(Fault::PowerCut | Fault::Kill));
        if last_gasp && machine.rng.chance(50) {
            self.end(&mut machine, fault)?;
        }
        let done = change(&mut machine)?;
        self.end(&mut machine, fault)?;
        Ok(done)
    }
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.machine.lock();
        f.debug_struct("FaultDisk")
            .field("process", &self.process)
            .field("powered", &machine.powered)
            .field("operations", &machine.operations)
            .field("struck", &machine.struck)
            .finish_non_exhaustive()
    }
}

impl Disk for FaultDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let node = self.atomic(OpKind::Open, path, |machine| match mode {
            OpenMode::Create => machine.find_or_create_file(path),
            OpenMode::Read | OpenMode::Write => {
                let node = machine.find(path)?;
                // Opening a folder for reading works on Unix; no one here needs it.
                machine.file(node).map(|_| node)
            }
        })?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(File { disk: self.clone(), node, path: path.to_owned(), writable }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.atomic(OpKind::CreateDir, path, |machine| {
            let (folder, name) = machine.parent(path)?;
            match machine.folder_ref(folder)?.get(&name) {
                Some(node) => {
                    machine.folder_ref(node).map(|_| ()).map_err(|_| io::ErrorKind::AlreadyExists.into())
                }
                None => machine.add(folder, name, Node::Folder(Folder::default())).map(|_| ()),
            }
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.atomic(OpKind::List, path, |machine| {
            let folder = machine.folder_ref(machine.find(path)?)?;
            let entry = |(name, node): (&String, NodeId)| DirEntry {
                name: name.clone(),
                is_dir: matches!(machine.nodes.get(&node), Some(Node::Folder(_))),
            };
            Ok(folder.names().map(entry).collect())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.atomic(OpKind::Rename, to, |machine| {
            let (folder, from) = machine.parent(from)?;
            let (target, to) = machine.parent(to)?;
            if folder != target {
                return Err(io::ErrorKind::CrossesDevices.into());
            }
            let folder = machine.folder(folder)?;
            let node = folder.get(&from).ok_or(io::ErrorKind::NotFound)?;
            // Two names of one file stay as they are, says POSIX.
            if folder.get(&to) != Some(node) {
                folder.change(NameChange::Rename { from, to, node });
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.atomic(OpKind::Remove, path, |machine| {
            let (folder, name) = machine.parent(path)?;
            let node = machine.find(path)?;
            machine.file(node)?;
            machine.folder(folder)?.change(NameChange::Remove { name });
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut machine, fault) = self.begin(OpKind::SyncDir, path, format_args!(""))?;
        let node = machine.find(path)?;
        let mut survival = Survival::Chance(machine.rng.fork());
        let folder = machine.folder(node)?;
        match fault {
            Some(Fault::Eio) => {
                folder.fail_sync(&mut survival);
                Err(eio())
            }
            Some(Fault::Enospc) => {
                folder.fail_sync(&mut survival);
                Err(enospc())
            }
            Some(Fault::PowerCut | Fault::Kill) => {
                folder.fail_sync(&mut survival);
                self.end(&mut machine, fault)
            }
            _ => {
                folder.sync();
                Ok(())
            }
        }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let node = self.atomic(OpKind::Lock, path, |machine| {
            let node = machine.find_or_create_file(path)?;
            if machine.locks.contains_key(&node) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            machine.locks.insert(node, self.process);
            Ok(node)
        })?;
        Ok(Box::new(Lock { disk: self.clone(), node }))
    }

    fn boot_id(&self) -> [u8; 16] {
        u128::from(self.boots()).to_be_bytes()
    }
}

struct Lock {
    disk: FaultDisk,
    node: NodeId,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("process", &self.disk.process).finish_non_exhaustive()
    }
}

impl DiskLock for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut machine = self.disk.machine.lock();
        // A dead process's lock may be another's by now.
        if machine.locks.get(&self.node) == Some(&self.disk.process) {
            machine.locks.remove(&self.node);
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn enospc() -> io::Error {
    // By kind, so that it means the same on every platform.
    io::ErrorKind::StorageFull.into()
}
