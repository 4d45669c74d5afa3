//! The processes that the suites kill: `eb-test-child <job> <root> [name=value]…`.
//!
//! | job | does, until its standard input is closed |
//! |---|---|
//! | `publish` | opens the bus, makes the topic, publishes from `tasks` tasks to `partitions` partitions, and says every ACK |
//! | `follow` | follows all partitions from their beginning and says every record |
//!
//! Options of `publish`: `run` (a word that makes its keys its own), `count` (records per task; all there is to do), `patient`
//! (while another process holds the partition, asks again), `pause` (after a failed call waits for a line on its
//! standard input before it goes on), `preallocate` (bytes of padding ahead), `reserve` (the most bytes reserved beyond the log), `inline` (lone publishers commit themselves).

use std::collections::HashMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use eb_contract::{
    EbRef, ErrorKind, EventBusPublisher, EventBusReader, PublishRecord, ReadLimit, Result, StartAt,
};
use eb_file::{FileBus, FileBusConfig, InlineCommit};
use eb_system_tests::facts::{At, Fact, Said};
use eb_system_tests::{record, topic};
use parking_lot::Mutex;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(job), Some(root)) = (args.next(), args.next()) else {
        eprintln!("usage: eb-test-child <job> <root> [name=value]…");
        return ExitCode::from(2);
    };
    let options = Options(
        args.filter_map(|arg| arg.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect(),
    );
    let parent = Arc::new(Parent::default());
    let (send, lines) = channel();
    *parent.lines.lock() = Some(lines);
    let listening = parent.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            // Nobody waits for a line where the job has no pause.
            let _ = send.send(line);
        }
        listening.gone.store(true, Ordering::SeqCst);
    });

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime needs threads, which a test machine has");
    let done = runtime.block_on(async {
        match job.as_str() {
            "publish" => publish(root.into(), &options, &parent).await,
            "follow" => follow(root.into(), &parent).await,
            other => panic!("no such job: {other}"),
        }
    });
    match done {
        Ok(()) => {
            Fact::Reached("end".to_owned()).say();
            ExitCode::SUCCESS
        }
        Err(error) => {
            Fact::failed(&error, "").say();
            ExitCode::FAILURE
        }
    }
}

struct Options(HashMap<String, String>);

impl Options {
    fn number(&self, name: &str, default: u64) -> u64 {
        self.0.get(name).map_or(default, |text| text.parse().expect("the option is a number"))
    }

    fn text(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

/// The other end of standard input.
#[derive(Default)]
struct Parent {
    gone: AtomicBool,
    lines: Mutex<Option<Receiver<String>>>,
}

impl Parent {
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Waits for a line, or for the parent to be gone.
    async fn wait(self: &Arc<Self>) {
        let parent = self.clone();
        let waiting = tokio::task::spawn_blocking(move || {
            if let Some(lines) = &*parent.lines.lock() {
                let _ = lines.recv();
            }
        });
        waiting.await.expect("waiting for a line does not panic");
    }
}

async fn publish(root: PathBuf, options: &Options, parent: &Arc<Parent>) -> Result<()> {
    let partitions = u32::try_from(options.number("partitions", 1)).expect("few partitions");
    let mut config = FileBusConfig::new(root);
    config.preallocate_bytes = options.number("preallocate", 0);
    config.reserve_bytes = options.number("reserve", config.reserve_bytes);
    if options.number("inline", 0) == 1 {
        config.inline_commit = Some(InlineCommit::new(|work| tokio::task::block_in_place(work)));
    }
    let bus = FileBus::open(config)?;
    let manners =
        Manners { patient: options.number("patient", 0) == 1, pause: options.number("pause", 0) == 1 };
    while let Err(error) = bus.create_topic(&topic(), partitions) {
        if !(manners.patient && matches!(error.kind(), ErrorKind::Locked { .. })) {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let publisher: Arc<dyn EventBusPublisher> = Arc::new(bus.publisher());
    let (count, run) = (options.number("count", u64::MAX), options.text("run"));
    let tasks: Vec<_> = (0..options.number("tasks", 1))
        .map(|task| {
            let (publisher, parent, name) = (publisher.clone(), parent.clone(), format!("{run}-{task}"));
            tokio::spawn(async move {
                let mut call = 0;
                while call < count && !parent.is_gone() {
                    let batch = if call % 7 == 3 { 5.min(count - call) } else { 1 };
                    // Mostly small ones, some over several sectors, a few over many pages.
                    let padding =
                        |call: u64| [10, 250, 40, 700, 0, 90, 400, 9000][(call * 5 % 61 % 8) as usize];
                    let records: Vec<_> = (call..call + batch)
                        .map(|call| record(&format!("{name}-{}", call % 3), call, padding(call)))
                        .collect();
                    call += batch;
                    if !put(&*publisher, records, &parent, manners).await {
                        break;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("publishing does not panic");
    }
    publisher.close().await
}

#[derive(Clone, Copy)]
struct Manners {
    patient: bool,
    pause: bool,
}

/// Publishes in one call and says what came of each; whether to go on.
async fn put(
    publisher: &dyn EventBusPublisher,
    mut records: Vec<PublishRecord>,
    parent: &Arc<Parent>,
    manners: Manners,
) -> bool {
    loop {
        let answers: Vec<Result<EbRef>> = if records.len() == 1 {
            vec![publisher.publish(&topic(), records[0].clone()).await]
        } else {
            publisher.publish_batch(&topic(), records.clone()).await
        };
        let locked =
            |answer: &Result<EbRef>| matches!(answer, Err(e) if matches!(e.kind(), ErrorKind::Locked { .. }));
        if manners.patient && answers.iter().all(locked) && !parent.is_gone() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        let mut failed = false;
        for (record, answer) in records.drain(..).zip(answers) {
            let said = Said::from(&record);
            match answer {
                Ok(eb_ref) => Fact::Acked(At::of(&eb_ref), said).say(),
                Err(error) => {
                    failed = true;
                    Fact::failed(&error, &said.envelope).say();
                }
            }
        }
        if failed && manners.pause {
            Fact::Reached("pause".to_owned()).say();
            parent.wait().await;
        }
        return !failed || manners.pause;
    }
}

async fn follow(root: PathBuf, parent: &Arc<Parent>) -> Result<()> {
    let mut config = FileBusConfig::new(root);
    config.create = false;
    let bus = FileBus::open(config)?;
    let reader = bus.reader();
    let mut tasks = Vec::new();
    for partition in reader.partitions(&topic()).await?.partitions {
        let mut cursor = reader.cursor(&topic(), partition.id, StartAt::Earliest).await?;
        let parent = parent.clone();
        tasks.push(tokio::spawn(async move {
            while !parent.is_gone() {
                let limit = ReadLimit::records(100).waiting(Duration::from_millis(20));
                for record in cursor.next(limit).await?.records {
                    Fact::Seen(At::of(&record.eb_ref), Said::from(&record)).say();
                }
            }
            Ok(())
        }));
    }
    for task in tasks {
        task.await.expect("following does not panic")?;
    }
    Ok(())
}
