//! The HTTP side: hyper in front, one task per request behind it.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, header};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::log::{Arrival, Log, Outcome};
use super::model::{self, Bent, World};
use super::script::{Answer, Book, Reaction, Wait};
use super::{Cut, Fault, Op};

/// More than any call that the service takes, in base64.
const LONGEST_BODY: usize = 64 << 20;

/// What the server and the test share.
pub(super) struct Shared {
    pub(super) world: Mutex<World>,
    pub(super) log: Mutex<Log>,
    pub(super) book: Book,
    /// Whether the service is unreachable.
    pub(super) down: watch::Sender<bool>,
}

pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(Arc::clone(&shared), stream));
            }
            // Out of descriptors, or a client that left before it was accepted: others may get through.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let mut down = shared.down.subscribe();
    let reset = Arc::new(AtomicBool::new(false));
    let set_reset = Arc::clone(&reset);
    let service = service_fn(move |request| answer(Arc::clone(&shared), Arc::clone(&set_reset), request));
    // Small answers must not wait for the client's next acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Ends with an error whenever a client hangs up or a script cuts: nothing to report.
    tokio::select! {
        _ = &mut connection => {}
        _ = down.wait_for(|down| *down) => reset.store(true, Ordering::Relaxed),
    }
    if reset.load(Ordering::Relaxed) {
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

/// Ends the connection without an answer.
#[derive(Debug)]
struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut")
    }
}

impl std::error::Error for Hangup {}

/// What goes back over the wire.
struct Delivery {
    status: u16,
    body: Bytes,
    cut: Option<Cut>,
}

async fn answer(
    shared: Arc<Shared>,
    reset: Arc<AtomicBool>,
    request: hyper::Request<Incoming>,
) -> Result<Response<CutBody>, Hangup> {
    let target = request.headers().get("x-amz-target").and_then(|v| v.to_str().ok());
    let operation = target.and_then(|t| t.strip_prefix("Kinesis_20131202.")).unwrap_or_default().to_owned();
    let body =
        Limited::new(request.into_body(), LONGEST_BODY).collect().await.map_err(|_| Hangup)?.to_bytes();
    // hyper drops this future when the client goes; the request is carried through all the same.
    let (present, gone) = oneshot::channel();
    let delivery = tokio::spawn(handle(shared, operation, body, gone)).await.map_err(|_| Hangup)?;
    drop(present);
    match delivery.cut {
        Some(Cut::Reset) => {
            reset.store(true, Ordering::Relaxed);
            Err(Hangup)
        }
        Some(Cut::Close) => Err(Hangup),
        cut => {
            let half = cut.is_some();
            let body = CutBody::new(delivery.body, half);
            let response = Response::builder()
                .status(delivery.status)
                .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
                .header("x-amzn-requestid", "00000000-0000-0000-0000-000000000000")
                .body(body);
            response.map_err(|_| Hangup)
        }
    }
}

async fn handle(
    shared: Arc<Shared>,
    operation: String,
    body: Bytes,
    mut gone: oneshot::Receiver<Infallible>,
) -> Delivery {
    let op = Op::named(&operation);
    let mut parsed = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let entries = if parsed.is_object() {
        model::entries(op, &mut parsed)
    } else {
        Err(Fault::serialization("the body is no JSON object"))
    };
    let (stream, shard) = model::shard_of(&parsed);
    let (entries, unreadable) = entries.map_or_else(|fault| (Vec::new(), Some(fault)), |e| (e, None));
    let millis = shared.world.lock().clock.now();
    let arrival = Arrival { op, operation, stream, shard, body: parsed, entries, millis };
    let request = shared.log.lock().arrive(arrival);
    let reaction = unreadable.map_or_else(|| shared.book.reaction(&request), Reaction::refuse);

    wait(&reaction.before, &mut gone).await;
    let mut answer = Ok(Value::Null);
    if reaction.act {
        let bent = Bent { put: reaction.put(&request.entries), read: reaction.read.clone() };
        let done = shared.world.lock().call(op, &request.body, &request.entries, request.id, &bent);
        shared.log.lock().acted(request.id, done.results);
        answer = done.answer;
    }
    wait(&reaction.after, &mut gone).await;

    let delivery = compose(&reaction, answer);
    let outcome = match reaction.cut {
        Some(cut) => Outcome::Cut(cut),
        None if gone.try_recv() == Err(oneshot::error::TryRecvError::Closed) => Outcome::Abandoned,
        None => Outcome::Answered { status: delivery.status, error: error_of(&delivery) },
    };
    shared.log.lock().finish(request.id, outcome);
    delivery
}

async fn wait(waits: &[Wait], gone: &mut oneshot::Receiver<Infallible>) {
    for wait in waits {
        match wait {
            Wait::Gate(gate) => gate.pass().await,
            // A second wait finds the channel spent; the client is still gone.
            Wait::Abandoned if gone.is_terminated() => {}
            Wait::Abandoned => {
                let Err(_client_is_gone) = (&mut *gone).await;
            }
        }
    }
}

fn compose(reaction: &Reaction, answer: Result<Value, Fault>) -> Delivery {
    let cut = reaction.cut;
    let fault = |fault: &Fault| Delivery { status: fault.status, body: fault.body().to_string().into(), cut };
    match (&reaction.answer, answer) {
        (Answer::Raw { status, body }, _) => Delivery { status: *status, body: body.clone(), cut },
        (Answer::Fault(scripted), _) => fault(scripted),
        (Answer::Model, Err(refused)) => fault(&refused),
        (Answer::Model, Ok(mut answer)) => {
            for edit in &reaction.edits {
                edit(&mut answer);
            }
            Delivery { status: 200, body: answer.to_string().into(), cut }
        }
    }
}

fn error_of(delivery: &Delivery) -> Option<String> {
    if delivery.status == 200 {
        return None;
    }
    let body: Value = serde_json::from_slice(&delivery.body).ok()?;
    body["__type"].as_str().map(str::to_owned)
}

/// A body that may break off in the middle.
struct CutBody {
    declared: u64,
    next: Option<Bytes>,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    /// Breaks off at the second poll from here: at the first, hyper sends what it holds.
    Flush,
    Break,
}

impl CutBody {
    fn new(mut body: Bytes, breaks: bool) -> Self {
        let declared = body.len() as u64;
        if breaks {
            body.truncate(body.len() / 2);
        }
        Self { declared, next: Some(body), end: if breaks { End::Flush } else { End::Whole } }
    }
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(bytes) = self.next.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            End::Flush => {
                self.end = End::Break;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            End::Break => Poll::Ready(Some(Err(io::Error::other("the answer is cut")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && matches!(self.end, End::Whole)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.declared)
    }
}
