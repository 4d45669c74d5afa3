//! One publisher of a bus for this process, opened when it is needed and closed when nobody needs it: a bus that takes one writer
//! process must be free for another's as soon as this one's part is over.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{EventBusPublisher, Result};
use tokio::sync::Mutex;

use crate::bus::PublisherFactory;
use crate::error::within;

/// How long a publisher may take to finish what it was told.
const CLOSING: Duration = Duration::from_secs(30);

pub(crate) struct Slot {
    open: PublisherFactory,
    state: Mutex<InUse>,
}

#[derive(Default)]
struct InUse {
    publisher: Option<Arc<dyn EventBusPublisher>>,
    users: usize,
}

impl Slot {
    pub(crate) fn new(open: PublisherFactory) -> Self {
        Self { open, state: Mutex::default() }
    }

    /// Every call must be followed by one of [`Slot::release`].
    pub(crate) async fn acquire(&self) -> Result<Arc<dyn EventBusPublisher>> {
        let mut state = self.state.lock().await;
        let publisher = match &state.publisher {
            Some(publisher) => publisher.clone(),
            None => {
                let publisher = (self.open)().await?;
                state.publisher = Some(publisher.clone());
                publisher
            }
        };
        state.users += 1;
        Ok(publisher)
    }

    /// Closes the publisher if this was its last user. What was called before is finished by it.
    pub(crate) async fn release(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        state.users = state.users.saturating_sub(1);
        if state.users > 0 {
            return Ok(());
        }
        match state.publisher.take() {
            Some(publisher) => within("close publisher", CLOSING, publisher.close()).await,
            None => Ok(()),
        }
    }
}
