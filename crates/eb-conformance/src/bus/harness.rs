//! What a backend author provides: a factory of fresh buses.

use std::sync::Arc;

use eb_contract::{
    BoxFuture, Capabilities, EventBusAdmin, EventBusPublisher, EventBusReader, Offset, PartitionId, Topic,
};

use crate::{Failure, Outcome, Pace};

/// Opens fresh buses of one backend in one configuration.
pub trait BusFactory: Send + Sync {
    /// What the buses will declare. It must equal what they do declare.
    fn capabilities(&self) -> Capabilities;

    /// What the factory's buses can be made to do.
    fn offers(&self) -> BusOffers {
        BusOffers::default()
    }

    /// How patient the suite is.
    fn pace(&self) -> Pace {
        Pace::LOCAL
    }

    /// How many partitions topics get, where a scenario does not need a number of its own. Run the suite with
    /// several: 1, 3 and 8 is a good choice.
    fn partitions(&self) -> u32 {
        1
    }

    /// A new bus without topics (or without any that the suite can see), healthy, and apart from all others.
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestBus>>>;
}

/// What the factory's buses can be made to do beside the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusOffers {
    /// The backend's own `create_topic` makes topics (default). Otherwise [`TestBus::create_topic`] must.
    pub create_topics: bool,
    /// [`TestBus::trim`] works.
    pub trim: bool,
    /// [`TestBus::split`] and [`TestBus::merge`] work.
    pub reshard: bool,
    /// [`TestBus::second_publisher`] works.
    pub second_publisher: bool,
}

impl Default for BusOffers {
    fn default() -> Self {
        Self { create_topics: true, trim: false, reshard: false, second_publisher: false }
    }
}

/// An open bus under test.
pub trait TestBus: Send + Sync {
    /// The publisher of this opening.
    fn publisher(&self) -> Arc<dyn EventBusPublisher>;

    /// The reader of this opening.
    fn reader(&self) -> Arc<dyn EventBusReader>;

    /// The admin of this opening.
    fn admin(&self) -> Arc<dyn EventBusAdmin>;

    /// Makes a topic and says what it is called: `name`, or where names are shared with other tests, something that
    /// nobody else uses.
    fn create_topic<'a>(&'a self, name: &'a str, partitions: u32) -> BoxFuture<'a, Outcome<Topic>> {
        Box::pin(async move {
            let topic = Topic::new(name)?;
            self.admin().create_topic(&topic, partitions).await?;
            Ok(topic)
        })
    }

    /// Closes the publisher and the reader, and opens the same data again. The suite may still hold the old handles.
    fn reopen(&mut self) -> BoxFuture<'_, Outcome>;

    /// A publisher beside the first, over the same data.
    fn second_publisher(&self) -> BoxFuture<'_, Outcome<Arc<dyn EventBusPublisher>>> {
        not_offered("a second publisher")
    }

    /// Drops records of the partition before the one at this offset, as a retention horizon would.
    fn trim<'a>(&'a self, _: &'a Topic, _: PartitionId, _before: Offset) -> BoxFuture<'a, Outcome> {
        not_offered("trimming")
    }

    /// Splits the partition in two, and waits until that is done.
    fn split<'a>(&'a self, _: &'a Topic, _: PartitionId) -> BoxFuture<'a, Outcome> {
        not_offered("splitting")
    }

    /// Merges two neighbouring partitions, and waits until that is done.
    fn merge<'a>(&'a self, _: &'a Topic, _: PartitionId, _: PartitionId) -> BoxFuture<'a, Outcome> {
        not_offered("merging")
    }

    /// Closes everything and removes what the test has left behind. Called at the end, also after a failure; what
    /// fails here fails the scenario.
    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome>;
}

fn not_offered<'a, T: Send + 'a>(what: &'static str) -> BoxFuture<'a, Outcome<T>> {
    Box::pin(async move { Err(Failure::new(format!("the factory offers {what} but does not implement it"))) })
}
