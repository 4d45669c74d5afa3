//! What shall go wrong, and when.

use std::fmt;

/// The operations of a disk, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpKind {
    /// `Disk::open`.
    Open,
    /// `Disk::create_dir`.
    CreateDir,
    /// `Disk::list`.
    List,
    /// `Disk::rename`.
    Rename,
    /// `Disk::remove`.
    Remove,
    /// `Disk::sync_dir`.
    SyncDir,
    /// `Disk::try_lock`.
    Lock,
    /// `DiskFile::len`.
    Len,
    /// `DiskFile::read_at`.
    Read,
    /// `DiskFile::write_at`.
    Write,
    /// `DiskFile::set_len`.
    SetLen,
    /// `DiskFile::reserve`.
    Reserve,
    /// `DiskFile::sync_data`.
    SyncData,
    /// `DiskFile::sync_all`.
    SyncAll,
}

impl OpKind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Open,
        Self::CreateDir,
        Self::List,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Lock,
        Self::Len,
        Self::Read,
        Self::Write,
        Self::SetLen,
        Self::Reserve,
        Self::SyncData,
        Self::SyncAll,
    ];

    /// Whether it flushes the device's cache.
    #[must_use]
    pub const fn is_sync(self) -> bool {
        matches!(self, Self::SyncDir | Self::SyncData | Self::SyncAll)
    }
}

/// What goes wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// It fails with an I/O error. A write leaves any prefix behind. A sync leaves any part of the unsynced bytes on the
    /// medium and marks *all* of them clean: the cache goes on showing what the medium lacks, and the next
    /// sync succeeds without writing it.
    Eio,
    /// It fails for want of space. A write leaves any prefix behind, a sync does as for [`Fault::Eio`] (delayed
    /// allocation finds out late).
    Enospc,
    /// A read or write moves fewer bytes than asked for, and says so.
    Short,
    /// A write comes short, and the next one finds the disk full.
    ShortThenFull,
    /// A read or write is interrupted by a signal before it did anything.
    Interrupted,
    /// The machine loses power in the middle of it.
    PowerCut,
    /// The process dies in the middle of it; the page cache lives on.
    Kill,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Eio,
        Self::Enospc,
        Self::Short,
        Self::ShortThenFull,
        Self::Interrupted,
        Self::PowerCut,
        Self::Kill,
    ];

    /// Whether it can happen to such an operation.
    #[must_use]
    pub const fn applies_to(self, kind: OpKind) -> bool {
        match self {
            Self::Eio | Self::PowerCut | Self::Kill => true,
            Self::Enospc => !matches!(kind, OpKind::List | OpKind::Len | OpKind::Read | OpKind::Remove),
            Self::Short | Self::Interrupted => matches!(kind, OpKind::Read | OpKind::Write),
            Self::ShortThenFull => matches!(kind, OpKind::Write),
        }
    }
}

/// One thing that shall go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Count only operations of this kind; `None` counts all.
    pub kind: Option<OpKind>,
    /// Strikes the operation with this number, counted from 0 at the moment the plan is made. Where the fault cannot
    /// happen to that operation, it waits for the first to which it can.
    pub nth: u64,
    /// What happens to it.
    pub fault: Fault,
}

impl Plan {
    /// The `nth` operation of any kind.
    #[must_use]
    pub fn any(nth: u64, fault: Fault) -> Self {
        Self { kind: None, nth, fault }
    }

    /// The `nth` operation of this kind.
    #[must_use]
    pub fn of(kind: OpKind, nth: u64, fault: Fault) -> Self {
        Self { kind: Some(kind), nth, fault }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{:?} at {kind:?} {}", self.fault, self.nth),
            None => write!(f, "{:?} at operation {}", self.fault, self.nth),
        }
    }
}

/// A fault that struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Struck {
    /// What.
    pub fault: Fault,
    /// The operation.
    pub kind: OpKind,
    /// The file or folder.
    pub path: String,
    /// The operation's number among all operations of the machine.
    pub number: u64,
}
