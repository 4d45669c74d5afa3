//! Running a command for an event, by a process that outlives us for as long as it takes to kill it.
//!
//! # Why a process of its own
//! A command that outlived a killed `eb subscribe` would go on beside the command of a later event of its key, once the lease has
//! moved: the order of the key would be broken from outside. So commands are not our children. One process, the *keeper*, starts
//! them all, each as the leader of a process group of its own, and is connected to us by a pair of sockets. Where that
//! connection ends, however we ended, the keeper kills every group and ends itself.
//!
//! | instead | why not |
//! |---|---|
//! | a keeper for each command | a second program to start for each event, as dear as the command itself |
//! | the death signal of the parent | it fires when the *thread* ends that spawned, on Linux alone, and spares the command's own children |
//! | groups that a standing keeper leads | a command would not lead its group: `timeout` and `set -m` leave it then, and `kill -- -$$` does not find it |
//! | telling a keeper what we have started | between the start and the telling nobody knows of the command |
//!
//! It costs little: 3,000 events one at a time, `/bin/true` for each, took 1.7 ms an event with the keeper and 1.6 ms without;
//! eight at once 1.6 and 1.2 ms (medians of three runs in turn; unoptimised, two busy cores).
//!
//! # Protocol
//! Frames in both directions ([`frame`]): `Run` with the environment, the envelope and the moment until which the lease allows it, `Until` with a
//! later moment each time the lease is renewed, `Kill`; back come `Started` with the group's leader and `Ended` with what became of it. The keeper leads a process group of its own and does not heed SIGINT, SIGTERM and
//! SIGHUP: it ends with its connection.
//!
//! # Who ends how
//! | what ends | what becomes of the commands |
//! |---|---|
//! | `eb`, by any signal or crash | killed with their groups, before anybody can take the lease |
//! | nothing, but `eb` is stopped (SIGSTOP, Ctrl-Z) or hangs, and renews no lease | killed by the keeper half a second before the lease ends; what it is still ordered to run is not started |
//! | a handler's future (the lease is lost, grace is over) | its command is killed with its group |
//! | the keeper, killed by hand | those that it told of are killed by us, and tried again by a new keeper |
//! | a command | what it left running in its group goes on; its group is forgotten |
//!
//! So no command runs beside one of the next holder of its partition, however `eb` ended or hangs, as long as the keeper runs: the lease's end is
//! counted on the machine's monotonic clock from before it was asked for, and is the keeper's to watch. Not covered: the keeper itself is stopped,
//! or gets no processor for half a second at that moment; the machine sleeps or is halted as a whole, for as long as it takes the keeper
//! to wake up after it; the clocks of this machine and of the store of leases run at different rates.
//!
//! # Time limits
//! `--timeout` is the one limit of a command, counted by the keeper from its start; when it is over the command is killed with its group, and the attempt has
//! failed once that is done. The consumer's own limit ([`Limits::handler_time`](eb_consumer::Limits::handler_time)) stays off: it would count the
//! way to the keeper, too, and let the next attempt begin while the command is still being killed.
//!
//! What starts a process group of its own, or a session, is not followed. Where there are no process groups (Windows) there is
//! no keeper: commands are our children, and a killed `eb` leaves them behind.

mod command;
#[cfg(unix)]
mod frame;
#[cfg(unix)]
pub(crate) mod keeper;
#[cfg(unix)]
mod kept;
#[cfg(unix)]
mod moment;

use std::time::Duration;

use bytes::Bytes;
use eb_consumer::{HandlerError, HandlerResult, RawEvent};
use eb_contract::ConsumerName;

use self::command::{Ended, Job, Spec};
use crate::args::consume::Exec;

/// What tells that a command should be tried again: `EX_TEMPFAIL` of sysexits.h.
const TRY_AGAIN: i32 = 75;

/// The commands that are running.
#[cfg(unix)]
pub(crate) type Running = kept::Keeper;
/// The commands that are running.
#[cfg(not(unix))]
pub(crate) type Running = command::Groups;

/// A command to be run for each event.
pub(crate) struct Runner {
    spec: Spec,
    consumer: ConsumerName,
    running: Running,
}

impl Runner {
    pub(crate) fn new(exec: &Exec, consumer: &ConsumerName, running: Running) -> Self {
        let timeout = (exec.timeout > 0).then(|| Duration::from_secs(exec.timeout));
        let spec = Spec { words: exec.exec.clone(), shell: exec.shell, timeout };
        Self { spec, consumer: consumer.clone(), running }
    }

    /// Runs it to its end. Dropping the future kills it, with its children.
    pub(crate) async fn run(&self, event: RawEvent) -> HandlerResult {
        let job = Job { env: self.variables(&event), envelope: Bytes::copy_from_slice(event.bytes()) };
        self.judge(self.running.run(&self.spec, job, event.hold().cloned()).await)
    }

    fn variables(&self, event: &RawEvent) -> Vec<(String, String)> {
        let place = event.eb_ref();
        [
            ("EB_CONSUMER", self.consumer.as_str().to_owned()),
            ("EB_EVENT_ID", variable(event.event_id())),
            ("EB_EVENT_TYPE", variable(event.event_type())),
            ("EB_TOPIC", place.topic.as_str().to_owned()),
            ("EB_PARTITION", place.partition_id.to_string()),
            ("EB_OFFSET", place.offset.to_string()),
            ("EB_OFFSET_KIND", place.offset.kind().to_string()),
            ("EB_KEY", variable(event.partition_key().as_str())),
            ("EB_PUBLISHED_AT", place.published_at_utc.to_string()),
            ("EB_ATTEMPT", event.attempt().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn judge(&self, ended: Ended) -> HandlerResult {
        let (code, how, said) = match ended {
            Ended::Exit { code, how, said } => (code, how, said),
            // Nothing is wrong with the event when its command cannot be started.
            Ended::NotStarted(why) => return Err(HandlerError::transient(why)),
            Ended::TimedOut => {
                let limit = self.spec.timeout.unwrap_or_default().as_secs();
                let what = format!("it ran longer than {limit} s and was killed");
                return Err(HandlerError::transient(what));
            }
            Ended::LeaseOver => {
                return Err(HandlerError::transient(
                    "its partition's lease was not renewed in time, and it was killed",
                ));
            }
        };
        let with = |what: String| if said.is_empty() { what } else { format!("{what}: {said}") };
        match code {
            Some(0) => Ok(()),
            Some(TRY_AGAIN) => Err(HandlerError::transient(with(format!("exit code {TRY_AGAIN}")))),
            Some(code @ (126 | 127)) if self.spec.shell => {
                Err(HandlerError::transient(with(format!("the shell could not run it (exit code {code})"))))
            }
            Some(code) => Err(HandlerError::permanent(with(format!("exit code {code}")))),
            None => Err(HandlerError::transient(with(format!("it was killed ({how})")))),
        }
    }
}

/// Environment variables cannot hold a zero byte.
fn variable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
