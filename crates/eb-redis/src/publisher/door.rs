//! The door of a topic: calls leave their records here, in order, and go on into the line of their partition.

use std::sync::Arc;

use eb_contract::{Error, PartitionId, Result, Topic, partition_for};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::lane::{Lane, LaneContext};
use super::pending::{Budget, Pending, not_attempted};
use super::{OP, gone};
use crate::bus::Shared;
use crate::topics::Described;
use crate::{error, topics};

/// How long to wait before the server is asked again.
pub(super) const PAUSE: std::time::Duration = std::time::Duration::from_millis(25);

pub(super) struct Door {
    shared: Arc<Shared>,
    budget: Arc<Budget>,
    topic: Topic,
    state: Mutex<State>,
    /// Set when the door is closed and nobody waits before it.
    settled: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Who waits until the partitions are known.
    waiting: Vec<Pending>,
    /// The partitions are being asked for.
    asking: bool,
    lanes: Option<Vec<Arc<Lane>>>,
}

impl Door {
    pub(super) fn new(shared: Arc<Shared>, budget: Arc<Budget>, topic: Topic) -> Self {
        Self { shared, budget, topic, state: Mutex::default(), settled: watch::Sender::new(false) }
    }

    /// Takes one call's records, all or none, behind everything that came before.
    ///
    /// # Errors
    /// `Closed`; `Throttled` where as much is held already as may be.
    pub(super) fn enter<I>(self: &Arc<Self>, records: I) -> Result<()>
    where
        I: IntoIterator<Item = Pending> + AsRef<[Pending]>,
    {
        let cost = records.as_ref().iter().map(Pending::cost).sum();
        let mut state = self.state.lock();
        if state.closed {
            return Err(error::closed(OP).at(&self.topic));
        }
        self.budget.take(&self.topic, cost)?;
        if let Some(lanes) = &state.lanes {
            route(lanes, records);
            return Ok(());
        }
        state.waiting.extend(records);
        if !state.asking {
            state.asking = true;
            self.shared.runtime.spawn(ask(self.clone()));
        }
        Ok(())
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.settle(&state);
    }

    /// Once closed with nobody before it, the lines may end.
    fn settle(&self, state: &State) {
        if !state.closed || state.asking {
            return;
        }
        state.lanes.iter().flatten().for_each(|lane| lane.close());
        self.settled.send_replace(true);
    }

    /// Comes once the door is closed and everybody is answered.
    ///
    /// # Errors
    /// The first failure of a line after the closing.
    pub(super) async fn ended(&self) -> Result<()> {
        self.settled.subscribe().wait_for(|settled| *settled).await.map_err(|_| gone())?;
        let lanes = self.state.lock().lanes.clone().unwrap_or_default();
        let mut outcome = Ok(());
        for lane in lanes {
            outcome = outcome.and(lane.ended().await);
        }
        outcome
    }

    /// Opens the lines and lets in who waits; or turns everybody away.
    fn asked(&self, described: Result<Described>) {
        let mut state = self.state.lock();
        state.asking = false;
        let waiting = std::mem::take(&mut state.waiting);
        match described {
            Ok(described) => {
                let open = |n| {
                    Lane::open(LaneContext {
                        shared: self.shared.clone(),
                        budget: self.budget.clone(),
                        topic: self.topic.clone(),
                        partition: PartitionId(n),
                        incarnation: described.incarnation.clone(),
                    })
                };
                let lanes: Vec<_> = (0..described.partitions).map(open).collect();
                route(&lanes, waiting);
                state.lanes = Some(lanes);
            }
            Err(error) => turn_away(&self.budget, waiting, &error),
        }
        self.settle(&state);
    }
}

fn route(lanes: &[Arc<Lane>], records: impl IntoIterator<Item = Pending>) {
    let count = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
    for record in records {
        let partition = partition_for(record.key(), count);
        lanes[partition.0 as usize].enter(record);
    }
}

/// Answers records that were not sent, and will not be.
pub(super) fn turn_away(budget: &Budget, records: impl IntoIterator<Item = Pending>, error: &Error) {
    for record in records {
        budget.give_back(record.cost());
        let barred = record.is_barred();
        let place = error.place().unwrap_or_default();
        record.answer(Err(if barred { not_attempted(place) } else { error.clone() }));
    }
}

/// Asks for the topic's partitions until there is an answer, or patience ends.
async fn ask(door: Arc<Door>) {
    let deadline = Instant::now() + door.shared.config.publish.give_up_after;
    let described = loop {
        match describe(&door).await {
            Err(e) if e.is_retryable() && Instant::now() < deadline => sleep(PAUSE).await,
            described => break described,
        }
    };
    door.asked(described);
}

async fn describe(door: &Door) -> Result<Described> {
    let session = door.shared.writes.session(OP).await?;
    topics::describe(OP, &session, &door.shared.keys, &door.topic).await
}
