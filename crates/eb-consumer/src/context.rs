//! What the parts of a running consumer share.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{CheckpointStore, DeadLetterStore, LeaseStore, ProcessedStore, RegisterStore};
use eb_contract::{ConsumerName, StartAt};
use tokio::sync::Semaphore;

use crate::config::{CommitPolicy, LeasePolicy, Limits};
use crate::metrics::ConsumerMetrics;
use crate::retry::RetryPolicy;
use crate::room::Room;
use crate::source::Source;
use crate::status::Board;

/// The durable state of a consumer.
#[derive(Clone)]
pub struct Stores {
    /// How far each partition is processed.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// What is processed past that.
    pub processed: Arc<dyn ProcessedStore>,
    /// What could not be.
    pub dead_letters: Arc<dyn DeadLetterStore>,
    /// Who reads which partition.
    pub leases: Arc<dyn LeaseStore>,
    /// How holders of partitions ended that did not give them back, one small register for each partition: see
    /// [`RetryPolicy::max_crashes`](crate::RetryPolicy::max_crashes).
    pub registers: Arc<dyn RegisterStore>,
}

pub(crate) struct Context {
    pub(crate) consumer: ConsumerName,
    /// What this worker is called.
    pub(crate) owner: String,
    pub(crate) source: Box<dyn Source>,
    pub(crate) stores: Stores,
    pub(crate) start: StartAt,
    pub(crate) limits: Limits,
    pub(crate) commit: CommitPolicy,
    pub(crate) leases: LeasePolicy,
    pub(crate) retry: RetryPolicy,
    pub(crate) in_order: bool,
    pub(crate) by_event: bool,
    /// The log forgets: being at the head is worth saying.
    pub(crate) forgets: bool,
    /// Without an order: after what time records of others are taken over.
    pub(crate) claim_idle: Duration,
    pub(crate) room: Arc<Room>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) board: Board,
    pub(crate) metrics: ConsumerMetrics,
}

/// The delays between attempts at something that failed: doubling, from a first one up to a longest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Patience {
    pub(crate) fn new(policy: &CommitPolicy) -> Self {
        Self { next: policy.retry, first: policy.retry, most: policy.retry_max }
    }

    pub(crate) fn delay(&mut self) -> Duration {
        let delay = self.next.min(self.most);
        self.next = (self.next * 2).min(self.most);
        delay
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}
