//! Waiting for a time, whatever runtime the caller uses: one thread that is there while someone waits.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long the thread stays without work.
const IDLE: Duration = Duration::from_secs(10);

/// When, and a number that tells sleepers of the same moment apart.
type Turn = (Instant, u64);

#[derive(Default)]
struct Clock {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    sleepers: BTreeMap<Turn, Waker>,
    last_number: u64,
    running: bool,
}

fn clock() -> &'static Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK.get_or_init(Clock::default)
}

impl Clock {
    /// Wakes at `at`; `None` when there is no thread that could.
    fn set(&'static self, at: Instant, waker: Waker) -> Option<Turn> {
        let mut state = self.state.lock();
        if !state.running {
            thread::Builder::new().name("eb-file clock".to_owned()).spawn(|| self.run()).ok()?;
            state.running = true;
        }
        state.last_number += 1;
        let turn = (at, state.last_number);
        state.sleepers.insert(turn, waker);
        if state.sleepers.first_key_value().is_some_and(|(first, _)| *first == turn) {
            self.changed.notify_one();
        }
        Some(turn)
    }

    /// Gives a sleeper that still waits another waker; whether it does.
    fn change(&self, turn: &Turn, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        state.sleepers.get_mut(turn).map(|w| w.clone_from(waker)).is_some()
    }

    fn forget(&self, turn: &Turn) {
        let waker = self.state.lock().sleepers.remove(turn);
        drop(waker);
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            let next = state.sleepers.first_key_value().map(|((at, _), _)| *at);
            match next {
                Some(at) if at <= Instant::now() => {
                    let sleeper = state.sleepers.pop_first();
                    drop(state);
                    if let Some((_, waker)) = sleeper {
                        waker.wake();
                    }
                    state = self.state.lock();
                }
                Some(at) => _ = self.changed.wait_until(&mut state, at),
                None => {
                    let idle = self.changed.wait_for(&mut state, IDLE).timed_out();
                    if idle && state.sleepers.is_empty() {
                        state.running = false;
                        return;
                    }
                }
            }
        }
    }
}

/// Done at a time. Dropping it leaves nothing behind.
pub(crate) struct Sleep {
    /// `None` never comes.
    at: Option<Instant>,
    turn: Option<Turn>,
}

/// A future that is done `after` this long; a time beyond what the clock can count never comes.
pub(crate) fn sleep(after: Duration) -> Sleep {
    sleep_until(Instant::now().checked_add(after))
}

/// A future that is done at this time, or never.
pub(crate) fn sleep_until(at: Option<Instant>) -> Sleep {
    Sleep { at, turn: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if Instant::now() >= at {
            return Poll::Ready(());
        }
        if !self.turn.is_some_and(|turn| clock().change(&turn, cx.waker())) {
            self.turn = clock().set(at, cx.waker().clone());
            if self.turn.is_none() {
                // Without a clock thread, waiting turns into asking again and again: slow, and right.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(turn) = &self.turn {
            clock().forget(turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on::block_on;
    use futures_util::future::join_all;

    #[test]
    fn sleepers_wake_no_earlier_than_asked_in_any_order() {
        let start = Instant::now();
        let sleeps = [30u64, 1, 0, 15, 15].map(|ms| async move {
            sleep(Duration::from_millis(ms)).await;
            (ms, start.elapsed())
        });
        for (ms, elapsed) in block_on(join_all(sleeps)) {
            assert!(elapsed >= Duration::from_millis(ms));
        }
    }

    #[test]
    fn a_time_that_never_comes_is_waited_for_without_fuss() {
        let mut never = sleep(Duration::MAX);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut never).poll(&mut cx).is_pending());
        drop(sleep(Duration::from_secs(3600)));
    }
}
