//! What the writer of a partition shares with the readers of the same process.
//!
//! One [`TailState`] per open partition: how far the log is synced, and who waits for it to grow. The writer moves it
//! after each sync, before it ACKs; readers never go past it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::format::sidecar::Position;

/// How far a log is synced, for the readers of this process, and a bell for when that changes.
#[derive(Debug)]
pub struct TailState {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    synced: Position,
    /// The writer is gone: closed, poisoned or dropped. What comes later is another writer's.
    ended: bool,
    next_waiter: u64,
    /// Few: the followers of one partition.
    waiting: Vec<(u64, Waker)>,
}

/// Why a wait came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailEvent {
    /// There is something at or past the offset that was waited for.
    Grown(Position),
    /// The writer is gone; this is as far as it got. Ask the bus for the partition's tail again.
    Ended(Position),
}

impl TailState {
    /// A log that is synced up to here.
    #[must_use]
    pub fn new(synced: Position) -> Self {
        Self { inner: Mutex::new(Inner { synced, ended: false, next_waiter: 0, waiting: Vec::new() }) }
    }

    /// Everything below is synced: offset and byte always belong together.
    #[must_use]
    pub fn synced(&self) -> Position {
        self.inner.lock().synced
    }

    /// Whether the writer is gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.inner.lock().ended
    }

    /// Moves the end forward, after a sync.
    pub fn advance(&self, synced: Position) {
        let wake = {
            let mut inner = self.inner.lock();
            debug_assert!(synced.next >= inner.synced.next && synced.bytes >= inner.synced.bytes);
            inner.synced = synced;
            std::mem::take(&mut inner.waiting)
        };
        wake.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Says that the writer is gone.
    pub fn end(&self) {
        let wake = {
            let mut inner = self.inner.lock();
            inner.ended = true;
            std::mem::take(&mut inner.waiting)
        };
        wake.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Waits until the record at `offset` is synced or the writer is gone. Dropping the future leaves nothing behind.
    pub fn wait_for(&self, offset: u64) -> WaitForTail<'_> {
        WaitForTail { state: self, offset, id: None }
    }
}

/// See [`TailState::wait_for`].
#[derive(Debug)]
pub struct WaitForTail<'a> {
    state: &'a TailState,
    offset: u64,
    id: Option<u64>,
}

impl Future for WaitForTail<'_> {
    type Output = TailEvent;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TailEvent> {
        let mut inner = self.state.inner.lock();
        if inner.synced.next > self.offset {
            return Poll::Ready(TailEvent::Grown(inner.synced));
        }
        if inner.ended {
            return Poll::Ready(TailEvent::Ended(inner.synced));
        }
        let id = self.id.unwrap_or_else(|| {
            inner.next_waiter += 1;
            inner.next_waiter
        });
        match inner.waiting.iter_mut().find(|(waiter, _)| *waiter == id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => inner.waiting.push((id, cx.waker().clone())),
        }
        drop(inner);
        self.id = Some(id);
        Poll::Pending
    }
}

impl Drop for WaitForTail<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.state.inner.lock().waiting.retain(|(waiter, _)| *waiter != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn at(next: u64) -> Position {
        Position { next, bytes: next * 10, last_time: None }
    }

    #[test]
    fn a_follower_is_woken_when_its_record_is_synced() {
        let state = TailState::new(at(3));
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let mut cx = Context::from_waker(&waker);
        assert_eq!(Pin::new(&mut state.wait_for(2)).poll(&mut cx), Poll::Ready(TailEvent::Grown(at(3))));

        let mut wait = state.wait_for(4);
        assert!(Pin::new(&mut wait).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut wait).poll(&mut cx).is_pending());
        state.advance(at(4));
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
        assert!(Pin::new(&mut wait).poll(&mut cx).is_pending(), "4 is the next, not yet there");
        state.advance(at(5));
        assert_eq!(Pin::new(&mut wait).poll(&mut cx), Poll::Ready(TailEvent::Grown(at(5))));
        assert_eq!(bell.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_dropped_wait_leaves_nothing_and_the_end_wakes_the_rest() {
        let state = TailState::new(at(0));
        let (gone, stays) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let (gone_waker, stays_waker) = (Waker::from(gone.clone()), Waker::from(stays.clone()));
        let mut first = state.wait_for(0);
        let mut second = state.wait_for(0);
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&gone_waker)).is_pending());
        assert!(Pin::new(&mut second).poll(&mut Context::from_waker(&stays_waker)).is_pending());
        drop(first);
        state.end();
        assert_eq!((gone.0.load(Ordering::SeqCst), stays.0.load(Ordering::SeqCst)), (0, 1));
        let poll = Pin::new(&mut second).poll(&mut Context::from_waker(&stays_waker));
        assert_eq!(poll, Poll::Ready(TailEvent::Ended(at(0))));
    }
}
