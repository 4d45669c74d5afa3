//! A gate that holds requests until the test opens it.

use std::sync::Arc;

use tokio::sync::watch;

/// Holds requests (or their answers) until it is opened; a clone is the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<State>>);

#[derive(Debug, Default)]
struct State {
    open: bool,
    permits: usize,
    arrived: usize,
    held: usize,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    /// Lets everything through, now and later.
    pub fn open(&self) {
        self.0.send_modify(|s| s.open = true);
    }

    /// Holds whoever comes from now on.
    pub fn close(&self) {
        self.0.send_modify(|s| {
            s.open = false;
            s.permits = 0;
        });
    }

    /// Lets `n` through, held already or yet to come.
    pub fn let_through(&self, n: usize) {
        self.0.send_modify(|s| s.permits += n);
    }

    /// How many are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.borrow().held
    }

    /// Waits until `n` have come to the gate since it was made. Dropping the future changes nothing.
    pub async fn reached(&self, n: usize) {
        let mut state = self.0.subscribe();
        // An error would mean that the sender is gone, and `self` holds it.
        drop(state.wait_for(|s| s.arrived >= n).await);
    }

    pub(super) async fn pass(&self) {
        let mut state = self.0.subscribe();
        self.0.send_modify(|s| {
            s.arrived += 1;
            s.held += 1;
        });
        let _left = Held(self);
        loop {
            drop(state.wait_for(|s| s.open || s.permits > 0).await);
            let passes = self.0.send_if_modified(|s| {
                if !s.open && s.permits > 0 {
                    s.permits -= 1;
                    return true;
                }
                s.open
            });
            if passes {
                return;
            }
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts a waiter out, also when its future is dropped.
struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|s| s.held -= 1);
    }
}
