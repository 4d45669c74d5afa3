//! The command line, in one place.

pub(crate) mod consume;
pub(crate) mod schema;

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use eb_contract::{ConsumerName, PartitionId, Timestamp, Topic};

const AFTER_HELP: &str = "\
Exit codes:
  0   done
  1   failed
  2   usage: the command line is wrong
  3   done, but some events were quarantined, or are new dead letters
  75  try again: a passing failure, or interrupted; the same command goes on where it stopped

On a terminal results are tables; piped, or with --json, they are JSON, one object a line.
Failures are one line on standard error: eb: <what is wrong>; <what to do next>.

Environment:
  EB_RUNS         where the local profile writes (default: runs/fraud-platform)
  EB_CONFIG_DIR   the config folder to take profiles from (default: config/ here or above, then the built-in one)
  EVENT_BUS_KIND  overrides the profile's event_bus_kind
  NO_COLOR        no colour unless --color asks for it";

/// The event bus: a durable, append-only log of admitted facts, and the gate that is the only way in.
#[derive(Debug, Parser)]
#[command(name = "eb", version, after_help = AFTER_HELP, propagate_version = true, max_term_width = 100)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The profile to open: a name (config/platform/profiles/NAME.yaml) or a path
    #[arg(
        long,
        global = true,
        value_name = "NAME|PATH",
        default_value = "local",
        hide_default_value = false
    )]
    pub(crate) profile: String,
    /// JSON lines on standard output and JSON errors, also on a terminal
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(crate) color: When,
    /// Nothing but results and failures
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// What happens inside, on standard error; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send events through the gate into the bus: one JSON object a line
    ///
    /// Prints a receipt for each line, in the order of the input, and a summary on standard error. Blank lines are
    /// skipped. Ctrl-C finishes what is in flight and says where it stopped. Running the same input again admits nothing
    /// twice.
    Ingest(Ingest),
    /// Build one event and send it through the gate
    Publish(Box<Publish>),
    /// Print records of a topic
    Tail(Tail),
    /// List topics, or make them
    #[command(args_conflicts_with_subcommands = true)]
    Topics {
        #[command(subcommand)]
        what: Option<Topics>,
    },
    /// Show where each partition ends
    Head(Head),
    /// Check every record, the index and the watermark; digest what is there
    ///
    /// Prints counts and digests per partition, a digest over the per-key sequences of first occurrences that any backend
    /// holding the same facts reproduces, every damage with its place, and what a repair would do.
    Verify(Verify),
    /// Read and move the checkpoints of consumers
    #[command(subcommand)]
    Checkpoint(Checkpoint),
    /// Run a command for every event: at least once, in the order of each key
    ///
    /// Processes of one name share the partitions, and each goes on where the name stopped. Ctrl-C lets running commands finish.
    Subscribe(Box<consume::Subscribe>),
    /// Show how far consumers are, also those that run elsewhere: lag, what is in flight and tried again, dead letters, who holds what
    ///
    /// A line for each partition. What is in flight, the repeated attempts and the phase (running, paused, draining, halted) are what its holder said with
    /// its last heartbeat, some seconds ago at most, and are gone with it; of a group that the service keeps, what it has pending. Open dead letters
    /// are those of the consumer, all its partitions together.
    Consumers(consume::Consumers),
    /// Look at dead letters, try them again, or drop them
    #[command(subcommand)]
    Dlq(consume::Dlq),
    /// Move from one bus to another, and back
    #[command(subcommand)]
    Rollout(Rollout),
    /// Find the receipt of an event
    ///
    /// Where another process has the gate open and its index is embedded, receipts come from log and quarantine: those of quarantined
    /// events whole, those of admitted ones without policy_rev, class and pins.
    Receipt(Receipt),
    /// Check or show a profile
    #[command(subcommand)]
    Profile(Profile),
    /// Check, compare and release the versions of event schemas
    #[command(subcommand)]
    Schema(schema::Schema),
    /// Check Rust sources, configuration and schemas by the charter: nothing past the gate, well-named and complete events
    Lint(schema::Lint),
    /// Ask the gate and everything below it whether they can work
    ///
    /// Where another process has the gate open and its index is embedded, only bus and quarantine are asked, by reading; the status is
    /// degraded then, because whether that gate admits is not known here.
    Health,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Write eb.1, eb-ingest.1, … into this folder
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// The file to read; - is standard input
    #[arg(default_value = "-", value_name = "FILE")]
    pub(crate) input: String,
    /// How many events may be in flight at once
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub(crate) concurrency: u16,
    /// Start at this line of the input, counted from 1
    #[arg(long, value_name = "LINE", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from_line: u64,
    /// For how long a passing failure is retried before giving up with exit code 75, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) retry_for: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The event's type, such as card.transaction.authorised
    pub(crate) event_type: String,
    /// Its payload: JSON text, @FILE, or - for standard input
    #[arg(value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub(crate) payload: String,
    /// Identity; the same id sent again is a duplicate [default: a new UUID]
    #[arg(long, value_name = "ID")]
    pub(crate) event_id: Option<String>,
    /// Domain time, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) ts_utc: Option<Timestamp>,
    /// Emission time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) emitted_at_utc: Option<Timestamp>,
    /// Who emits it
    #[arg(long, value_name = "NAME", default_value = "eb-cli")]
    pub(crate) producer: String,
    /// The producer's module
    #[arg(long, value_name = "NAME")]
    pub(crate) source_module: Option<String>,
    /// Version of the payload's schema
    #[arg(long, value_name = "VERSION")]
    pub(crate) schema_version: Option<String>,
    /// The event that caused this one
    #[arg(long, value_name = "ID")]
    pub(crate) parent_event_id: Option<String>,
    /// Tracing: the trace
    #[arg(long, value_name = "ID", requires = "span_id")]
    pub(crate) trace_id: Option<String>,
    /// Tracing: the span
    #[arg(long, value_name = "ID", requires = "trace_id")]
    pub(crate) span_id: Option<String>,
    /// Pin: the world that the event belongs to, 64 lower-case hex digits
    #[arg(long, value_name = "HEX64", help_heading = "Pins")]
    pub(crate) manifest_fingerprint: String,
    /// Pin: the parameter bundle, 64 lower-case hex digits
    #[arg(long, value_name = "HEX64", help_heading = "Pins")]
    pub(crate) parameter_hash: Option<String>,
    /// Pin: the generator's seed
    #[arg(long, value_name = "U64", help_heading = "Pins")]
    pub(crate) seed: Option<u64>,
    /// Pin: the scenario
    #[arg(long, value_name = "ID", help_heading = "Pins")]
    pub(crate) scenario_id: Option<String>,
    /// Pin: the run, 32 lower-case hex digits
    #[arg(long, value_name = "HEX32", help_heading = "Pins")]
    pub(crate) run_id: Option<String>,
    /// Pin: the platform run, platform_YYYYMMDDTHHMMSSZ
    #[arg(long, value_name = "ID", help_heading = "Pins")]
    pub(crate) platform_run_id: Option<String>,
    /// Pin: the scenario run, 32 lower-case hex digits
    #[arg(long, value_name = "HEX32", help_heading = "Pins")]
    pub(crate) scenario_run_id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The topic
    #[arg(long)]
    pub(crate) topic: Topic,
    /// One partition only [default: all]
    #[arg(long, value_name = "N", value_parser = partition)]
    pub(crate) partition: Option<PartitionId>,
    /// Start at the record with this offset
    #[arg(long, value_name = "OFFSET", group = "start")]
    pub(crate) from_offset: Option<String>,
    /// Start at the oldest record, behind the newest, or at the first published at or after a time
    #[arg(long, value_name = "earliest|latest|TIME", group = "start", value_parser = from)]
    pub(crate) from: Option<From>,
    /// Start so far before the end of each partition
    #[arg(long, value_name = "N", group = "start")]
    pub(crate) last: Option<u64>,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u64>,
    /// Wait for new records at the end, and for the bus where it goes away meanwhile
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    Earliest,
    Latest,
    Time(Timestamp),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topics {
    /// List topics
    List,
    /// Make a topic, or every topic that the profile names
    ///
    /// For development: where streams are provisioned with the account, leave it to whoever does that. What is there already
    /// with the same number of partitions is left as it is.
    Create {
        /// The topic [default: all of the profile's wiring.event_bus.topics]
        topic: Option<Topic>,
        /// How many partitions (shards) it has [default: what the profile says, or 1]
        #[arg(long, visible_alias = "partitions", value_name = "N", requires = "topic", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        shards: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Head {
    /// One topic only [default: all]
    #[arg(long)]
    pub(crate) topic: Option<Topic>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// One topic only [default: all]
    #[arg(long)]
    pub(crate) topic: Option<Topic>,
    /// Leave out the digest over per-key sequences: it takes about 80 bytes of memory a record and 400 a key
    #[arg(long)]
    pub(crate) skip_key_digest: bool,
    /// Do what the plan says, after showing it
    #[arg(long)]
    pub(crate) repair: bool,
    /// Do not ask before repairing
    #[arg(long, requires = "repair")]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Checkpoint {
    /// List checkpoints
    List {
        /// One consumer only [default: all]
        #[arg(long, value_name = "NAME")]
        consumer: Option<ConsumerName>,
    },
    /// Show one checkpoint
    Get(CheckpointId),
    /// Move a checkpoint forward, or make one
    ///
    /// Going back is what `eb checkpoint reset` is for. The commit is made in the name of the lease that is stored, so that a
    /// running consumer is not fenced; it is told of the change by a version conflict.
    Set {
        #[command(flatten)]
        id: CheckpointId,
        /// The cut: begin, head, end, OFFSET (the next record to process), next:OFFSET or after:OFFSET
        #[arg(long, value_name = "CUT")]
        at: String,
        /// Only if this version is stored; 0 for none [default: whatever is stored]
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<u64>,
        /// The lease to commit under [default: the stored one, or eb-cli]
        #[arg(long, value_name = "NAME", requires = "epoch")]
        owner: Option<String>,
        /// Its epoch [default: the stored one, or 0]
        #[arg(long, value_name = "N", requires = "owner")]
        epoch: Option<u64>,
    },
    /// Move a checkpoint anywhere, also back or into a topic made anew, and keep the reason
    Reset {
        #[command(flatten)]
        id: CheckpointId,
        /// The cut: begin, head, end, OFFSET (the next record to process), next:OFFSET or after:OFFSET
        #[arg(long, value_name = "CUT")]
        at: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointId {
    /// Whose checkpoint
    #[arg(long, value_name = "NAME")]
    pub(crate) consumer: ConsumerName,
    /// Of which topic
    #[arg(long)]
    pub(crate) topic: Topic,
    /// Of which partition
    #[arg(long, value_name = "N", value_parser = partition, default_value = "0")]
    pub(crate) partition: PartitionId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Show the phase, the mirror and what is missing for the next phase
    Status {
        /// Read both logs over the whole mirrored stretch and compare them
        #[arg(long)]
        compare: bool,
    },
    /// Move on to the next phase, once nothing is missing for it: baseline, dual_write, new_primary, new_only
    Advance {
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "eb rollout advance", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// Go back, for all processes, in about a lease's time, whatever the new bus does
    Rollback {
        /// Why, for the record
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
        /// The phase to go back to
        #[arg(long, value_name = "PHASE", default_value = "baseline", value_parser = phase)]
        to: eb_rollout::Phase,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Receipt {
    /// By the event's id
    #[arg(long, value_name = "ID")]
    pub(crate) event_id: Option<String>,
    /// By the receipt's own id, 32 hex digits
    #[arg(long, value_name = "HEX32")]
    pub(crate) receipt_id: Option<String>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Profile {
    /// Check a profile and everything it refers to; changes nothing
    Check,
    /// Show a profile as resolved, with where each value came from; secrets stay masked
    Show,
}

fn partition(text: &str) -> Result<PartitionId, String> {
    text.parse().map(PartitionId).map_err(|_| "a partition is a number from 0".to_owned())
}

fn phase(text: &str) -> Result<eb_rollout::Phase, String> {
    text.parse().map_err(|_| "use baseline, dual_write, new_primary or new_only".to_owned())
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|e| e.to_string())
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "earliest" => Ok(From::Earliest),
        "latest" => Ok(From::Latest),
        _ => Timestamp::parse(text)
            .map(From::Time)
            .map_err(|e| format!("neither earliest nor latest, and {e}")),
    }
}
