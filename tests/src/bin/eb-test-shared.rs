//! Processes that share a bus on Kinesis and a Postgres, and are killed: `eb-test-shared gate|consume name=value…`; see
//! [`Setup`](eb_system_tests::shared::Setup) for the names.
//!
//! - `gate` sends the suite's events through a gate of its own, each until there is an answer for it, and says every
//!   receipt.
//! - `consume` reads the file bus in its folder from where its checkpoint stands, puts each record into the table
//!   `consumed` and the checkpoint past it in the same transaction, and says what was committed. `window` is how many
//!   records a transaction takes at most, `seed` the epoch of its lease. After `hold_after` transactions it says `holding`, and
//!   waits for its standard input. It ends at the head.

use std::process::ExitCode;

#[cfg(unix)]
fn main() -> ExitCode {
    unix::main()
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    ExitCode::from(2)
}

#[cfg(unix)]
mod unix {
    use std::process::ExitCode;
    use std::time::Duration;

    use eb_checkpoint_pg::PgCheckpointStore;
    use eb_contract::stores::{Checkpoint, CheckpointStore, Lease};
    use eb_contract::{
        ConsumerName, Cut, Error, ErrorKind, EventBusReader, PartitionId, ReadBatch, ReadLimit, ReadState,
        Retry, StartAt,
    };
    use eb_file::{FileBus, FileBusConfig};
    use eb_system_tests::facts::Fact;
    use eb_system_tests::shared::{Failed, Setup};
    use eb_system_tests::topic;
    use futures_util::{StreamExt, stream};
    use ig_gate::Gate;

    /// How long to wait before an event, or a transaction, is tried again.
    const AGAIN: Duration = Duration::from_millis(20);

    pub(super) fn main() -> ExitCode {
        let mut args = std::env::args().skip(1);
        let job = args.next().unwrap_or_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime needs threads, which a test machine has");
        let done = runtime.block_on(async {
            let setup = Setup::hear(args)?;
            match job.as_str() {
                "gate" => admit(&setup).await,
                "consume" => consume(&setup).await,
                other => Err(format!("no such job: {other}").into()),
            }
        });
        match done {
            Ok(()) => {
                Fact::Reached("end".to_owned()).say();
                ExitCode::SUCCESS
            }
            Err(error) => {
                let fact = match error.downcast_ref::<Error>() {
                    Some(error) => Fact::failed(error, ""),
                    None => Fact::Failed {
                        code: String::new(),
                        unknown: false,
                        envelope: String::new(),
                        text: error.to_string().replace(['\t', '\n'], " "),
                    },
                };
                fact.say();
                ExitCode::FAILURE
            }
        }
    }

    async fn admit(setup: &Setup) -> Result<(), Failed> {
        let gate = setup.gate().await?;
        Fact::Reached("open".to_owned()).say();
        let answers = stream::iter(setup.events().enumerate())
            .map(|(place, event)| answer(&gate, place, event))
            .buffer_unordered(setup.window.max(1));
        let mut answers = std::pin::pin!(answers);
        while let Some(fact) = answers.next().await {
            fact?.say();
        }
        gate.close().await?;
        Ok(())
    }

    async fn answer(gate: &Gate, place: usize, event: bytes::Bytes) -> Result<Fact, Failed> {
        loop {
            match gate.admit(event.clone()).await {
                Ok(receipt) => return Ok(Fact::Answered(place, serde_json::to_string(&receipt)?)),
                Err(error) if error.is_retryable() => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn consume(setup: &Setup) -> Result<(), Failed> {
        let store = PgCheckpointStore::open(&setup.database()).await?;
        let bus = FileBus::open(FileBusConfig::new(&setup.folder))?;
        let reader = bus.reader();
        let (topic, partition) = (topic(), PartitionId(0));
        let consumer = ConsumerName::new(&setup.name)?;
        let incarnation = reader.partitions(&topic).await?.incarnation;
        let lease = Lease { owner: format!("process {}", std::process::id()), epoch: setup.seed };
        let limit = ReadLimit { max_records: setup.window.max(1), max_bytes: 1 << 20, wait: Duration::ZERO };
        let mut commits = 0;
        'anew: loop {
            let stored = match store.load(&consumer, &topic, partition).await {
                Ok(stored) => stored,
                Err(error) if error.is_retryable() => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let mut stands = stored.unwrap_or(Checkpoint {
                consumer: consumer.clone(),
                topic: topic.clone(),
                partition_id: partition,
                cut: Cut::Begin,
                caught_up_at: None,
                version: 0,
                bus_incarnation: incarnation.clone(),
                lease: None,
                committed_at: None,
            });
            let mut cursor = reader.cursor(&topic, partition, StartAt::Cut(stands.cut)).await?;
            loop {
                let batch = cursor.next(limit).await?;
                let at_head = batch.state == ReadState::CaughtUp;
                if !batch.records.is_empty() {
                    let wanted = Checkpoint { cut: batch.next, ..stands };
                    match take(setup, &store, &batch, &wanted, &lease).await {
                        Ok(committed) => {
                            Fact::Reached(committed.cut.to_string()).say();
                            stands = committed;
                            commits += 1;
                            if commits == setup.hold_after {
                                hold().await?;
                            }
                        }
                        // What became of it, or who came in between, the store tells.
                        Err(error)
                            if error.is_retryable()
                                || matches!(error.kind(), ErrorKind::VersionConflict { .. }) =>
                        {
                            tokio::time::sleep(AGAIN).await;
                            continue 'anew;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                if at_head {
                    return Ok(());
                }
            }
        }
    }

    /// Waits for whoever started this process.
    async fn hold() -> Result<(), Failed> {
        Fact::Reached("holding".to_owned()).say();
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
        Ok(())
    }

    /// The records and the checkpoint past them, in one transaction.
    async fn take(
        setup: &Setup,
        store: &PgCheckpointStore,
        batch: &ReadBatch,
        wanted: &Checkpoint,
        lease: &Lease,
    ) -> eb_contract::Result<Checkpoint> {
        let broken = |e: &dyn std::fmt::Display| {
            let kind = ErrorKind::Unavailable;
            Error::new(kind, "consume", e.to_string()).with_retry(Retry::Later)
        };
        let mut client = store.pool().get().await.map_err(|e| broken(&e))?;
        let transaction = client.transaction().await.map_err(|e| broken(&e))?;
        // First the checkpoint, which locks its row: two owners never write side by side.
        let answers = store.commit_in(&transaction, std::slice::from_ref(wanted), lease).await;
        let committed = answers.into_iter().next().unwrap_or_else(|| Err(broken(&"no answer")))?;
        let sql = format!("INSERT INTO {}.consumed (at, taken_by) VALUES ($1, $2)", setup.schema);
        for record in &batch.records {
            let at = record.eb_ref.offset.as_u64().and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
            let inserted = transaction.execute(&sql, &[&at, &i64::from(std::process::id())]).await;
            if let Err(error) = inserted {
                // A record that comes a second time is what the suite is after, and must not be tried again.
                let twice = error.code() == Some(&tokio_postgres::error::SqlState::UNIQUE_VIOLATION);
                return Err(if twice {
                    let kind = ErrorKind::ProtocolViolation;
                    Error::new(kind, "consume", format!("record {at} was delivered again"))
                } else {
                    broken(&error)
                });
            }
        }
        transaction.commit().await.map_err(|e| broken(&e))?;
        Ok(committed)
    }
}
