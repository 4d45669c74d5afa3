//! A bound on the bytes that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many bytes may wait at once; more only alone.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    used: Arc<AtomicUsize>,
    max: usize,
}

/// Bytes that wait, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    pub(crate) fn new(max: usize) -> Self {
        Self { used: Arc::default(), max }
    }

    /// `None` when there is no room now. What is larger than the whole is let in when nothing else waits.
    pub(crate) fn hold(&self, bytes: usize) -> Option<Held> {
        let more = |used: usize| {
            let all = used.saturating_add(bytes);
            (used == 0 || all <= self.max).then_some(all)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Held { used: Arc::clone(&self.used), bytes })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
