//! `eb tail`
//!
//! A follower outlasts its bus: once it has begun, a failure that may pass is waited out. Its cursors stay where they were, so it
//! goes on with the very next record.

use std::io::Write as _;
use std::time::Duration;

use eb_contract::{
    Cursor, Cut, Error, ErrorKind, EventBusReader, EventBusReaderExt as _, Head, Offset, PartitionId,
    ReadBatch, ReadLimit, ReadState, Record, Retry, StartAt, Topic,
};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use crate::args::{self, Global};
use crate::commands::{FIRST_STEP, open_reading};
use crate::failure::{Exit, Failure, Outcome};
use crate::signals::Stop;
use crate::ui::{self, Ui};

/// How long a read waits at the head before it looks again; nothing is late because of it.
const WAIT: Duration = Duration::from_secs(1);

/// How long a follower waits after a failure, growing from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Failures that are further apart are spoken of anew.
const APART: Duration = Duration::from_secs(60);

pub(crate) async fn run(ui: &mut Ui, global: &Global, args: &args::Tail) -> Outcome {
    let platform = open_reading(ui, global).await?;
    let reader = platform.reader();
    let partitions = partitions(&*reader, args).await?;
    let mut printer = Printer { ui, left: args.max.unwrap_or(u64::MAX), line: Vec::new() };
    let stop = Stop::listen()?;
    tokio::select! {
        done = print(&*reader, args, &partitions, &mut printer) => done?,
        // Ctrl-C is how one leaves `--follow`.
        () = stop.asked() => {}
    }
    Ok(Exit::Done)
}

/// The partitions to read: the one that was asked for, or all.
async fn partitions(reader: &dyn EventBusReader, args: &args::Tail) -> Result<Vec<PartitionId>, Failure> {
    let listed = reader.partitions(&args.topic).await.map_err(|e| {
        let missing = *e.kind() == ErrorKind::NotFound;
        let failure = Failure::from(e);
        if missing {
            failure.advise_if_silent(format!("`eb topics` lists what there is; else {FIRST_STEP}"))
        } else {
            failure
        }
    })?;
    let mut ids: Vec<_> = listed.partitions.iter().map(|p| p.id).collect();
    if let Some(wanted) = args.partition {
        if !ids.contains(&wanted) {
            let what = format!("{} has no partition {wanted}, it has {}", args.topic, ids.len());
            return Err(Failure::failed("not_found", what).advise("`eb head` lists them"));
        }
        ids = vec![wanted];
    } else if args.from_offset.is_some() && ids.len() != 1 {
        let what = format!("--from-offset needs --partition: {} has {} partitions", args.topic, ids.len());
        return Err(Failure::usage(what).advise("an offset means something in one partition only"));
    }
    Ok(ids)
}

async fn print(
    reader: &dyn EventBusReader,
    args: &args::Tail,
    partitions: &[PartitionId],
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    if !args.follow {
        for partition in partitions {
            let head = reader.head(&args.topic, *partition).await?;
            let start = start(reader, args, &head)?;
            to_head(reader, &args.topic, *partition, start, &head, printer).await?;
        }
        return Ok(());
    }
    if let [partition] = partitions {
        let head = reader.head(&args.topic, *partition).await?;
        let cursor = reader.cursor(&args.topic, *partition, start(reader, args, &head)?).await?;
        return follow(vec![cursor], printer).await;
    }
    if args.last.is_some() {
        // Only where offsets count records, and there partitions neither split nor merge.
        let mut cursors = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let head = reader.head(&args.topic, *partition).await?;
            cursors.push(reader.cursor(&args.topic, *partition, start(reader, args, &head)?).await?);
        }
        return follow(cursors, printer).await;
    }
    let start = plain_start(args);
    let mut tail = reader.tail_topic(&args.topic, start, printer.limit().waiting(WAIT)).await?;
    let mut patience = Patience::default();
    while printer.wants_more()
        && let Some(read) = tail.next().await
    {
        match read {
            Ok((_, batch)) => {
                patience.passed();
                printer.batch(&batch)?;
            }
            Err(e) => patience.waits(printer.ui, e).await?,
        }
    }
    Ok(())
}

/// What a follower does while its bus is away.
#[derive(Default)]
struct Patience {
    /// Failures since something came.
    failures: u32,
    last: Option<Instant>,
}

impl Patience {
    /// Something came.
    fn passed(&mut self) {
        self.failures = 0;
    }

    /// Waits before it is tried again, and says so once.
    ///
    /// # Errors
    /// The failure itself, where trying again does not help.
    async fn waits(&mut self, ui: &Ui, error: Error) -> Result<(), Failure> {
        let mut pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        match error.retry() {
            Retry::Later => {}
            Retry::After(after) => pause = pause.max(after),
            // The reader that would have to be opened anew is this program.
            Retry::Never | Retry::AfterReopen => return Err(error.into()),
        }
        let now = Instant::now();
        if self.last.is_none_or(|last| now.duration_since(last) > APART) {
            let what = Failure::from(error).without_advice();
            ui.note(&format!("{what}; waiting for it, and going on from here"));
        }
        (self.failures, self.last) = (self.failures + 1, Some(now));
        sleep(pause).await;
        Ok(())
    }
}

/// Reads partitions side by side, each in its order, until all have ended or no more is wanted.
async fn follow(cursors: Vec<Box<dyn Cursor>>, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let limit = |printer: &Printer<'_>| printer.limit().waiting(WAIT);
    let read = |mut cursor: Box<dyn Cursor>, limit: ReadLimit| async move {
        let batch = cursor.next(limit).await;
        (cursor, batch)
    };
    let mut reads: FuturesUnordered<_> = cursors.into_iter().map(|c| read(c, limit(printer))).collect();
    let mut patience = Patience::default();
    while printer.wants_more()
        && let Some((cursor, batch)) = reads.next().await
    {
        let batch = match batch {
            Ok(batch) => batch,
            Err(e) => {
                patience.waits(printer.ui, e).await?;
                reads.push(read(cursor, limit(printer)));
                continue;
            }
        };
        patience.passed();
        printer.batch(&batch)?;
        if !matches!(batch.state, ReadState::Closed { .. }) {
            reads.push(read(cursor, limit(printer)));
        }
    }
    Ok(())
}

/// Reads what lies before the head as it was found.
async fn to_head(
    reader: &dyn EventBusReader,
    topic: &Topic,
    partition: PartitionId,
    start: StartAt,
    head: &Head,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let mut cursor = reader.cursor(topic, partition, start).await?;
    while printer.wants_more() {
        let mut batch = cursor.next(printer.limit()).await?;
        let found = batch.records.len();
        batch.records.retain(|r| head.cut.is_before(&r.eb_ref.offset) == Some(false));
        printer.batch(&batch)?;
        if batch.records.len() < found || batch.state != ReadState::More {
            break;
        }
    }
    Ok(())
}

fn start(reader: &dyn EventBusReader, args: &args::Tail, head: &Head) -> Result<StartAt, Failure> {
    let kind = reader.capabilities().offset_kind;
    if let Some(text) = &args.from_offset {
        let offset = Offset::parse(kind, text).map_err(|e| Failure::usage(format!("--from-offset: {e}")))?;
        return Ok(StartAt::Cut(Cut::Next(offset)));
    }
    let Some(last) = args.last else { return Ok(plain_start(args)) };
    if !kind.is_dense() {
        let what = format!("--last needs offsets that count records; those of this bus are {kind}");
        return Err(Failure::usage(what).advise("use --from with a time"));
    }
    let next = head.last.and_then(|o| o.as_u64()).map_or(0, |n| n + 1);
    Ok(StartAt::Cut(Cut::Next(Offset::from_u64(kind, next.saturating_sub(last)))))
}

fn plain_start(args: &args::Tail) -> StartAt {
    match args.from {
        None | Some(args::From::Earliest) => StartAt::Earliest,
        Some(args::From::Latest) => StartAt::Latest,
        Some(args::From::Time(at)) => StartAt::Timestamp(at),
    }
}

struct Printer<'u> {
    ui: &'u mut Ui,
    left: u64,
    line: Vec<u8>,
}

impl Printer<'_> {
    fn wants_more(&self) -> bool {
        self.left > 0
    }

    fn limit(&self) -> ReadLimit {
        ReadLimit::records(usize::try_from(self.left).unwrap_or(usize::MAX).min(1000))
    }

    /// Prints a batch, as far as more is wanted, and lets the reader have it now.
    fn batch(&mut self, batch: &ReadBatch) -> Result<(), Failure> {
        for record in &batch.records {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            if self.ui.is_json() {
                self.line.clear();
                write_json(&mut self.line, record)?;
                self.ui.bytes(&self.line)?;
            } else {
                self.for_people(record)?;
            }
        }
        if batch.records.is_empty() { Ok(()) } else { self.ui.flush() }
    }

    fn for_people(&mut self, record: &Record) -> Result<(), Failure> {
        let eb_ref = &record.eb_ref;
        let place = format!("{}@{}", eb_ref.partition_id, eb_ref.offset);
        let envelope = String::from_utf8_lossy(record.envelope.as_bytes());
        let line = format!(
            "{} {} {} {}",
            self.ui.style(ui::HEAD, &place),
            self.ui.style(ui::FAINT, &eb_ref.published_at_utc.to_string()),
            self.ui.style(ui::GOOD, &ui::visible(record.partition_key.as_str())),
            ui::visible(&envelope),
        );
        self.ui.line(&line)
    }
}

/// The record as one JSON line, its envelope byte for byte.
fn write_json(out: &mut Vec<u8>, record: &Record) -> Result<(), Failure> {
    let cannot = |e: std::io::Error| Failure::output(&e);
    let eb_ref = &record.eb_ref;
    write!(
        out,
        r#"{{"topic":"{}","partition_id":{},"offset":"{}","offset_kind":"{}","published_at_utc":"{}","partition_key":"#,
        eb_ref.topic,
        eb_ref.partition_id,
        eb_ref.offset,
        eb_ref.offset.kind(),
        eb_ref.published_at_utc,
    )
    .map_err(cannot)?;
    serde_json::to_writer(&mut *out, &record.partition_key).map_err(|e| cannot(e.into()))?;
    out.extend_from_slice(b",\"envelope\":");
    out.extend_from_slice(record.envelope.as_bytes());
    out.extend_from_slice(b"}\n");
    Ok(())
}
