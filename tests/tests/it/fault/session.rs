//! A process that uses the bus on a failing disk, and what it is told.

use std::sync::Arc;

use eb_contract::{
    EbRef, Effect, ErrorKind, EventBusPublisher, EventBusReader, PublishRecord, Result, Retry,
};
use eb_file::{FileBus, FileBusConfig, FilePublisher, InlineCommit};
use eb_system_tests::facts::{At, Said};
use eb_system_tests::ledger::Ledger;
use eb_system_tests::{block_on, read_all, record, topic};
use eb_testkit::Rng;
use eb_testkit::fault_disk::FaultDisk;

use super::workload::Step;

pub(super) const ROOT: &str = "/data/bus";
/// The same folder by another path: what the bus keeps in memory per path is then as little shared as between real processes.
pub(super) const ROOT_ELSEWHERE: &str = "data/bus";
pub(super) const PARTITIONS: u32 = 2;

/// How often a living process asks again after an error before the test calls it one that does not pass.
const PATIENCE: usize = 6;

/// How the bus is configured.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    /// Bytes of blank lines ahead of the records.
    pub(super) preallocate: u64,
    /// The most bytes reserved beyond the records.
    pub(super) reserve: u64,
    /// Publishers may commit on their own threads.
    pub(super) inline: bool,
}

impl Manner {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self {
            preallocate: *rng.pick(&[0, 0, 700, 20_000]),
            reserve: *rng.pick(&[0, 3_000, 1 << 20]),
            inline: rng.chance(30),
        }
    }
}

pub(super) struct Session {
    pub(super) disk: FaultDisk,
    manner: Manner,
    root: &'static str,
    bus: Option<FileBus>,
    publisher: Option<FilePublisher>,
}

/// What a session learns is entered here; it outlives the sessions.
#[derive(Default)]
pub(super) struct Account {
    pub(super) ledger: Ledger,
    calls: u64,
    pub(super) refused: u32,
}

impl Account {
    pub(super) fn next_record(&mut self, key: u8, padding: usize) -> PublishRecord {
        self.calls += 1;
        record(&format!("key-{key}"), self.calls, padding)
    }

    fn enter(
        &mut self,
        alive: bool,
        record: &PublishRecord,
        answer: &Result<EbRef>,
    ) -> std::result::Result<(), String> {
        let said = Said::from(record);
        match answer {
            Ok(eb_ref) => self.ledger.ack(At::of(eb_ref), said),
            // A dead process tells nobody that its call had no effect.
            Err(_) if !alive => {}
            Err(e) if e.effect() == Effect::None => {
                self.refused += 1;
                self.ledger.leave_out(&said.envelope);
            }
            Err(_) => {}
        }
        match answer {
            Err(e) => suspicious(e),
            Ok(_) => Ok(()),
        }
    }
}

/// Crashes and failing operations never look like damage at rest, nor like missing facts.
pub(super) fn suspicious(error: &eb_contract::Error) -> std::result::Result<(), String> {
    match error.kind() {
        ErrorKind::Corrupt { .. }
        | ErrorKind::FactsMissing
        | ErrorKind::WrongVersion
        | ErrorKind::WrongIncarnation
        | ErrorKind::ProtocolViolation
        | ErrorKind::Locked { .. } => Err(format!("no damage was done, and yet: {error}")),
        _ => Ok(()),
    }
}

impl Session {
    pub(super) fn new(disk: FaultDisk, manner: Manner) -> Self {
        Self { disk, manner, root: ROOT, bus: None, publisher: None }
    }

    /// In a process that runs beside others.
    pub(super) fn beside(disk: FaultDisk, manner: Manner) -> Self {
        Self { root: ROOT_ELSEWHERE, ..Self::new(disk, manner) }
    }

    pub(super) fn config(&self) -> FileBusConfig {
        let manner = self.manner;
        let mut config = FileBusConfig::new(self.root);
        config.group_wait = std::time::Duration::ZERO;
        // Whoever is waited for may be the very thread that reads.
        config.settle_patience = std::time::Duration::ZERO;
        config.preallocate_bytes = manner.preallocate;
        config.reserve_bytes = manner.reserve;
        if manner.inline {
            config.inline_commit = Some(InlineCommit::new(|work| work()));
        }
        config
    }

    /// The bus, opened and with its topic, or why not. A topic that is there is not made again: what an earlier process left
    /// undone must not matter.
    pub(super) fn bus(&mut self) -> Result<FileBus> {
        if let Some(bus) = &self.bus {
            return Ok(bus.clone());
        }
        let bus = FileBus::open_on(self.config(), Arc::new(self.disk.clone()))?;
        match block_on(bus.reader().partitions(&topic())) {
            Err(e) if *e.kind() == ErrorKind::NotFound => bus.create_topic(&topic(), PARTITIONS)?,
            known => drop(known?),
        }
        self.bus = Some(bus.clone());
        Ok(bus)
    }

    pub(super) fn publisher(&mut self) -> Result<FilePublisher> {
        if let Some(publisher) = &self.publisher {
            return Ok(publisher.clone());
        }
        let publisher = self.bus()?.publisher();
        self.publisher = Some(publisher.clone());
        Ok(publisher)
    }

    /// Closes the publisher in order. Errors are told to a caller who cannot do more about them than to go on.
    pub(super) fn close(&mut self) -> std::result::Result<(), String> {
        match self.publisher.take().map(|publisher| block_on(publisher.close())) {
            Some(Err(e)) => suspicious(&e),
            _ => Ok(()),
        }
    }

    /// Does something until it succeeds, or the process dies (`None`).
    pub(super) fn insist<T>(
        &mut self,
        mut act: impl FnMut(&mut Self) -> Result<T>,
    ) -> std::result::Result<Option<T>, String> {
        let mut last = None;
        for _ in 0..PATIENCE {
            match act(self) {
                Ok(done) => return Ok(Some(done)),
                Err(_) if !self.disk.is_alive() => return Ok(None),
                Err(e) => {
                    suspicious(&e)?;
                    if e.retry() == Retry::AfterReopen {
                        self.close()?;
                    }
                    last = Some(e);
                }
            }
        }
        let last = last.map_or_else(String::new, |e| e.to_string());
        Err(format!("a living process cannot go on although the disk works again: {last}"))
    }

    pub(super) fn step(&mut self, step: &Step, account: &mut Account) -> std::result::Result<(), String> {
        match step {
            Step::Publish(key, padding) => self.publish(&[(*key, *padding)], account, Together::OneByOne),
            Step::Together(records) => self.publish(records, account, Together::AtOnce),
            Step::Batch(records) => self.publish(records, account, Together::OneBatch),
            Step::Read => {
                let Some(bus) = self.insist(Self::bus)? else { return Ok(()) };
                self.read(&bus, account)
            }
            Step::ReadOutside => {
                let outside = Self::beside(self.disk.new_process(), self.manner);
                let mut config = outside.config();
                config.create = false;
                match FileBus::open_on(config, Arc::new(outside.disk.clone())) {
                    Ok(bus) => outside.read(&bus, account),
                    Err(e) => suspicious(&e),
                }
            }
            Step::Close => self.close(),
            Step::Reopen => {
                self.close()?;
                self.bus = None;
                Ok(())
            }
        }
    }

    /// Reads everything; what comes is entered, an error is not insisted upon.
    pub(super) fn read(&self, bus: &FileBus, account: &mut Account) -> std::result::Result<(), String> {
        let reader = bus.reader();
        match block_on(read_all(&reader, &topic())) {
            Ok(all) => {
                for found in all.into_iter().flat_map(|(_, records)| records) {
                    account.ledger.see(found.at, found.said);
                }
                Ok(())
            }
            Err(_) if !self.disk.is_alive() => Ok(()),
            Err(e) => suspicious(&e),
        }
    }

    fn publish(
        &mut self,
        records: &[(u8, usize)],
        account: &mut Account,
        how: Together,
    ) -> std::result::Result<(), String> {
        let Some(publisher) = self.insist(Self::publisher)? else { return Ok(()) };
        let records: Vec<_> =
            records.iter().map(|(key, padding)| account.next_record(*key, *padding)).collect();
        let answers = match how {
            Together::OneBatch => block_on(publisher.publish_batch(&topic(), records.clone())),
            Together::OneByOne | Together::AtOnce => {
                let calls: Vec<_> = records.iter().map(|r| publisher.publish(&topic(), r.clone())).collect();
                block_on(async {
                    let mut answers = Vec::new();
                    for call in calls {
                        answers.push(call.await);
                    }
                    answers
                })
            }
        };
        assert_eq!(answers.len(), records.len());
        let alive = self.disk.is_alive();
        for (record, answer) in records.iter().zip(&answers) {
            account.enter(alive, record, answer)?;
        }
        // Whoever reads in this process before the log is opened again is shown nothing that may yet be lost.
        if answers.iter().any(Result::is_err)
            && let Some(bus) = self.bus.clone()
        {
            self.read(&bus, account)?;
        }
        let reopen = |answer: &Result<EbRef>| answer.as_ref().is_err_and(|e| e.retry() == Retry::AfterReopen);
        if answers.iter().any(reopen) {
            self.close()?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Together {
    OneByOne,
    AtOnce,
    OneBatch,
}
