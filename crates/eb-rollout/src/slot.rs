//! The publishers of a bus for this process, opened when they are needed and closed when nobody needs them: a bus that takes one writer
//! process must be free for another's as soon as this one's part is over.
//!
//! Callers and the mirror's worker have publishers of their own. Where a bus takes one writer only, the one waits until the other's is
//! closed: else a process that has mirrored to a bus would keep it for itself when it is primary again, and never publish a record.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{Error, ErrorKind, EventBusPublisher, Result};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::bus::PublisherFactory;
use crate::error::within;

/// How long a publisher may take to finish what it was told.
const CLOSING: Duration = Duration::from_secs(30);

/// Who publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    Callers,
    Mirror,
}

pub(crate) struct Slot {
    open: PublisherFactory,
    /// Whose turn it is; `None` where both may.
    turn: Option<Arc<Semaphore>>,
    of: [Mutex<InUse>; 2],
}

#[derive(Default)]
struct InUse {
    publisher: Option<Arc<dyn EventBusPublisher>>,
    users: usize,
    turn: Option<OwnedSemaphorePermit>,
}

impl Slot {
    pub(crate) fn new(open: PublisherFactory, multi_writer: bool) -> Self {
        let turn = (!multi_writer).then(|| Arc::new(Semaphore::new(1)));
        Self { open, turn, of: Default::default() }
    }

    fn of(&self, by: Use) -> &Mutex<InUse> {
        &self.of[match by {
            Use::Callers => 0,
            Use::Mirror => 1,
        }]
    }

    /// Every call must be followed by one of [`Slot::release`]. Dropping the future leaves nothing acquired.
    pub(crate) async fn acquire(&self, by: Use) -> Result<Arc<dyn EventBusPublisher>> {
        let mut state = self.of(by).lock().await;
        let publisher = match &state.publisher {
            Some(publisher) => publisher.clone(),
            None => {
                let turn = match &self.turn {
                    Some(turn) => Some(turn.clone().acquire_owned().await.map_err(|_| {
                        Error::new(ErrorKind::Closed, "open publisher", "the rollout is closed")
                    })?),
                    None => None,
                };
                let publisher = (self.open)().await?;
                (state.publisher, state.turn) = (Some(publisher.clone()), turn);
                publisher
            }
        };
        state.users += 1;
        Ok(publisher)
    }

    /// Closes the publisher if this was its last user. What was called before is finished by it.
    pub(crate) async fn release(&self, by: Use) -> Result<()> {
        let mut state = self.of(by).lock().await;
        state.users = state.users.saturating_sub(1);
        if state.users > 0 {
            return Ok(());
        }
        let closed = match state.publisher.take() {
            Some(publisher) => within("close publisher", CLOSING, publisher.close()).await,
            None => Ok(()),
        };
        state.turn = None;
        closed
    }
}
