//! Making streams, for development. In production streams are provisioned with the account.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::types::StreamStatus;
use eb_contract::{BoxFuture, Error, ErrorKind, EventBusAdmin, Result, Topic};
use tokio::time::sleep;

use crate::bus::Shared;
use crate::{error, shards};

/// Makes streams with a provisioned number of shards.
///
/// The service makes a stream in the background: the call waits until it is active. Dropping the future, or a crash,
/// leaves a stream that becomes active all the same; the same call then finds it.
pub struct KinesisAdmin {
    shared: Arc<Shared>,
}

const OP: &str = "create topic";
/// Engines are ready at once, the service in some ten seconds; an account may ask twenty times a second.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOKS: Duration = Duration::from_secs(1);

impl KinesisAdmin {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn create(&self, topic: &Topic, partitions: u32) -> Result<()> {
        let count = i32::try_from(partitions).ok().filter(|n| *n > 0).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, OP, format!("{partitions} partitions are not possible"))
                .at(topic)
        })?;
        let stream = self.shared.config.streams.stream_of(topic);
        let request = self.shared.client.create_stream().stream_name(&stream).shard_count(count);
        match request.send().await {
            Ok(_) => {}
            Err(e) => match error::writing(OP, topic, &e) {
                // It may be there from a call before, or from this one if its answer was lost.
                e if matches!(e.kind(), ErrorKind::AlreadyExists) => {}
                e => return Err(e),
            },
        }
        let mut pause = FIRST_LOOK;
        loop {
            let summary = shards::summary(&self.shared.client, OP, topic, &stream).await?;
            match summary.status {
                StreamStatus::Active if summary.open_shards == partitions => return Ok(()),
                StreamStatus::Active => {
                    let message = format!("it exists with {} shards, not {partitions}", summary.open_shards);
                    return Err(Error::new(ErrorKind::AlreadyExists, OP, message).at(topic));
                }
                StreamStatus::Deleting => {
                    let message = "a stream of this name is being deleted";
                    return Err(Error::new(ErrorKind::Unavailable, OP, message).at(topic));
                }
                // There is no other way to learn that the stream is ready than to ask again.
                _ => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LAST_LOOKS);
                }
            }
        }
    }
}

impl EventBusAdmin for KinesisAdmin {
    fn create_topic<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.create(topic, partitions))
    }
}
