//! An open file of one process.

use std::fmt;
use std::io;
use std::path::PathBuf;

use eb_disk::{DiskFile, FileIdentity};

use super::folder::NodeId;
use super::image::Survival;
use super::machine::Armed;
use super::plan::{Fault, OpKind, Plan};
use super::{FaultDisk, eio, enospc};

pub(super) struct File {
    pub(super) disk: FaultDisk,
    pub(super) node: NodeId,
    pub(super) path: PathBuf,
    pub(super) writable: bool,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

impl File {
    fn sync(&self, kind: OpKind) -> io::Result<()> {
        let (mut machine, fault) = self.disk.begin(kind, &self.path, format_args!(""))?;
        let mut survival = Survival::Chance(machine.rng.fork());
        let file = machine.file(self.node)?;
        match fault {
            Some(Fault::Eio) => {
                file.fail_sync(&mut survival);
                Err(eio())
            }
            Some(Fault::Enospc) => {
                file.fail_sync(&mut survival);
                Err(enospc())
            }
            // What a power cut in the middle leaves is what any power cut leaves of unsynced bytes. A killed process's
            // sync may or may not finish; leaving all to the next one is the harsher case.
            Some(Fault::PowerCut | Fault::Kill) => self.disk.end(&mut machine, fault),
            _ => {
                file.sync();
                Ok(())
            }
        }
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        self.disk.atomic(OpKind::Len, &self.path, |machine| Ok(machine.file(self.node)?.cache().len() as u64))
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let detail = format_args!(" {} at {position}", buf.len());
        let (mut machine, fault) = self.disk.begin(OpKind::Read, &self.path, detail)?;
        self.disk.end(&mut machine, fault)?;
        let shorter = machine.rng.next_u64() as usize;
        let cache = machine.file(self.node)?.cache();
        let start = usize::try_from(position).map_or(cache.len(), |at| at.min(cache.len()));
        let mut len = buf.len().min(cache.len() - start);
        if fault == Some(Fault::Short) && len > 1 {
            len = 1 + shorter % (len - 1);
        }
        buf[..len].copy_from_slice(&cache[start..start + len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<usize> {
        let detail = format_args!(" {} at {position}", buf.len());
        let (mut machine, fault) = self.disk.begin(OpKind::Write, &self.path, detail)?;
        if !self.writable {
            return Err(io::Error::from_raw_os_error(9)); // EBADF
        }
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let prefix = machine.rng.index(buf.len() + 1);
        let short = if buf.len() > 1 { 1 + prefix % (buf.len() - 1) } else { buf.len() };
        let room = machine.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(machine.used()));
        let file = machine.file(self.node)?;
        // A full disk still takes what overwrites.
        let over = (file.growth(buf.len(), position) as u64).saturating_sub(room) as usize;
        let fits = buf.len().saturating_sub(over);
        match fault {
            Some(Fault::Eio | Fault::Enospc | Fault::PowerCut | Fault::Kill) => {
                file.write(&buf[..prefix.min(fits)], position);
                self.disk.end(&mut machine, fault)?;
                Err(if fault == Some(Fault::Eio) { eio() } else { enospc() })
            }
            Some(Fault::Short | Fault::ShortThenFull) => {
                file.write(&buf[..short.min(fits)], position);
                if fault == Some(Fault::ShortThenFull) {
                    let plan = Plan::of(OpKind::Write, 0, Fault::Enospc);
                    let due = machine.count(plan.kind);
                    machine.armed.push(Armed { plan, due });
                }
                Ok(short.min(fits))
            }
            _ if fits == 0 && !buf.is_empty() => Err(enospc()),
            _ => {
                file.write(&buf[..fits], position);
                Ok(fits)
            }
        }
    }

    /// By chance, as a page cache answers: sometimes there, sometimes not. What has to wait for the device is what can fail.
    fn read_ready(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        let mut machine = self.disk.machine.lock();
        let there =
            machine.powered && machine.processes.contains(&self.disk.process) && machine.rng.chance(50);
        if !there {
            return Ok(None);
        }
        let cache = machine.file(self.node)?.cache();
        let start = usize::try_from(position).map_or(cache.len(), |at| at.min(cache.len()));
        let len = buf.len().min(cache.len() - start);
        buf[..len].copy_from_slice(&cache[start..start + len]);
        Ok(Some(len))
    }

    fn identity(&self) -> io::Result<Option<FileIdentity>> {
        Ok(Some(FileIdentity { device: 1, file: self.node }))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.atomic(OpKind::SetLen, &self.path, |machine| {
            if !self.writable {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            machine.file(self.node)?.set_len(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?);
            Ok(())
        })
    }

    /// Holds no room back from others: whoever relies on a reservation finds the disk full all the same.
    fn reserve(&self, _position: u64, bytes: u64) -> io::Result<()> {
        self.disk.atomic(OpKind::Reserve, &self.path, |machine| {
            if !self.writable {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let room = machine.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(machine.used()));
            if bytes > room { Err(enospc()) } else { Ok(()) }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(OpKind::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(OpKind::SyncAll)
    }
}
