//! Making topics.

use std::sync::Arc;

use eb_contract::{BoxFuture, Error, ErrorKind, EventBusAdmin, Result, Topic};
use futures_util::FutureExt;
use futures_util::future::ready;

use crate::error;
use crate::state::Shared;

/// Makes topics of a [`MemoryBus`](crate::MemoryBus), in the call.
pub struct MemoryAdmin {
    shared: Arc<Shared>,
}

impl MemoryAdmin {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn create(&self, topic: &Topic, partitions: u32) -> Result<()> {
        let limit = self.shared.config.max_partitions;
        if partitions == 0 || partitions > limit {
            return Err(error::invalid(
                "create_topic",
                topic,
                format!("{partitions} partitions asked for, it must be 1 to {limit}"),
            ));
        }
        let mut state = self.shared.lock();
        match state.topic("create_topic", topic) {
            Ok(log) if log.created_with == partitions => Ok(()),
            Ok(log) => Err(Error::new(
                ErrorKind::AlreadyExists,
                "create_topic",
                format!("it exists with {} partitions, not {partitions}", log.created_with),
            )
            .at(topic)),
            Err(_) => {
                state.create_topic(topic, partitions, &self.shared.config);
                Ok(())
            }
        }
    }
}

impl EventBusAdmin for MemoryAdmin {
    fn create_topic<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<()>> {
        ready(self.create(topic, partitions)).boxed()
    }
}
