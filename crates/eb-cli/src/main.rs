//! `eb`: the event bus on the command line. See `eb --help`.
//!
//! `eb subscribe` starts this program a second time, as the *keeper* of its commands: it kills them when `eb subscribe` is gone, however it
//! went. Why a process, and why one for all of them, stands in `commands/subscribe/exec/mod.rs`.

mod args;
mod commands;
mod failure;
mod signals;
mod ui;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::Cli;
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::Ui;

fn main() {
    #[cfg(unix)]
    if let Some(code) = commands::subscribe::exec::keeper::asked_for(std::env::args_os().skip(1)) {
        std::process::exit(code);
    }
    let exit = match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => not_run(&error),
    };
    // Not by returning: a thread that waits for standard input must not hold the program up.
    std::process::exit(exit as i32)
}

fn run(cli: Cli) -> Exit {
    let mut ui = Ui::new(&cli.global);
    trace(cli.global.verbose);
    let outcome = run_command(&mut ui, cli);
    let flushed = ui.flush();
    let outcome = match (outcome, flushed) {
        (Ok(_), Err(failure)) => Err(failure),
        (outcome, _) => outcome,
    };
    match outcome {
        Ok(exit) => exit,
        // The reader has seen enough, as in `eb tail | head`.
        Err(failure) if failure.is_broken_pipe() => Exit::Done,
        Err(failure) => {
            ui.failure(&failure);
            failure.exit()
        }
    }
}

fn run_command(ui: &mut Ui, cli: Cli) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).min(8))
        .build()
        .map_err(|e| Failure::failed("io", format!("cannot start: {e}")))?;
    let outcome = runtime.block_on(commands::run(ui, cli));
    runtime.shutdown_background();
    outcome
}

/// Log lines on standard error, as many as were asked for.
fn trace(verbose: u8) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match verbose {
        0 => return,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false).init();
}

/// A command line that asks for help, or is wrong.
fn not_run(error: &clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has gone has seen enough.
            let _ = error.print();
            Exit::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Exit::Usage
        }
        _ => {
            let failure = one_line(&error.render().to_string());
            let json = std::env::args_os().any(|a| a == "--json");
            let line = if json { failure.to_json().to_string() } else { format!("eb: {failure}") };
            let _ = std::io::Write::write_fmt(&mut std::io::stderr().lock(), format_args!("{line}\n"));
            Exit::Usage
        }
    }
}

/// Clap's paragraphs as one line: what is wrong, its tips, and where to read on.
fn one_line(rendered: &str) -> Failure {
    let mut what = Vec::new();
    let mut tips = Vec::new();
    let mut help = "eb --help".to_owned();
    for line in rendered.lines().map(str::trim) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            tips.push(tip.to_owned());
        } else if let Some(usage) = line.strip_prefix("Usage: ") {
            let words = usage.split_whitespace().take_while(|w| w.bytes().all(|b| b.is_ascii_lowercase()));
            help = format!("{} --help", words.collect::<Vec<_>>().join(" "));
            break;
        } else if !line.is_empty() && !line.starts_with("For more information") {
            what.push(line.strip_prefix("error: ").unwrap_or(line).to_owned());
        }
    }
    tips.push(format!("see {help}"));
    Failure::usage(what.join(" ")).advise(tips.join("; "))
}
