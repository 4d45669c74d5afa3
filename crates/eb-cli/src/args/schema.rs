//! Arguments of `eb schema` and `eb lint`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Schema {
    /// List event types and versions, and what each version keeps of the one before it
    List {
        /// The folder of schemas [default: config/schemas/events here or above, then the built-in one]
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    /// Check every schema, the lock, and that each version is compatible with the one before it
    ///
    /// Versions with the same first number owe each other the required compatibility; a new first number starts afresh. What
    /// cannot be told is not taken for compatible.
    Check {
        /// The folder of schemas [default: config/schemas/events here or above, then the built-in one]
        #[arg(value_name = "FOLDER")]
        dir: Option<PathBuf>,
        #[command(flatten)]
        require: Require,
        /// An earlier lock, of which nothing may be lost (git show origin/main:config/schemas/events.lock > FILE)
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
    },
    /// Say what differs between two versions, and whom each difference breaks
    Diff {
        /// The event type
        event_type: String,
        /// The earlier version
        from: String,
        /// The later version
        to: String,
        /// The folder of schemas [default: config/schemas/events here or above, then the built-in one]
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    /// Release every version that is not released yet: from then on it never changes
    ///
    /// Refuses while `eb schema check` finds anything but versions that are not released.
    Lock {
        /// The folder of schemas [default: config/schemas/events here or above]
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
        #[command(flatten)]
        require: Require,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Require {
    /// What a version owes to the one before it: none, backward (old events fit the new version), forward (new events fit the
    /// old version) or full
    #[arg(long, value_name = "WHAT", default_value = "backward")]
    pub(crate) require: eb_schema::Requirement,
}

#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// The repository, a folder in it, or one source file
    #[arg(default_value = ".", value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// The rules and exceptions [default: charter.toml in PATH, then the built-in ones: nothing may publish past the gate]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}
