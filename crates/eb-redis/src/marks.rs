//! What this opening of the bus knows of each partition: what was ACKed last, and whether it can be trusted.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use eb_contract::{Error, ErrorKind, Offset, PartitionId, Result, Topic};
use parking_lot::Mutex;

use crate::error;

/// The marks of all partitions, shared by all handles of an opening.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<HashMap<(Topic, PartitionId), Arc<Mark>>>);

impl Marks {
    pub(crate) fn of(&self, topic: &Topic, partition: PartitionId) -> Arc<Mark> {
        self.0.lock().entry((topic.clone(), partition)).or_default().clone()
    }

    /// An error where any partition of a topic is poisoned.
    pub(crate) fn check_topic(&self, op: &'static str, topic: &Topic) -> Result<()> {
        let marks = self.0.lock();
        let mut of_topic = marks.iter().filter(|((t, _), _)| t == topic);
        of_topic.try_for_each(|((t, p), mark)| mark.check(op, &error::place(t, *p)))
    }
}

/// What is known of one partition.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    last: Mutex<Option<Offset>>,
    poison: OnceLock<String>,
}

impl Mark {
    /// The highest offset that was ACKed by any publisher of this opening.
    pub(crate) fn last(&self) -> Option<Offset> {
        *self.last.lock()
    }

    pub(crate) fn acked(&self, offset: Offset) {
        let mut last = self.last.lock();
        if last.is_none_or(|l| l < offset) {
            *last = Some(offset);
        }
    }

    /// Nothing is taken from or given to this partition any more, for this reason. The first reason stays.
    pub(crate) fn poison(&self, place: &str, why: &str) {
        if self.poison.set(why.to_owned()).is_ok() {
            tracing::error!(
                partition = place,
                "{why}; the partition is poisoned until the bus is opened anew"
            );
        }
    }

    pub(crate) fn check(&self, op: &'static str, place: &str) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(why) => Err(Error::new(ErrorKind::Poisoned, op, why.clone())
                .at(place)
                .advise("find out what happened to the server's data, then open the bus anew")),
        }
    }
}
