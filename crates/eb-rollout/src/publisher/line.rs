//! The one line in which calls wait while there is no lease.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use eb_contract::{BoxFuture, Error, ErrorKind, PublishRecord, Topic};
use futures_util::FutureExt;
use futures_util::future::ready;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answers, Core, Door, OP, refuse, send_all};
use crate::error::{closed, no_topic, waited};

/// How many calls of the line are let in at once before others may look at it.
const AT_ONCE: usize = 256;

#[derive(Default)]
pub(super) struct Line {
    calls: VecDeque<Call>,
    records: usize,
    bytes: usize,
    /// Why the first in line does not get in.
    pub(super) why: Option<Error>,
}

/// A call that waits.
pub(super) struct Call {
    topic: Topic,
    records: Vec<PublishRecord>,
    bytes: usize,
    since: Instant,
    answer: oneshot::Sender<BoxFuture<'static, Answers>>,
}

impl Core {
    /// Puts a call at the end.
    pub(super) fn line_up(&self, topic: &Topic, records: Vec<PublishRecord>) -> BoxFuture<'static, Answers> {
        let count = records.len();
        let bytes = records.iter().map(|r| r.envelope.len()).sum();
        let (answer, answered) = oneshot::channel();
        {
            let mut line = self.line.lock();
            if self.closed.load(Ordering::Acquire) {
                return ready(refuse(count, &closed(OP))).boxed();
            }
            let config = &self.shared.config;
            let full = line.records + count > config.max_waiting_records
                || line.bytes.saturating_add(bytes) > config.max_waiting_bytes;
            if full && !line.calls.is_empty() {
                let error = Error::new(
                    ErrorKind::Throttled { after: Some(self.shared.lease().length()) },
                    OP,
                    "as many records as may wait for a lease on the active bus are waiting",
                );
                return ready(refuse(count, &error.at(topic))).boxed();
            }
            line.records += count;
            line.bytes += bytes;
            let call = Call { topic: topic.clone(), records, bytes, since: Instant::now(), answer };
            line.calls.push_back(call);
            self.waiting.store(line.calls.len(), Ordering::Release);
        }
        self.wake.notify_one();
        async move {
            match answered.await {
                Ok(publishing) => publishing.await,
                // The runtime is going down.
                Err(_) => refuse(count, &closed(OP)),
            }
        }
        .boxed()
    }
}

/// Lets the line in, in order, as long as the lease holds.
pub(super) async fn let_in(core: &Arc<Core>, door: &Arc<Door>) {
    loop {
        let unknown_topic = {
            let mut line = core.line.lock();
            let mut unknown = None;
            for _ in 0..AT_ONCE {
                if !door.lease.is_valid(Instant::now()) {
                    return;
                }
                let Some(first) = line.calls.front() else {
                    line.why = None;
                    return;
                };
                let Some(base) = door.base(&first.topic) else {
                    unknown = Some((first.topic.clone(), first.since));
                    break;
                };
                let Some(call) = line.take(core) else { return };
                let publishing = send_all(core, door.clone(), base, &call.topic, call.records);
                // Nobody waits for it any more: it is under way all the same.
                let _ = call.answer.send(publishing);
            }
            unknown
        };
        if let Some((topic, since)) = unknown_topic {
            // Somebody may just have made it.
            match core.shared.refresh_since(since).await {
                Ok(now) if now.state.active_segment(&topic).is_none() && now.state.is_active() => {
                    let mut line = core.line.lock();
                    if line.calls.front().is_some_and(|c| c.topic == topic)
                        && let Some(call) = line.take(core)
                    {
                        call.refuse(&no_topic(OP, &topic));
                    }
                }
                // The door is renewed first.
                _ => return,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Refuses what has waited for too long; gives back since when the first in line waits.
pub(super) fn expire(core: &Core) -> Option<Instant> {
    let now = Instant::now();
    let mut line = core.line.lock();
    while let Some(first) = line.calls.front() {
        if now.saturating_duration_since(first.since) < core.shared.config.max_wait {
            return Some(first.since);
        }
        let why = line.why.clone().or_else(|| core.shared.trouble());
        if let Some(call) = line.take(core) {
            let error = waited(&call.topic);
            call.refuse(&match why {
                Some(why) => error.with_source(why),
                None => error,
            });
        }
    }
    None
}

impl Line {
    fn take(&mut self, core: &Core) -> Option<Call> {
        let call = self.calls.pop_front()?;
        self.records -= call.records.len();
        self.bytes -= call.bytes;
        core.waiting.store(self.calls.len(), Ordering::Release);
        Some(call)
    }
}

impl Call {
    fn refuse(self, error: &Error) {
        let answers = refuse(self.records.len(), error);
        // Nobody waits for it any more.
        let _ = self.answer.send(ready(answers).boxed());
    }
}
