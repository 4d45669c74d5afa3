//! The keeper's side.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::command::{self, Ended, Groups, Job, Spec};
use super::frame::{self, News, Order};
use super::moment::Moment;

/// The first argument that makes this program a keeper. Nobody types it: it is not in the help.
pub(super) const WORD: &str = "keep-commands";
/// How many news may wait to be read.
const NEWS: usize = 64;

/// How the command is told to the keeper.
pub(super) fn arguments(spec: &Spec) -> Vec<OsString> {
    let timeout = spec.timeout.unwrap_or_default().as_secs().to_string();
    let shell = if spec.shell { "shell" } else { "direct" };
    let words = spec.words.iter().map(OsString::from);
    [WORD, &timeout, shell].map(OsString::from).into_iter().chain(words).collect()
}

fn spec(mut arguments: impl Iterator<Item = OsString>) -> Option<Spec> {
    let mut next = || arguments.next()?.into_string().ok();
    if next()? != WORD {
        return None;
    }
    let (timeout, shell) = (next()?.parse().ok()?, next()? == "shell");
    let timeout = (timeout > 0).then(|| Duration::from_secs(timeout));
    let words: Vec<_> = std::iter::from_fn(next).collect();
    (!words.is_empty()).then_some(Spec { words, shell, timeout })
}

/// Keeps commands, if this process was started to do that: the exit code then.
pub(crate) fn asked_for(arguments: impl Iterator<Item = OsString>) -> Option<i32> {
    let spec = spec(arguments)?;
    match keep(spec) {
        Ok(()) => Some(0),
        Err(e) => {
            let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("eb: {WORD}: {e}\n"));
            Some(1)
        }
    }
}

fn keep(spec: Spec) -> io::Result<()> {
    let wire = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails where standard input is no socket: somebody has typed the word after all.
    wire.peer_addr()?;
    wire.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(spec, wire))
}

/// Once heard, a signal does not end the process any more; commands are started with the default all the same.
fn heed_no_signals() -> io::Result<[Signal; 3]> {
    Ok([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?])
}

/// A command that runs.
struct Kept {
    task: AbortHandle,
    /// When it is to be killed.
    until: watch::Sender<Option<Moment>>,
}

/// Until the moment has come, put off as often as it may be.
async fn over(mut until: watch::Receiver<Option<Moment>>) {
    loop {
        let left = until.borrow_and_update().map(Moment::left);
        let passed = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            put_off = until.changed() => {
                if put_off.is_err() {
                    // Its end is on its way.
                    std::future::pending::<()>().await;
                }
            }
            () = passed => return,
        }
    }
}

async fn serve(spec: Spec, wire: UnixStream) -> io::Result<()> {
    let _unheeded = heed_no_signals()?;
    let (mut from, mut to) = tokio::net::UnixStream::from_std(wire)?.into_split();
    let (tell, mut told) = mpsc::channel::<News>(NEWS);
    tokio::spawn(async move {
        while let Some(news) = told.recv().await {
            // Whoever does not listen any more is found to have gone below.
            let _ = frame::write(&mut to, &news, &[]).await;
        }
    });
    let (spec, groups) = (Arc::new(spec), Groups::default());
    let running: Arc<Mutex<HashMap<u64, Kept>>> = Arc::default();
    let ended = loop {
        match frame::read(&mut from).await {
            Ok(Some((Order::Run { id, env, until }, envelope))) => {
                let job = Job { env, envelope: envelope.into() };
                let (spec, groups, tell) = (Arc::clone(&spec), groups.clone(), tell.clone());
                let all = Arc::clone(&running);
                let (until, ends) = watch::channel(until);
                // One thread: it does not run before it stands in the list.
                let task = tokio::spawn(async move {
                    let started = async |leader| drop(tell.send(News::Started { id, leader }).await);
                    // Dropped where it is, a command is killed with its group.
                    let ended = tokio::select! { biased;
                        () = over(ends) => Ended::LeaseOver,
                        ended = command::run(&spec, job, &groups, started) => ended,
                    };
                    all.lock().remove(&id);
                    let _ = tell.send(News::Ended { id, ended }).await;
                });
                running.lock().insert(id, Kept { task: task.abort_handle(), until });
            }
            Ok(Some((Order::Until { id, until }, _))) => {
                if let Some(kept) = running.lock().get(&id) {
                    kept.until.send_replace(Some(until));
                }
            }
            Ok(Some((Order::Kill { id }, _))) => {
                if let Some(kept) = running.lock().remove(&id) {
                    kept.task.abort();
                }
            }
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    // The connection has ended, and with it whoever asked for these.
    groups.kill_all();
    match ended {
        // How a connection ends whose other end was killed with something unread.
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        ended => ended,
    }
}
