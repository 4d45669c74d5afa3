//! What a shard gives to all its readers together: so many calls and bytes a second.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::config::Rate;

/// Paces the calls of one kind on one shard, for everybody who holds it.
///
/// Calls: at most `ceil(rate)` in any window of `ceil(rate) / rate` seconds, which is the service's own rule; a bucket
/// that only refills evenly would let twice as many through in its first second. Bytes: a bucket of one second's worth.
/// How many an answer has is known only when it is there, so they are paid afterwards, and a page of five seconds' worth
/// holds the next call back for four, as the service does.
pub(crate) struct Pace {
    rate: Option<Rate>,
    state: Mutex<State>,
}

struct State {
    /// When the last calls went out, oldest first; no more than a window holds.
    calls: VecDeque<Instant>,
    /// Bytes that are not paid off yet, as of `paid_at`.
    owed: f64,
    paid_at: Instant,
    /// Before this nobody may call: the service has throttled.
    closed_until: Instant,
}

impl Pace {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        let now = Instant::now();
        let state = State { calls: VecDeque::new(), owed: 0.0, paid_at: now, closed_until: now };
        Self { rate, state: Mutex::new(state) }
    }

    /// Waits for a turn and takes it. Dropping the future takes none.
    pub(crate) async fn turn(&self) {
        while let Err(at) = self.try_turn(Instant::now()) {
            sleep_until(at).await;
        }
    }

    fn try_turn(&self, now: Instant) -> Result<(), Instant> {
        let mut state = self.state.lock();
        if state.closed_until > now {
            return Err(state.closed_until);
        }
        let Some(rate) = self.rate else { return Ok(()) };
        state.pay(rate, now);
        let too_much = state.owed - rate.bytes;
        if too_much > 0.0 {
            // Rounded up, so that waking at that time is not a moment early.
            return Err(now + Duration::from_secs_f64(too_much / rate.bytes) + Duration::from_millis(1));
        }
        let (most, window) = window(rate);
        if state.calls.len() >= most
            && let Some(free) = state.calls.front().map(|at| *at + window)
        {
            if free > now {
                return Err(free);
            }
            state.calls.pop_front();
        }
        state.calls.push_back(now);
        Ok(())
    }

    /// An answer brought this many bytes.
    pub(crate) fn brought(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let mut state = self.state.lock();
        state.pay(rate, Instant::now());
        state.owed += bytes as f64;
    }

    /// The service said that it was too much: nobody calls for this long.
    pub(crate) fn throttled(&self, pause: Duration) {
        let mut state = self.state.lock();
        state.closed_until = state.closed_until.max(Instant::now() + pause);
    }
}

impl State {
    fn pay(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.paid_at);
        self.owed = (self.owed - passed.as_secs_f64() * rate.bytes).max(0.0);
        self.paid_at = now;
    }
}

/// How many calls fit in a window of which length. Past a thousand a second windows of a thousand do as well.
fn window(rate: Rate) -> (usize, Duration) {
    let most = rate.calls_or_records.ceil().clamp(1.0, 1_000.0);
    (most as usize, Duration::from_secs_f64(most / rate.calls_or_records))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aws() -> Pace {
        Pace::new(Some(Rate { calls_or_records: 5.0, bytes: 2_000_000.0 }))
    }

    /// When each of `n` turns is given, in milliseconds from now.
    async fn turns(pace: &Pace, n: usize) -> Vec<u128> {
        let start = Instant::now();
        let mut at = Vec::new();
        for _ in 0..n {
            pace.turn().await;
            at.push(start.elapsed().as_millis());
        }
        at
    }

    #[tokio::test(start_paused = true)]
    async fn five_calls_come_at_once_and_no_window_of_a_second_has_six() {
        let at = turns(&aws(), 16).await;
        assert_eq!(at[..5], [0; 5]);
        assert!(at.windows(6).all(|w| w[5] - w[0] >= 1_000), "{at:?}");
        assert!(at[15] <= 3_010, "{at:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_of_ten_megabytes_holds_the_shard_for_four_seconds() {
        let pace = aws();
        pace.turn().await;
        pace.brought(10_000_000);
        let at = turns(&pace, 2).await;
        assert!((4_000..4_050).contains(&at[0]), "{at:?}");
        // Both calls found the bucket open: what they bring is not known yet.
        assert_eq!(at[0], at[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_rate_is_kept_too() {
        let pace = Pace::new(Some(Rate { calls_or_records: 2.5, bytes: 1e6 }));
        let at = turns(&pace, 7).await;
        assert!(at.windows(4).all(|w| w[3] - w[0] >= 1_199), "{at:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_shard_is_left_alone_by_everybody() {
        let pace = Pace::new(None);
        assert_eq!(turns(&pace, 3).await, [0; 3]);
        pace.throttled(Duration::from_millis(700));
        assert_eq!(turns(&pace, 2).await[0], 700);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_takes_no_turn() {
        let pace = aws();
        turns(&pace, 5).await;
        for _ in 0..100 {
            assert!(tokio::time::timeout(Duration::from_millis(1), pace.turn()).await.is_err());
        }
        assert_eq!(turns(&pace, 1).await, [900]);
    }
}
