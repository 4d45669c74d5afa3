//! `eb ingest`
//!
//! # Order
//! Lines go to the gate in the order of the input, and a line's place is fixed when it is handed over, so events of one key are published in
//! the order of the input however many are in flight. Receipts are printed in the same order.
//!
//! # When the gate has no answer
//! A passing failure stops the intake: what is in flight is awaited, then everything that failed is sent again, in the order of the
//! input, with growing pauses, until it is answered or the time for it is up. A line that still has no answer ends the run; lines
//! after it that were in flight may have been admitted, which running the input again shows as duplicates.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use eb_contract::Retry;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use ig_gate::{Admission, Decision, Gate, GateError, Receipt};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::{self, Global};
use crate::commands::lines::{Fault, Input, Line, MAX_LINE_BYTES};
use crate::commands::{open, open_gate, receipt};
use crate::failure::{Exit, Failure, Outcome};
use crate::signals::Stop;
use crate::ui::{self, Ui};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(crate) async fn run(ui: &mut Ui, global: &Global, args: &args::Ingest) -> Outcome {
    let stop = Stop::listen()?;
    // The input first: a file that is not there must not leave an empty platform behind.
    let input = Input::open(&args.input, args.from_line)?;
    if args.input == "-" && std::io::stdin().is_terminal() {
        ui.note("reading events from the terminal, one a line; Ctrl-D ends them");
    }
    let platform = open(ui, global).await?;
    let gate = tokio::select! {
        gate = open_gate(ui, &platform) => gate?,
        () = stop.asked() => return Err(interrupted().advise("nothing was read yet; run it again")),
    };
    let mut run = Run {
        bar: bar(ui, &input),
        summary: Summary::default(),
        concurrency: usize::from(args.concurrency),
        retry_for: Duration::from_secs(args.retry_for),
        gate,
        stop,
        ui,
    };
    let started = Instant::now();
    let end = run.all(input).await;
    let Run { ui, bar, mut summary, .. } = run;
    bar.finish_and_clear();
    let flushed = ui.flush();
    let closed = platform.close().await;
    summary.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    summary.complete = end.is_ok();
    ui.summary(&summary.for_people(), &serde_json::json!({ "summary": summary }));
    let end = end.and(flushed);
    let failure = match (end, closed) {
        (Ok(()), Ok(())) if summary.quarantined > 0 => return Ok(Exit::Quarantined),
        (Ok(()), Ok(())) => return Ok(Exit::Done),
        // Everything was answered; what could not be closed is read from the log by the next open.
        (Ok(()), Err(e)) => Failure::from(e).context("every line was answered, but closing failed"),
        (Err(failure), _) => failure,
    };
    if failure.is_broken_pipe() {
        // Unlike a reader of records, whoever leaves an ingest leaves it undone.
        return Err(Failure::failed("output", "nobody reads the receipts any more")
            .advise(summary.go_on(args))
            .fact("stopped_after_line", summary.last_line));
    }
    Err(failure.advise_if_silent(summary.go_on(args)).fact("stopped_after_line", summary.last_line))
}

fn bar(ui: &Ui, input: &Input) -> ProgressBar {
    if !ui.may_draw() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match input.size {
        Some(size) => {
            (ProgressBar::new(size), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

struct Run<'u> {
    ui: &'u mut Ui,
    gate: Gate,
    stop: Stop,
    bar: ProgressBar,
    summary: Summary,
    concurrency: usize,
    retry_for: Duration,
}

/// A line with its answer, in the order of the input.
type Answered = (Line, Result<Receipt, GateError>);

async fn admit(line: Line, admission: Admission) -> Answered {
    let answer = admission.await;
    (line, answer)
}

impl Run<'_> {
    /// Sends every line through the gate. An error says why it ended before the input did; what was in flight has been
    /// answered then.
    async fn all(&mut self, mut input: Input) -> Result<(), Failure> {
        let mut queue: VecDeque<Line> = VecDeque::new();
        let mut in_flight = FuturesOrdered::new();
        let mut end = None;
        loop {
            while end.is_none()
                && in_flight.len() < self.concurrency
                && let Some(line) = queue.pop_front()
            {
                let admission = self.gate.admit(line.bytes.clone());
                in_flight.push_back(admit(line, admission));
            }
            if in_flight.is_empty() {
                self.ui.flush()?;
                if let Some(end) = end {
                    return end;
                }
            }
            tokio::select! {
                biased;
                () = self.stop.asked(), if end.is_none() => end = Some(Err(interrupted())),
                Some(answered) = in_flight.next(), if !in_flight.is_empty() => {
                    if let Err(failure) = self.take(answered, &mut in_flight).await {
                        end.get_or_insert(Err(failure));
                    }
                }
                chunk = input.chunks.recv(), if end.is_none() && queue.is_empty() => match chunk {
                    Some(Ok(lines)) => queue.extend(lines),
                    Some(Err(fault)) => end = Some(Err(unreadable(&input.name, fault))),
                    None => end = Some(Ok(())),
                },
            }
        }
    }

    /// Takes the next answer in order; after a failure, those in flight too, and sends again what can be sent again.
    async fn take<F>(&mut self, first: Answered, in_flight: &mut FuturesOrdered<F>) -> Result<(), Failure>
    where
        F: Future<Output = Answered>,
    {
        if let (line, Ok(receipt)) = &first {
            return self.print(line, receipt);
        }
        let mut window = vec![first];
        while let Some(answered) = in_flight.next().await {
            window.push(answered);
        }
        self.send_again(&mut window).await;
        let mut failed: Option<Failure> = None;
        for (line, answer) in window {
            match answer {
                Ok(receipt) => {
                    let printed = self.print(&line, &receipt);
                    // Lines behind one that failed are answered all the same, but the run is not done up to them.
                    if let Err(failure) = printed {
                        failed.get_or_insert(failure);
                    }
                }
                Err(e) if failed.is_none() => {
                    self.summary.failed_line = Some(line.number);
                    failed =
                        Some(Failure::from(e).context(format_args!("line {}", line.number)).without_advice());
                }
                Err(_) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Sends those lines of the window that have no answer again, with growing pauses, for as long as it may help.
    async fn send_again(&mut self, window: &mut [Answered]) {
        let until = Instant::now() + self.retry_for;
        let mut pause = FIRST_PAUSE;
        loop {
            let mut wait = pause;
            let mut failed = false;
            for (_, answer) in &*window {
                let Err(e) = answer else { continue };
                failed = true;
                match e.retry() {
                    Retry::Later => {}
                    Retry::After(after) => wait = wait.max(after),
                    // Not by this process: the caller reports it.
                    Retry::Never | Retry::AfterReopen => return,
                }
            }
            if !failed || self.stop.is_asked() || Instant::now() + wait > until {
                return;
            }
            self.bar.set_message("waiting to try again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.asked() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.bar.set_message("");
            let unanswered = window.iter_mut().filter(|(_, answer)| answer.is_err());
            let mut again: FuturesOrdered<_> = unanswered
                .map(|(line, answer)| {
                    let admission = self.gate.admit(line.bytes.clone());
                    async move { *answer = admission.await }
                })
                .collect();
            while again.next().await.is_some() {}
        }
    }

    fn print(&mut self, line: &Line, receipt: &Receipt) -> Result<(), Failure> {
        self.summary.count(line, receipt);
        self.bar.inc(line.bytes.len() as u64 + 1);
        if self.ui.is_json() {
            return self.ui.json(receipt);
        }
        let ui = &mut *self.ui;
        self.bar.suspend(|| {
            receipt::for_people(ui, receipt)?;
            ui.flush()
        })
    }
}

fn interrupted() -> Failure {
    Failure::new(Exit::TryAgain, "interrupted", "interrupted")
}

fn unreadable(name: &str, fault: Fault) -> Failure {
    match fault {
        Fault::TooLong { number } => {
            let what = format!("line {number} of {name} has more than {} MiB", MAX_LINE_BYTES >> 20);
            Failure::failed("too_large", what)
                .advise(format!(
                    "nothing of it was sent; split or remove it, then go on with --from-line {number}"
                ))
                .fact("line", number)
        }
        Fault::Read { after, error } => {
            Failure::failed("input", format!("cannot read {name} after line {after}: {error}"))
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    lines: u64,
    admitted: u64,
    duplicates: u64,
    quarantined: u64,
    /// Quarantined lines by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<String, u64>,
    /// Whether the input was read to its end and every line was answered.
    complete: bool,
    /// Every line up to this one was answered.
    last_line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_line: Option<u64>,
    elapsed_ms: u64,
}

impl Summary {
    fn count(&mut self, line: &Line, receipt: &Receipt) {
        self.lines += 1;
        if self.failed_line.is_none() {
            self.last_line = line.number;
        }
        match receipt.decision {
            Decision::Admit => self.admitted += 1,
            Decision::Duplicate => self.duplicates += 1,
            Decision::Quarantine => {
                self.quarantined += 1;
                for reason in &receipt.reason_codes {
                    *self.reasons.entry(reason.to_string()).or_default() += 1;
                }
            }
        }
    }

    fn for_people(&self) -> String {
        let mut text = format!(
            "{} lines: {} admitted, {} duplicates, {} quarantined",
            ui::count(self.lines),
            ui::count(self.admitted),
            ui::count(self.duplicates),
            ui::count(self.quarantined)
        );
        if !self.reasons.is_empty() {
            let reasons: Vec<_> = self.reasons.iter().map(|(name, n)| format!("{name} {n}")).collect();
            // Writing to a string cannot fail.
            let _ = write!(text, " ({})", reasons.join(", "));
        }
        let seconds = Duration::from_millis(self.elapsed_ms).as_secs_f64();
        let _ = write!(text, " in {seconds:.1} s");
        if !self.complete {
            let _ = write!(text, "; stopped after line {}", self.last_line);
        }
        text
    }

    /// How to go on after a run that did not end with its input.
    fn go_on(&self, args: &args::Ingest) -> String {
        let from = self.last_line.max(args.from_line - 1) + 1;
        format!(
            "every line before {from} was answered: go on with --from-line {from}, or run the same again (nothing is admitted twice)"
        )
    }
}

#[cfg(test)]
mod tests;
