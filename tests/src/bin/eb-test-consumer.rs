//! A consumer as a process that is killed: `eb-test-consumer <root> <room> <seed> files|groups|postgres|graves|retry [address] [name]`.
//!
//! - `files`: consumes the file bus under `<root>`, with embedded stores beside it.
//! - `groups`: consumes the group that the Redis at `address` keeps of the bus with the prefix `name`, with the same stores.
//! - `postgres`: consumes the file bus within transactions of the database at `address`, schema `name`.
//! - `graves`: the same, but the handler fails for good, after its effect.
//! - `retry`: tries the dead letters of that consumer again until none is open, and ends.
//!
//! Where the environment's `EB_TEST_DEADLY` is `key call`, its process aborts when that call is handled, before the effect, and says `dying` right before.
//!
//! Its handler's effect is the pair `key call`: a line appended to `<root>/effects` in one write, or a row of the table `effects`. Now and then it
//! fails, on files before that, in the database after it. Runs until it is killed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use eb_checkpoint_pg::{PgConfig, PgDeadLetters, PgLeases, PgProcessed, PgRegisterStore};
use eb_consumer::{
    Backoff, CommitPolicy, ConsumerBuilder, ConsumerSource, Event, EventConsumer, HandlerError, Handlers,
    LeasePolicy, Limits, RetryPolicy, RunningConsumer, Stores,
};
use eb_contract::stores::DeadLetterFilter;
use eb_file::{FileBus, FileBusConfig, FileCheckpointStore};
use eb_redis::{RedisBus, RedisConfig, RedisUrl};
use eb_store_local::{
    EmbeddedDeadLetters, EmbeddedLeases, EmbeddedProcessed, FileRegisterStore, MarksConfig,
};
use eb_system_tests::consumers::{CONSUMER, EFFECTS};
use eb_system_tests::topic;
use parking_lot::Mutex;
use serde::Deserialize;

type AnyError = Box<dyn std::error::Error>;

#[derive(Deserialize)]
struct Payload {
    call: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, room, seed, kind, more @ ..] = &args[..] else {
        eprintln!(
            "usage: eb-test-consumer <root> <room> <seed> files|groups|postgres|graves|retry [address] [name]"
        );
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime needs threads, which a test machine has");
    let number = |text: &str| text.parse::<u64>().expect("the argument is a number");
    let (root, room) = (Path::new(root), number(room) as usize);
    let luck = Arc::new(Mutex::new(eb_testkit::Rng::new(number(seed))));
    let started = runtime.block_on(async {
        let worker = match (kind.as_str(), more) {
            ("files", []) => on_files(root, room, luck, log(root)?).await?,
            ("groups", [address, prefix]) => {
                on_files(root, room, luck, groups(address, prefix).await?).await?
            }
            ("postgres", [address, schema]) => {
                in_postgres(root, room, luck, address, schema, false).await?.start().await?
            }
            ("graves", [address, schema]) => {
                in_postgres(root, room, luck, address, schema, true).await?.start().await?
            }
            ("retry", [address, schema]) => {
                return retry(in_postgres(root, room, luck, address, schema, false).await?).await;
            }
            _ => return Err("unknown arguments".into()),
        };
        println!("started {}", worker.owner());
        std::future::pending::<()>().await;
        Ok::<_, AnyError>(())
    });
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Which call ends the process.
fn deadly() -> Option<String> {
    std::env::var("EB_TEST_DEADLY").ok()
}

fn die_of(deadly: Option<&String>, event: &Event<Payload>) {
    if deadly.is_some_and(|deadly| *deadly == format!("{} {}", event.partition_key(), event.payload.call)) {
        println!("dying");
        std::process::abort();
    }
}

fn log(root: &Path) -> Result<ConsumerSource, AnyError> {
    let bus = FileBus::open(FileBusConfig { create: false, ..FileBusConfig::new(root) })?;
    Ok(ConsumerSource::Log(Arc::new(bus.reader())))
}

async fn groups(address: &str, prefix: &str) -> Result<ConsumerSource, AnyError> {
    let config = RedisConfig { prefix: prefix.to_owned(), ..RedisConfig::new(RedisUrl::parse(address)?) };
    let bus = RedisBus::open(config).await?;
    Ok(ConsumerSource::Groups { groups: Arc::new(bus.groups()), reader: Arc::new(bus.reader()) })
}

/// Leases end soon, steps are small, and a record is tried until it succeeds.
fn hurried<H: Handlers>(builder: ConsumerBuilder<H>, room: usize) -> ConsumerBuilder<H> {
    let ms = Duration::from_millis;
    builder
        .topic(topic())
        .limits(Limits { partition_records: room, read_records: room / 3 + 1, ..Limits::default() })
        .commit(CommitPolicy { records: room / 4 + 1, interval: ms(5), ..CommitPolicy::default() })
        .leases(LeasePolicy {
            time_to_live: ms(400),
            heartbeat: ms(60),
            rebalance: ms(40),
            retry_failed: ms(50),
            ..LeasePolicy::default()
        })
        .retry(RetryPolicy {
            backoff: Backoff::Fixed { delay: ms(2) },
            max_attempts: None,
            ..RetryPolicy::default()
        })
        .unhandled(eb_consumer::Unhandled::DeadLetter)
}

async fn on_files(
    root: &Path,
    room: usize,
    luck: Arc<Mutex<eb_testkit::Rng>>,
    source: ConsumerSource,
) -> Result<RunningConsumer, AnyError> {
    let effects: Arc<File> = Arc::new(OpenOptions::new().append(true).create(true).open(root.join(EFFECTS))?);
    let (folder, deadly) = (root.join("consumers"), deadly());
    let stores = Stores {
        checkpoints: Arc::new(FileCheckpointStore::open(root)),
        processed: Arc::new(EmbeddedProcessed::open(&MarksConfig::new(&folder))),
        dead_letters: Arc::new(EmbeddedDeadLetters::open(&folder)),
        leases: Arc::new(EmbeddedLeases::open(&folder)),
        registers: Arc::new(FileRegisterStore::open(&folder)),
    };
    let consumer = hurried(EventConsumer::builder(CONSUMER).source(source).stores(stores), room)
        .on("test.call.made", move |event: Event<Payload>| {
            die_of(deadly.as_ref(), &event);
            let (effects, fails) = (Arc::clone(&effects), luck.lock().chance(10));
            async move {
                if fails {
                    return Err(HandlerError::transient("now and then"));
                }
                tokio::task::yield_now().await;
                (&*effects)
                    .write_all(format!("{} {}\n", event.partition_key(), event.payload.call).as_bytes())?;
                Ok(())
            }
        })
        .build()?;
    Ok(consumer.start().await?)
}

async fn in_postgres(
    root: &Path,
    room: usize,
    luck: Arc<Mutex<eb_testkit::Rng>>,
    address: &str,
    schema: &str,
    dies: bool,
) -> Result<EventConsumer, AnyError> {
    let config = PgConfig { schema: schema.to_owned(), allow_unsafe_server: true, ..PgConfig::new(address) };
    let processed = Arc::new(PgProcessed::open(&config).await?);
    let stores = Stores {
        checkpoints: Arc::new(processed.checkpoints().clone()),
        processed: processed.clone(),
        dead_letters: Arc::new(PgDeadLetters::open(&config).await?),
        leases: Arc::new(PgLeases::open(&config).await?),
        registers: Arc::new(PgRegisterStore::open(&config).await?),
    };
    let deadly = deadly();
    let builder = EventConsumer::transactional(CONSUMER, processed).source(log(root)?).stores(stores);
    let consumer = hurried(builder, room)
        .on("test.call.made", move |event: Event<Payload>, transaction| {
            die_of(deadly.as_ref(), &event);
            let fails = luck.lock().chance(10);
            Box::pin(async move {
                let call = i64::try_from(event.payload.call)?;
                let client = transaction.client()?;
                let effect = "INSERT INTO public.effects (key, call) VALUES ($1, $2)";
                client.execute(effect, &[&event.partition_key().as_str(), &call]).await?;
                if dies {
                    return Err(HandlerError::permanent("for good, with the effect to be undone"));
                }
                if fails {
                    return Err(HandlerError::transient("now and then, with the effect to be undone"));
                }
                Ok(())
            })
        })
        .build()?;
    Ok(consumer)
}

async fn retry(consumer: EventConsumer) -> Result<(), AnyError> {
    println!("started");
    loop {
        let mut tried = 0;
        let filter = DeadLetterFilter::default();
        consumer.retry_dead_letters(&filter, "once more", |_, _| tried += 1).await?;
        if tried == 0 {
            println!("done");
            return Ok(());
        }
    }
}
