//! The door of a topic: calls leave their records here, in order, and the topic's task takes them in.

use eb_contract::{Error, ErrorKind, PublishRecord, Result, Topic, key_hash};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::OP;
use super::reply::Reply;
use crate::error;

/// What a record costs in memory while it is held, besides its bytes.
const OVERHEAD: usize = 256;

/// A record that has been called for and not been answered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) record: PublishRecord,
    /// The key's MD5, which is what a key is to the service.
    pub(super) key: u128,
    pub(super) called: Instant,
    /// Its rank among the topic's records.
    pub(super) number: u64,
    pub(super) attempts: Attempts,
    pub(super) reply: Reply,
}

/// What was tried with a record so far.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) first: Option<Instant>,
    /// An attempt failed inside the service and may have stored it.
    pub(super) maybe_stored: bool,
    /// How the last one ended.
    pub(super) last: Option<Error>,
}

impl Pending {
    pub(super) fn new(record: PublishRecord, reply: Reply, called: Instant) -> Self {
        let key = key_hash(&record.partition_key);
        Self { record, key, called, number: 0, attempts: Attempts::default(), reply }
    }

    /// What it counts in a call.
    pub(super) fn bytes(&self) -> usize {
        self.record.partition_key.as_str().len() + self.record.envelope.len()
    }

    /// What it counts in memory.
    pub(super) fn cost(&self) -> usize {
        self.bytes() + OVERHEAD
    }
}

/// The records of one topic that have not been taken in yet, and how much is held in all.
#[derive(Debug)]
pub(super) struct Intake {
    topic: Topic,
    limit: usize,
    door: Mutex<Door>,
    arrived: Notify,
}

/// What is at the door; nobody comes in while it is held.
#[derive(Debug, Default)]
pub(super) struct Door {
    entering: Vec<Pending>,
    /// The cost of all records that are not answered.
    held: usize,
    closed: bool,
    last: u64,
}

impl Door {
    /// Takes everything that has arrived, in order.
    pub(super) fn take(&mut self, into: &mut Vec<Pending>) {
        into.append(&mut self.entering);
    }

    /// Records of this cost were answered.
    pub(super) fn release(&mut self, cost: usize) {
        self.held = self.held.saturating_sub(cost);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

impl Intake {
    pub(super) fn new(topic: Topic, limit: usize) -> Self {
        Self { topic, limit, door: Mutex::default(), arrived: Notify::new() }
    }

    /// Takes one call's records, all or none. They stand behind everything that came before.
    ///
    /// # Errors
    /// `Closed`, or `Throttled` where as much is held already as may be. One call is taken however large it is while
    /// less than the limit is held, so that no call is too large for ever.
    pub(super) fn enter(&self, make: impl FnOnce(&mut Vec<Pending>)) -> Result<()> {
        {
            let mut door = self.door.lock();
            if door.closed {
                return Err(error::closed(OP).at(&self.topic));
            }
            if door.held >= self.limit {
                let message = format!("{} bytes of records wait to be written already", door.held);
                return Err(Error::new(ErrorKind::Throttled { after: None }, OP, message)
                    .at(&self.topic)
                    .advise("publish again when some of them are answered"));
            }
            let known = door.entering.len();
            let Door { entering, held, last, .. } = &mut *door;
            make(entering);
            for pending in &mut entering[known..] {
                *last += 1;
                pending.number = *last;
                *held += pending.cost();
            }
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Refuses further calls; what is here is still finished.
    pub(super) fn close(&self) {
        self.door.lock().closed = true;
        self.arrived.notify_one();
    }

    pub(super) fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock()
    }

    /// Something has arrived, or the door was closed. Dropping the future loses nothing.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
