//! The bus as a whole.

use std::sync::Arc;

use aws_sdk_kinesis::Client;
use eb_contract::{Capabilities, KeyOrder, OffsetKind, Result};

use crate::KinesisAdmin;
use crate::client;
use crate::config::{KinesisConfig, Ordering};

/// What all handles of one opening share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) config: KinesisConfig,
    pub(crate) capabilities: Capabilities,
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
        Ok(Self { shared: Arc::new(Shared { client, config, capabilities }) })
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
