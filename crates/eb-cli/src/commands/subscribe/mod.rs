//! `eb subscribe`

pub(crate) mod exec;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eb_consumer::{
    AfterMax, Backoff, HealthStatus, LeasePolicy, Limits, RetryPolicy, RunningConsumer, Unhandled,
};
use eb_contract::{Cut, EventBusReader, PartitionId, StartAt, Topic};
use futures_util::future::poll_immediate;
use serde_json::json;

use crate::args::consume::{AfterMax as AfterMaxArg, Backoff as BackoffArg, Subscribe};
use crate::args::{From, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::signals::Stop;
use crate::ui::Ui;
use exec::{Runner, Running};

/// How often `--until-head` looks, and how the consumer does is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn run(ui: &mut Ui, global: &Global, args: &Subscribe) -> Outcome {
    let consumers = eb_profile::open_consumers(&global.profile).await?;
    for notice in &consumers.profile().notices {
        ui.note(notice);
    }
    let running = Running::default();
    let killing = running.clone();
    // A second Ctrl-C leaves at once, and takes the commands with it.
    let stop = Stop::listen_and(move || killing.kill_all())?;
    let runner = Arc::new(Runner::new(&args.exec, &args.name, running));
    let mut builder = consumers
        .builder(args.name.as_str())
        .await?
        .start_at(match args.from {
            From::Earliest => StartAt::Earliest,
            From::Latest => StartAt::Latest,
            From::Time(at) => StartAt::Timestamp(at),
        })
        // `--timeout` is the time limit, and the keeper's: see `exec`.
        .limits(Limits {
            concurrency: usize::from(args.concurrency),
            handler_time: None,
            ..Limits::default()
        })
        .leases(leases(args))
        .retry(retries(args));
    for topic in &args.topic {
        builder = builder.topic(topic.clone());
    }
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    let handler = move |event| {
        let (runner, count) = (Arc::clone(&runner), Arc::clone(&count));
        async move {
            runner.run(event).await?;
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    };
    builder = if args.types.is_empty() {
        builder.otherwise(handler)
    } else {
        let each = args.types.iter().fold(builder, |b, event_type| b.on_raw(event_type, handler.clone()));
        each.unhandled(Unhandled::Skip)
    };
    let consumer = builder.build().map_err(|e| Failure::usage(e.to_string()))?;
    let letters = Arc::clone(&consumers.stores().dead_letters);
    let before = letters.count_open(Some(&args.name)).await?;
    let worker = consumer.start().await?;
    ui.note(&format!("`{}` consumes as {}; Ctrl-C stops it", worker.name(), worker.owner()));
    let reader = Arc::clone(consumers.reader());
    let ended = tokio::select! {
        () = stop.asked() => Ok(()),
        ended = watch(ui, &worker, &*reader, args) => ended,
    };
    let stopping = worker.shutdown();
    tokio::pin!(stopping);
    match poll_immediate(&mut stopping).await {
        Some(stopped) => stopped?,
        None => {
            if stop.is_asked() {
                let grace = args.grace;
                ui.note(&format!(
                    "stopping: running commands have {grace} s to finish, another Ctrl-C kills them"
                ));
            }
            stopping.await?;
        }
    }
    ended?;
    let handled = handled.load(Ordering::Relaxed);
    let open = letters.count_open(Some(&args.name)).await?;
    let look = if open > 0 {
        format!(", {open} dead letters: eb dlq list --name {}", args.name)
    } else {
        String::new()
    };
    ui.summary(
        &format!("{handled} events handled{look}"),
        &json!({ "handled": handled, "dead_letters": open }),
    );
    Ok(if open > before { Exit::Quarantined } else { Exit::Done })
}

fn leases(args: &Subscribe) -> LeasePolicy {
    let (usual, time_to_live) = (LeasePolicy::default(), Duration::from_secs(args.lease));
    LeasePolicy {
        time_to_live,
        heartbeat: usual.heartbeat.min(time_to_live / 4),
        grace: Duration::from_secs(args.grace),
        ..usual
    }
}

fn retries(args: &Subscribe) -> RetryPolicy {
    let first = Duration::from_millis(args.delay_ms);
    RetryPolicy {
        backoff: match args.backoff {
            BackoffArg::Exponential => Backoff::Exponential { first, factor: 2.0 },
            BackoffArg::Linear => Backoff::Linear { first, step: first },
            BackoffArg::Fibonacci => Backoff::Fibonacci { unit: first },
            BackoffArg::Fixed => Backoff::Fixed { delay: first },
        },
        max_delay: Duration::from_millis(args.max_delay_ms),
        jitter_percent: args.jitter,
        max_attempts: (args.max_attempts > 0).then_some(args.max_attempts),
        after_max: match args.after_max {
            AfterMaxArg::DeadLetter => AfterMax::DeadLetter,
            AfterMaxArg::Park => AfterMax::DeadLetterAndPark,
            AfterMaxArg::Halt => AfterMax::Halt,
        },
        // Commands do not end our process; whatever does is no reason to give an event up that is to be tried until it succeeds.
        max_crashes: RetryPolicy::default().max_crashes.filter(|_| args.max_attempts > 0),
    }
}

/// Says what changes in the consumer's health, and ends at the head where that was asked for.
async fn watch(
    ui: &Ui,
    worker: &RunningConsumer,
    reader: &dyn EventBusReader,
    args: &Subscribe,
) -> Result<(), Failure> {
    let mut heads = if args.until_head { heads(reader, &args.topic).await? } else { Vec::new() };
    let mut said = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let health = worker.health();
        let now = (health.status, health.checks.first().map(|c| c.name.clone()));
        if said.as_ref() != Some(&now) && (said.is_some() || health.status != HealthStatus::Ready) {
            let details: Vec<_> = health.checks.iter().map(|c| format!("{}: {}", c.name, c.detail)).collect();
            ui.note(&format!(
                "{}{}{}",
                health.status,
                if details.is_empty() { "" } else { ": " },
                details.join("; ")
            ));
        }
        said = Some(now);
        if args.until_head {
            if health.checks.iter().any(|c| c.detail.starts_with("halted")) {
                let why = health.checks.iter().map(|c| c.detail.clone()).collect::<Vec<_>>().join("; ");
                return Err(Failure::failed("halted", why));
            }
            let parts = worker.partitions();
            heads.retain(|(topic, partition, head)| {
                let at = parts.iter().find(|p| p.topic == *topic && p.partition_id == *partition);
                !at.is_some_and(|p| p.committed.compare(head).is_some_and(std::cmp::Ordering::is_ge))
            });
            if heads.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Where the partitions end that have anything.
async fn heads(
    reader: &dyn EventBusReader,
    topics: &[Topic],
) -> Result<Vec<(Topic, PartitionId, Cut)>, Failure> {
    let mut heads = Vec::new();
    for topic in topics {
        for partition in reader.partitions(topic).await?.partitions {
            let head = reader.head(topic, partition.id).await?;
            if let (Some(last), false) = (head.last, partition.closed) {
                heads.push((topic.clone(), partition.id, Cut::past(last)));
            }
        }
    }
    Ok(heads)
}
