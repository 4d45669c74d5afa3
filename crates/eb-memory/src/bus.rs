//! The bus as a whole.

use std::sync::Arc;

use eb_contract::Capabilities;

use crate::state::Shared;
use crate::{Faults, MemoryAdmin, MemoryConfig, MemoryPublisher, MemoryReader};

/// An opening of a bus that lives in this process. The data lasts as long as any opening or handle of it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use eb_contract::{EnvelopeRef, EventBusAdmin, EventBusPublisher, EventBusReaderExt, PartitionId, PartitionKey,
///     PublishRecord, StartAt, Topic};
/// use eb_memory::MemoryBus;
///
/// let bus = MemoryBus::new();
/// let topic = Topic::new("orders")?;
/// bus.admin().create_topic(&topic, 1).await?;
/// let record = PublishRecord::new(PartitionKey::new("m-1")?, EnvelopeRef::new(r#"{"event_id":"e1"}"#)?);
/// let eb_ref = bus.publisher().publish(&topic, record).await?;
/// assert_eq!(eb_ref.offset.to_string(), "0");
/// let batch = bus.reopen().reader().read(&topic, PartitionId(0), StartAt::Earliest, 10).await?;
/// assert_eq!(batch.records[0].eb_ref, eb_ref);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct MemoryBus {
    shared: Arc<Shared>,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBus {
    /// A new, empty bus with the default config.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(MemoryConfig::default())
    }

    /// A new, empty bus.
    #[must_use]
    pub fn with_config(config: MemoryConfig) -> Self {
        Self { shared: Arc::new(Shared::new(config)) }
    }

    /// Another opening of the same data, as after a restart. Handles made from this one stay as they are.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self { shared: self.shared.clone() }
    }

    /// A new publishing handle.
    #[must_use]
    pub fn publisher(&self) -> MemoryPublisher {
        MemoryPublisher::new(self.shared.clone())
    }

    /// A new reading handle.
    #[must_use]
    pub fn reader(&self) -> MemoryReader {
        MemoryReader::new(self.shared.clone())
    }

    /// A handle that makes topics.
    #[must_use]
    pub fn admin(&self) -> MemoryAdmin {
        MemoryAdmin::new(self.shared.clone())
    }

    /// What the bus promises.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    /// Faults on demand: for tests and drills.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults::new(self.shared.clone())
    }
}
