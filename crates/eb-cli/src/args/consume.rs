//! The commands of consumers.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use eb_contract::{ConsumerName, PartitionKey, Topic};

use super::{From, from};

/// Which command is run for an event, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Exec {
    /// The command and its arguments, up to the end of the line or a lone `;`. No shell takes part
    ///
    /// It gets the envelope on standard input and EB_EVENT_ID, EB_EVENT_TYPE, EB_TOPIC, EB_PARTITION, EB_OFFSET, EB_OFFSET_KIND, EB_KEY,
    /// EB_PUBLISHED_AT, EB_CONSUMER and EB_ATTEMPT in its environment. Exit code 0: done. 75, or killed by a signal: tried again.
    /// Any other: a dead letter, with the end of its standard error.
    #[arg(long, value_name = "CMD", required = true, num_args = 1.., allow_hyphen_values = true, value_terminator = ";")]
    pub(crate) exec: Vec<String>,
    /// Let `sh -c` run the command; the exit codes 126 and 127 then mean that it could not be run, and it is tried again
    #[arg(long)]
    pub(crate) shell: bool,
    /// How long a command may run, in seconds; then it is killed with all its children, and tried again. 0: as long as it likes
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    /// A topic; give it again for more
    #[arg(long, required = true)]
    pub(crate) topic: Vec<Topic>,
    /// Only events of this type, others count as done; give it again for more [default: all types]
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) types: Vec<String>,
    /// Whose checkpoints, marks and dead letters they are. Processes of one name share the partitions: give each job a name of its own
    #[arg(long, value_name = "NAME", default_value = "eb-subscribe")]
    pub(crate) name: ConsumerName,
    /// Where to start when it is run for the first time: earliest, latest or a time
    #[arg(long, value_name = "earliest|latest|TIME", default_value = "earliest", value_parser = from)]
    pub(crate) from: From,
    /// Stop once everything up to the head is finished, instead of waiting for more; exit code 3 says that there are new dead letters
    #[arg(long)]
    pub(crate) until_head: bool,
    /// How many commands may run at once; those of one key never do
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// How long the partitions of a process that died, or hangs, stay unread, in seconds; commands of one that hangs are killed before
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub(crate) lease: u64,
    /// How often a command is run for an event that fails; 0: until it succeeds
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Retries")]
    pub(crate) max_attempts: u32,
    /// And then: a dead letter and on with the key; a dead letter with the rest of the key put behind it; or halt the partition
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = AfterMax::DeadLetter, help_heading = "Retries")]
    pub(crate) after_max: AfterMax,
    /// How the delay between attempts grows
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Backoff::Exponential, help_heading = "Retries")]
    pub(crate) backoff: Backoff,
    /// The first delay, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=86_400_000), help_heading = "Retries")]
    pub(crate) delay_ms: u64,
    /// The longest delay, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=86_400_000), help_heading = "Retries")]
    pub(crate) max_delay_ms: u64,
    /// How much of a delay is left to chance, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u8).range(0..=25), help_heading = "Retries")]
    pub(crate) jitter: u8,
    /// How long running commands may go on after Ctrl-C, in seconds; a second Ctrl-C kills them at once
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) grace: u64,
    #[command(flatten)]
    pub(crate) exec: Exec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AfterMax {
    DeadLetter,
    Park,
    Halt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backoff {
    Exponential,
    Linear,
    Fibonacci,
    Fixed,
}

#[derive(Debug, Args)]
pub(crate) struct Consumers {
    /// One consumer only [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<ConsumerName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// List dead letters, oldest first
    List {
        #[command(flatten)]
        which: Which,
        /// Also those that were retried with success, or dropped
        #[arg(long)]
        all: bool,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        max: usize,
    },
    /// Show one dead letter with its errors; with --envelope the event itself, as it was published
    Show {
        /// Its number
        id: u64,
        /// Nothing but the envelope's bytes
        #[arg(long)]
        envelope: bool,
    },
    /// Run the command again for dead letters, oldest first, once each; what succeeds is resolved
    ///
    /// Letters of a parked key are tried in their order, and when one fails, those behind it are not.
    Retry {
        /// Its number [default: all that the options choose]
        id: Option<u64>,
        /// Whose
        #[arg(long, value_name = "NAME", default_value = "eb-subscribe")]
        name: ConsumerName,
        /// Of one topic
        #[arg(long, conflicts_with = "id")]
        topic: Option<Topic>,
        /// Of one key
        #[arg(long, conflicts_with = "id")]
        key: Option<PartitionKey>,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "eb dlq retry")]
        reason: String,
        #[command(flatten)]
        exec: Exec,
    },
    /// Give a dead letter up for good; it stays as history
    Drop {
        /// Its number
        id: u64,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Of one consumer
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<ConsumerName>,
    /// Of one topic
    #[arg(long)]
    pub(crate) topic: Option<Topic>,
    /// Of one key
    #[arg(long)]
    pub(crate) key: Option<PartitionKey>,
}
