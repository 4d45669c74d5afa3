//! Ctrl-C and SIGTERM, asked for politely first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::failure::Failure;

/// A request to stop that a command looks for at a good moment. A second one ends the program at once.
#[derive(Clone)]
pub(crate) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    asked: AtomicBool,
    notify: Notify,
}

impl Stop {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Self::listen_and(|| {})
    }

    /// Listens from now on; `at_once` is done before a second request ends the program.
    pub(crate) fn listen_and(at_once: impl FnOnce() + Send + 'static) -> Result<Self, Failure> {
        let stop = Self { shared: Arc::default() };
        let mut signals =
            Signals::new().map_err(|e| Failure::failed("io", format!("cannot listen for signals: {e}")))?;
        let asker = stop.clone();
        tokio::spawn(async move {
            signals.next().await;
            asker.ask();
            signals.next().await;
            at_once();
            // What is not ACKed was never promised: leaving at once loses nothing that anybody was told of.
            std::process::exit(130);
        });
        Ok(stop)
    }

    /// One that only a test asks for.
    #[cfg(test)]
    pub(crate) fn deaf() -> Self {
        Self { shared: Arc::default() }
    }

    /// Asks for it.
    pub(crate) fn ask(&self) {
        self.shared.asked.store(true, Ordering::SeqCst);
        self.shared.notify.notify_waiters();
    }

    /// Whether it was asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Waits until it is asked for. Dropping the future changes nothing.
    pub(crate) async fn asked(&self) {
        let notified = self.shared.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_asked() {
            notified.await;
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        let (interrupt, terminate) = (self.interrupt.recv(), self.terminate.recv());
        tokio::pin!(interrupt, terminate);
        futures_util::future::select(interrupt, terminate).await;
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // No way to hear of it: never ask to stop.
            std::future::pending::<()>().await;
        }
    }
}
