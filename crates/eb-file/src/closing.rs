//! The end of a reader, for those who wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use eb_contract::{Error, ErrorKind, Result};
use parking_lot::Mutex;

/// Whether a reader was closed, and a bell for its cursors.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    next_waiter: u64,
    waiting: Vec<(u64, Waker)>,
}

impl Closing {
    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        if self.state.lock().closed {
            return Err(Error::new(ErrorKind::Closed, op, "this reader was closed")
                .advise("take a new one from the bus"));
        }
        Ok(())
    }

    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Done once the reader is closed. Dropping it leaves nothing behind.
    pub(crate) fn closed(&self) -> Closed<'_> {
        Closed { closing: self, id: None }
    }
}

/// See [`Closing::closed`].
pub(crate) struct Closed<'a> {
    closing: &'a Closing,
    id: Option<u64>,
}

impl Future for Closed<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.closing.state.lock();
        if state.closed {
            return Poll::Ready(());
        }
        let id = self.id.unwrap_or_else(|| {
            state.next_waiter += 1;
            state.next_waiter
        });
        match state.waiting.iter_mut().find(|(waiter, _)| *waiter == id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => state.waiting.push((id, cx.waker().clone())),
        }
        drop(state);
        self.id = Some(id);
        Poll::Pending
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.closing.state.lock().waiting.retain(|(waiter, _)| *waiter != id);
        }
    }
}
