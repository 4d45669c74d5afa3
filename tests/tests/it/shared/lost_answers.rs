//! Requests and answers that are lost on the way to Kinesis: unknown outcomes end in the record found, or after the
//! deadline in a record published again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use eb_system_tests::shared::Setup;
use ig_gate::{Decision, Gate, GateErrorCode, Receipt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{all_records, create_streams, place};

/// A way to the engine that loses puts.
struct Proxy {
    address: SocketAddr,
    /// So many puts more go through without their answers coming back.
    answers: Arc<AtomicUsize>,
    /// So many puts more do not go through.
    requests: Arc<AtomicUsize>,
}

impl Proxy {
    async fn before(url: &str) -> Self {
        let engine = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (answers, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (lost_answers, lost_requests) = (answers.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&engine).await {
                    tokio::spawn(carry(client, server, lost_answers.clone(), lost_requests.clone()));
                }
            }
        });
        Self { address, answers, requests }
    }
}

fn take_one(of: &AtomicUsize) -> bool {
    of.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    answers: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
) {
    const PUT: &[u8] = b"Kinesis_20131202.PutRecord";
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(n @ 1..) = read else { return };
                if asked[..n].windows(PUT.len()).any(|w| w == PUT) {
                    if take_one(&requests) {
                        return;
                    }
                    losing |= take_one(&answers);
                }
                if server.write_all(&asked[..n]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(n @ 1..) = read else { return };
                if losing || client.write_all(&answered[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Sends it again until there is an answer. Gives back how often the outcome was unknown, too.
async fn answer(gate: &Gate, event: &Bytes) -> (Receipt, usize) {
    let mut unknown = 0;
    loop {
        match gate.admit(event.clone()).await {
            Ok(receipt) => return (receipt, unknown),
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                unknown += usize::from(error.code() == GateErrorCode::PublishOutcomeUnknown);
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_ends_in_the_record_found_or_after_the_deadline_in_one_published_again() {
    let mut place = place("lost", eb_testkit::seed());
    (place.setup.count, place.setup.deadline_ms) = (3, 2_000);
    create_streams(&place.setup, 2).await;
    let proxy = Proxy::before(&place.setup.kinesis).await;
    let through = Setup { kinesis: format!("http://{}", proxy.address), ..place.setup.clone() };
    let gate = through.gate().await.unwrap();
    let events: Vec<Bytes> = through.events().collect();
    let (first, _) = answer(&gate, &events[0]).await;
    assert_eq!(first.decision, Decision::Admit);

    proxy.answers.store(1, Ordering::SeqCst);
    let (found, unknown) = answer(&gate, &events[1]).await;
    assert!(unknown > 0, "its answer was lost");
    assert_eq!(found.decision, Decision::Duplicate, "the publish had happened");
    assert_eq!(all_records(&place.setup).await.len(), 2, "it was found, not published again");

    let lost_at = std::time::Instant::now();
    proxy.requests.store(1, Ordering::SeqCst);
    let (again, unknown) = answer(&gate, &events[2]).await;
    assert!(unknown > 0, "its request was lost");
    assert_eq!(again.decision, Decision::Admit);
    assert!(lost_at.elapsed().as_millis() >= u128::from(through.deadline_ms), "it could still have landed");
    let records = all_records(&place.setup).await;
    assert_eq!(records.len(), 3);
    for receipt in [first, found, again] {
        assert!(records.iter().any(|r| Some(&r.eb_ref) == receipt.eb_ref.as_ref()));
    }
    gate.close().await.unwrap();
}
