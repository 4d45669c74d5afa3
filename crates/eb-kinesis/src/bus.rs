//! The bus as a whole.

use std::sync::Arc;

use aws_sdk_kinesis::Client;
use eb_contract::{Capabilities, KeyOrder, OffsetKind, Result};
use tokio::runtime::Handle;

use crate::client;
use crate::config::{KinesisConfig, Ordering};
use crate::reader::Reads;
use crate::{KinesisAdmin, KinesisPublisher, KinesisReader};

/// What all handles of one opening share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) config: KinesisConfig,
    pub(crate) capabilities: Capabilities,
    /// Where background work runs, whichever thread a handle is called from.
    pub(crate) runtime: Handle,
    /// What all readers share, and publishers tell them.
    pub(crate) reads: Reads,
}

/// A bus on Kinesis: one client, and the handles made from it.
pub struct KinesisBus {
    shared: Arc<Shared>,
}

impl KinesisBus {
    /// Opens the bus. Credentials are looked for, but the service is not asked anything yet: publish, read or
    /// [`probe`](eb_contract::EventBusPublisher::probe) do. Must be called on a tokio runtime with its clock enabled.
    ///
    /// Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](eb_contract::ErrorKind::InvalidInput) naming the field of the config that cannot be,
    /// or a region that is set nowhere.
    pub async fn open(config: KinesisConfig) -> Result<Self> {
        config.check()?;
        let client = client::connect(&config).await?;
        let capabilities = capabilities(&config);
        let runtime = Handle::current();
        Ok(Self {
            shared: Arc::new(Shared { client, config, capabilities, runtime, reads: Reads::default() }),
        })
    }

    /// A handle that publishes. Its calls may come from any thread; its work runs on the runtime on which the bus was
    /// opened.
    #[must_use]
    pub fn publisher(&self) -> KinesisPublisher {
        KinesisPublisher::new(self.shared.clone())
    }

    /// A reader. Readers of one bus share the pace of each shard.
    #[must_use]
    pub fn reader(&self) -> KinesisReader {
        KinesisReader::new(self.shared.clone())
    }

    /// A handle that makes streams.
    #[must_use]
    pub fn admin(&self) -> KinesisAdmin {
        KinesisAdmin::new(self.shared.clone())
    }

    /// What the bus promises.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }
}

/// What a bus of this config promises; [`KinesisBus::capabilities`] before it is opened.
#[must_use]
pub fn capabilities(config: &KinesisConfig) -> Capabilities {
    let mut c = Capabilities::new("kinesis", OffsetKind::KinesisSequence);
    c.max_envelope_bytes = config.publish.max_envelope_bytes();
    // Characters by the documentation; engines are known to count UTF-16 units.
    c.max_key_utf16 = Some(eb_contract::PartitionKey::MAX_CHARS);
    c.multi_writer = true;
    c.retention = true;
    c.resharding = true;
    c.unknown_outcomes = true;
    c.notes.push("an ACK is the service's own: the record is kept in three availability zones".to_owned());
    c.notes.push("records expire with the stream's retention, 24 hours unless it is set longer".to_owned());
    if config.publish.ordering == Ordering::Batched {
        c.key_order = KeyOrder::BestEffort;
        c.notes.push(
            "ordering is `batched`: the service promises no order among a key's records in flight together"
                .to_owned(),
        );
    }
    c
}
