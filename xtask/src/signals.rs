//! Ctrl-C and SIGTERM, as something to wait for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use futures_util::future::select;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Requests to end, from now on; by itself neither ends the program any more.
pub(crate) struct Signals {
    asked: Receiver<()>,
    _runtime: tokio::runtime::Runtime,
}

impl Signals {
    /// Begins to listen. A second request ends the program at once; what it holds is stopped all the same, by others.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build()?;
        let (ask, asked) = channel();
        let inside = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        drop(inside);
        runtime.spawn(async move {
            either(&mut interrupt, &mut terminate).await;
            if ask.send(()).is_ok() {
                either(&mut interrupt, &mut terminate).await;
            }
            std::process::exit(130);
        });
        Ok(Self { asked, _runtime: runtime })
    }

    /// Whether the end was asked for before the time is over.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        match self.asked.recv_timeout(time) {
            Ok(()) => true,
            // Nobody is left to tell: as good as asked.
            Err(e) => e == RecvTimeoutError::Disconnected,
        }
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    let (interrupt, terminate) = (interrupt.recv(), terminate.recv());
    let (interrupt, terminate) = (std::pin::pin!(interrupt), std::pin::pin!(terminate));
    select(interrupt, terminate).await;
}
