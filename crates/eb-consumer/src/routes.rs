//! Which handler an event goes to, and calling it.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::BoxFuture;
use eb_contract::stores::{DeadReason, FailedAttempt};
use futures_util::FutureExt;
use serde::de::DeserializeOwned;

use crate::error::{HandlerError, HandlerResult, Verdict};
use crate::event::{Event, RawEvent};
use crate::hold::Hold;
use crate::item::Item;
use crate::partition::Outcome;

/// What becomes of events of types that no handler was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unhandled {
    /// They count as done.
    Skip,
    /// They become dead letters.
    DeadLetter,
}

/// A failed call.
pub(crate) enum CallError {
    Handler(HandlerError),
    Undecodable(String),
    TimedOut(Duration),
}

/// One call: the record, and which attempt it is.
pub(crate) struct Call {
    pub(crate) item: Arc<Item>,
    pub(crate) attempt: u32,
    /// The lease under which it is made.
    pub(crate) hold: Option<Arc<Hold>>,
}

/// A handler that works on its own.
pub(crate) type Plain = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<(), CallError>> + Send + Sync>;
/// A handler that works within a transaction.
pub(crate) type WithTx<X> =
    Arc<dyn for<'x> Fn(Call, &'x mut X) -> BoxFuture<'x, Result<(), CallError>> + Send + Sync>;

/// Handlers by event type.
#[derive(Clone)]
pub(crate) struct Routes<H> {
    by_type: HashMap<String, H>,
    otherwise: Option<H>,
    pub(crate) unhandled: Option<Unhandled>,
}

/// Where an event goes.
pub(crate) enum Route<'r, H> {
    To(&'r H),
    Nowhere(Unhandled),
}

impl<H> Default for Routes<H> {
    fn default() -> Self {
        Self { by_type: HashMap::new(), otherwise: None, unhandled: None }
    }
}

impl<H> Routes<H> {
    /// False when there is one for the type already.
    pub(crate) fn add(&mut self, event_type: &str, handler: H) -> bool {
        self.by_type.insert(event_type.to_owned(), handler).is_none()
    }

    pub(crate) fn set_otherwise(&mut self, handler: H) {
        self.otherwise = Some(handler);
    }

    /// What is wrong with them as a whole.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.by_type.is_empty() && self.otherwise.is_none() {
            return Err("no handler; give it at least one".to_owned());
        }
        if self.otherwise.is_none() && self.unhandled.is_none() {
            return Err(
                "nothing says what becomes of events without a handler; choose Unhandled::Skip or Unhandled::DeadLetter".to_owned()
            );
        }
        Ok(())
    }

    pub(crate) fn find(&self, event_type: &str) -> Route<'_, H> {
        match self.by_type.get(event_type).or(self.otherwise.as_ref()) {
            Some(handler) => Route::To(handler),
            None => Route::Nowhere(self.unhandled.unwrap_or(Unhandled::DeadLetter)),
        }
    }
}

fn decode<T: DeserializeOwned>(call: Call) -> Result<Event<T>, CallError> {
    // An event without a payload decodes as one with an empty one would.
    let json = call.item.payload().unwrap_or("{}");
    match serde_json::from_str(json) {
        Ok(payload) => Ok(Event { item: call.item, attempt: call.attempt, hold: call.hold, payload }),
        Err(e) => Err(CallError::Undecodable(format!("the payload is not what the handler takes: {e}"))),
    }
}

fn raw(call: Call) -> RawEvent {
    Event { item: call.item, attempt: call.attempt, hold: call.hold, payload: () }
}

/// A handler of decoded events.
pub(crate) fn typed<T, H, F>(handler: H) -> Plain
where
    T: DeserializeOwned + Send + 'static,
    H: Fn(Event<T>) -> F + Send + Sync + 'static,
    F: Future<Output = HandlerResult> + Send + 'static,
{
    Arc::new(move |call| match decode(call) {
        Ok(event) => handler(event).map(|r| r.map_err(CallError::Handler)).boxed(),
        Err(e) => std::future::ready(Err(e)).boxed(),
    })
}

/// A handler of raw events.
pub(crate) fn untyped<H, F>(handler: H) -> Plain
where
    H: Fn(RawEvent) -> F + Send + Sync + 'static,
    F: Future<Output = HandlerResult> + Send + 'static,
{
    Arc::new(move |call| handler(raw(call)).map(|r| r.map_err(CallError::Handler)).boxed())
}

/// A handler of decoded events, within a transaction.
pub(crate) fn typed_tx<T, X, H>(handler: H) -> WithTx<X>
where
    T: DeserializeOwned + Send + 'static,
    X: Send + 'static,
    H: for<'x> Fn(Event<T>, &'x mut X) -> BoxFuture<'x, HandlerResult> + Send + Sync + 'static,
{
    Arc::new(move |call, tx| match decode(call) {
        Ok(event) => handler(event, tx).map(|r| r.map_err(CallError::Handler)).boxed(),
        Err(e) => std::future::ready(Err(e)).boxed(),
    })
}

/// A handler of raw events, within a transaction.
pub(crate) fn untyped_tx<X, H>(handler: H) -> WithTx<X>
where
    X: Send + 'static,
    H: for<'x> Fn(RawEvent, &'x mut X) -> BoxFuture<'x, HandlerResult> + Send + Sync + 'static,
{
    Arc::new(move |call, tx| handler(raw(call), tx).map(|r| r.map_err(CallError::Handler)).boxed())
}

/// How a call ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Ok,
    Permanent,
    Transient,
    Unknown,
    Panicked,
    Undecodable,
    TimedOut,
}

/// Lets a call run for so long at most.
pub(crate) async fn within(
    limit: Option<Duration>,
    call: impl Future<Output = Result<(), CallError>>,
) -> Result<(), CallError> {
    match limit {
        None => call.await,
        Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or(Err(CallError::TimedOut(limit))),
    }
}

/// Runs a call to its end. A panic, also of the handler before its first await, is an end like any other.
pub(crate) async fn run(call: impl Future<Output = Result<(), CallError>>) -> (Ended, Outcome) {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Ok(())) => (Ended::Ok, Outcome::Handled),
        Ok(Err(CallError::Undecodable(why))) => {
            (Ended::Undecodable, Outcome::Never(DeadReason::Undecodable, vec![why]))
        }
        Ok(Err(CallError::TimedOut(limit))) => {
            let text = format!("the handler ran longer than {limit:?} and was dropped");
            (Ended::TimedOut, Outcome::Later(vec![text]))
        }
        Ok(Err(CallError::Handler(error))) => {
            let chain = chain(error.cause());
            match error.verdict() {
                Verdict::Permanent => (Ended::Permanent, Outcome::Never(DeadReason::Permanent, chain)),
                Verdict::Transient => (Ended::Transient, Outcome::Later(chain)),
                Verdict::Unknown => (Ended::Unknown, Outcome::Later(chain)),
            }
        }
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(ToString::to_string);
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
            let text =
                format!("the handler panicked: {}", said.unwrap_or_else(|| "without words".to_owned()));
            (Ended::Panicked, Outcome::Later(vec![text]))
        }
    }
}

/// An error's text and those of its causes.
fn chain(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next.filter(|_| texts.len() < FailedAttempt::MAX_ERRORS) {
        texts.push(error.to_string());
        next = error.source();
    }
    texts
}
