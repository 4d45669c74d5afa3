//! Our side: orders to the keeper, and what it tells.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use eb_consumer::Hold;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

use super::command::{Ended, Job, Spec, kill_group};
use super::frame::{self, News, Order};
use super::keeper;
use super::moment::Moment;

/// How many orders may wait to be written. The place of each one's `Kill` is kept with its `Run`.
const ORDERS: usize = 4096;
/// How long the keeper may take to kill everything when we leave at once.
const LEAVING: Duration = Duration::from_secs(5);

/// How long before the end of a lease its commands are killed: what the keeper may take to wake up and do it.
const MARGIN: Duration = Duration::from_millis(500);

/// The keeper of our commands: started with the first of them, and anew when it has ended.
#[derive(Clone, Default)]
pub(crate) struct Keeper {
    line: Arc<Mutex<Option<Arc<Line>>>>,
}

impl Keeper {
    /// Kills all commands, with their children. Blocks until they are.
    pub(crate) fn kill_all(&self) {
        if let Some(line) = self.line.lock().take() {
            line.hang_up();
        }
    }

    /// Runs a command to its end, or to the end of the lease that `hold` speaks of. Dropping the future kills it.
    pub(super) async fn run(&self, spec: &Spec, job: Job, hold: Option<Hold>) -> Ended {
        match self.line(spec) {
            Ok(line) => line.run(job, hold).await,
            Err(e) => Ended::NotStarted(format!("cannot start the process that keeps commands: {e}")),
        }
    }

    fn line(&self, spec: &Spec) -> io::Result<Arc<Line>> {
        let mut line = self.line.lock();
        match &*line {
            Some(line) if line.is_live() => Ok(Arc::clone(line)),
            _ => Ok(Arc::clone(line.insert(Arc::new(Line::open(spec)?)))),
        }
    }
}

/// The connection to one keeper.
struct Line {
    orders: mpsc::Sender<(Order, Bytes)>,
    waiting: Arc<Waiting>,
    last: AtomicU64,
    /// For hanging up from anywhere.
    wire: UnixStream,
    /// Reaped by the runtime, once it has ended.
    _keeper: Child,
}

/// The commands that were ordered and have not ended; `None` when the keeper has.
struct Waiting(Mutex<Option<HashMap<u64, Ordered>>>);

struct Ordered {
    leader: Option<u32>,
    answer: oneshot::Sender<Ended>,
}

impl Line {
    fn open(spec: &Spec) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = std::process::Command::new(this_program()?);
        command.arg0("eb").args(keeper::arguments(spec)).process_group(0);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let keeper = tokio::process::Command::from(command).spawn()?;
        ours.set_nonblocking(true)?;
        let (from, to) = tokio::net::UnixStream::from_std(ours.try_clone()?)?.into_split();
        let (orders, written) = mpsc::channel(ORDERS);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        tokio::spawn(write(written, to));
        tokio::spawn(listen(from, Arc::clone(&waiting)));
        Ok(Self { orders, waiting, last: AtomicU64::new(0), wire: ours, _keeper: keeper })
    }

    fn is_live(&self) -> bool {
        self.waiting.0.lock().is_some()
    }

    async fn run(&self, job: Job, mut hold: Option<Hold>) -> Ended {
        let gone = || {
            Ended::NotStarted(
                "the process that keeps commands has ended, and its commands with it".to_owned(),
            )
        };
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        // Both places at once: whoever drops this must be able to have it killed.
        let (Ok(order), Ok(kill)) = (self.orders.reserve().await, self.orders.clone().reserve_owned().await)
        else {
            return gone();
        };
        let (answer, mut answered) = oneshot::channel();
        match &mut *self.waiting.0.lock() {
            Some(waiting) => waiting.insert(id, Ordered { leader: None, answer }),
            None => return gone(),
        };
        let _unless_dropped = KillOnDrop { id, kill: Some(kill), waiting: &self.waiting };
        let until = hold.as_ref().map(|hold| killed_at(hold.ends()));
        order.send((Order::Run { id, env: job.env, until }, job.envelope));
        loop {
            let ends = tokio::select! { biased;
                ended = &mut answered => return ended.unwrap_or_else(|_| gone()),
                ends = renewed(&mut hold) => ends,
            };
            // Where nobody takes it any more, the answer tells.
            let _ = self.orders.send((Order::Until { id, until: killed_at(ends) }, Bytes::new())).await;
        }
    }

    /// Ends the connection, and waits until the keeper has: it kills everything first.
    fn hang_up(&self) {
        // It has ended already where this fails.
        let _ = self.wire.shutdown(Shutdown::Write);
        let patience = Timespec { tv_sec: LEAVING.as_secs().cast_signed(), tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&self.wire, PollFlags::empty())], Some(&patience));
    }
}

async fn renewed(hold: &mut Option<Hold>) -> Instant {
    match hold {
        Some(hold) => hold.changed().await,
        None => std::future::pending().await,
    }
}

/// When the commands of a lease that ends then are killed, unless it is renewed.
fn killed_at(ends: Instant) -> Moment {
    Moment::before(ends, MARGIN)
}

/// Has a command killed, unless its end was told.
struct KillOnDrop<'w> {
    id: u64,
    kill: Option<mpsc::OwnedPermit<(Order, Bytes)>>,
    waiting: &'w Waiting,
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        let runs = self.waiting.0.lock().as_mut().is_some_and(|waiting| waiting.remove(&self.id).is_some());
        if let (true, Some(kill)) = (runs, self.kill.take()) {
            kill.send((Order::Kill { id: self.id }, Bytes::new()));
        }
    }
}

async fn write(mut orders: mpsc::Receiver<(Order, Bytes)>, mut to: OwnedWriteHalf) {
    while let Some((order, envelope)) = orders.recv().await {
        if frame::write(&mut to, &order, &envelope).await.is_err() {
            // The reading side finds that the keeper has ended.
            return;
        }
    }
}

/// Takes in what the keeper tells, until it ends. What it has not killed then, nobody else will.
async fn listen(mut from: OwnedReadHalf, waiting: Arc<Waiting>) {
    loop {
        let news = match frame::read(&mut from).await {
            Ok(Some((news, _))) => news,
            Ok(None) | Err(_) => break,
        };
        let mut waiting = waiting.0.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        match news {
            News::Started { id, leader } => {
                if let Some(ordered) = waiting.get_mut(&id) {
                    ordered.leader = Some(leader);
                }
            }
            News::Ended { id, ended } => {
                if let Some(ordered) = waiting.remove(&id) {
                    // Nobody waits where the future was dropped just now.
                    let _ = ordered.answer.send(ended);
                }
            }
        }
    }
    let left = waiting.0.lock().take();
    left.into_iter().flatten().filter_map(|(_, ordered)| ordered.leader).for_each(kill_group);
}

/// This very program, also after its file was replaced.
fn this_program() -> io::Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    if cfg!(target_os = "linux") && running.exists() { Ok(running) } else { std::env::current_exe() }
}
