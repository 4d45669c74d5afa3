//! Waiting at the head: on a connection apart while there are some, otherwise by looking again.

use std::time::Duration;

use eb_contract::Offset;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::config::ReadConfig;
use crate::link::{Link, Session};

const OP: &str = "wait";

/// How long one call blocks at most: a topic that is deleted wakes nobody.
const AT_ONCE: Duration = Duration::from_secs(2);

pub(crate) struct Waits {
    permits: Semaphore,
    poll_every: Duration,
    /// Connections that nothing is under way on.
    idle: Mutex<Vec<Session>>,
}

impl Waits {
    pub(crate) fn new(config: &ReadConfig) -> Self {
        Self {
            permits: Semaphore::new(config.waiting_connections),
            poll_every: config.poll_every,
            idle: Mutex::default(),
        }
    }

    pub(super) fn close(&self) {
        self.idle.lock().clear();
    }

    /// Comes back when the stream may have an entry behind `after`, or the deadline is there, or nobody knows: the caller
    /// looks again, and is told what is wrong then. Dropping the future ends its call on the server.
    pub(crate) async fn wait(&self, link: &Link, stream: &str, after: Offset, deadline: Option<Instant>) {
        let left = deadline.map_or(AT_ONCE, |d| d.saturating_duration_since(Instant::now())).min(AT_ONCE);
        let Ok(_permit) = self.permits.try_acquire() else {
            return sleep(left.min(self.poll_every)).await;
        };
        let idle = self.idle.lock().pop();
        let session = match idle {
            Some(session) => session,
            None => match link.apart(OP).await {
                Ok(session) => session,
                Err(e) => {
                    tracing::debug!("{e}");
                    return sleep(left.min(self.poll_every)).await;
                }
            },
        };
        // For ever is what the server takes 0 for.
        let block = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut cmd = Cmd::new();
        cmd.arg("XREAD").arg("COUNT").arg(1).arg("BLOCK").arg(block);
        cmd.arg("STREAMS").arg(stream).arg(after.to_string());
        match session.blocking(&cmd, left).await {
            Ok(Value::ServerError(e)) => tracing::debug!("waiting was refused: {e}"),
            Ok(_) => return self.idle.lock().push(session),
            // A connection that broke while it was idle or blocked says nothing of the server now.
            Err(_) => {}
        }
        sleep(left.min(self.poll_every)).await;
    }
}
