//! Connections that break anywhere: what is said to have had no effect is not in the log, and nothing overtakes.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{Effect, ErrorKind, EventBusAdmin, EventBusPublisher, Topic};
use eb_redis::{RedisBus, RedisConfig, Timeouts};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::{
    config, expect_acked, expect_order, number, own_prefix, read_all, record, shared_port, topic,
};

/// What happens to the bytes that go by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Plan {
    Pass,
    /// So many bytes of requests go on, then the connection is cut.
    CutRequest(usize),
    /// Requests go on, and so many bytes of answers; then the connection is cut.
    CutAnswer(usize),
    /// Requests are kept, to go on when they are released.
    Hold,
}

/// A proxy before a server. Its first connection under a plan takes it; the next ones pass.
struct Proxy {
    port: u16,
    plan: Arc<Mutex<Plan>>,
    released: watch::Sender<bool>,
    cut: watch::Sender<u64>,
}

impl Proxy {
    async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (plan, released, cut) =
            (Arc::new(Mutex::new(Plan::Pass)), watch::Sender::new(false), watch::Sender::new(0));
        let shared = (plan.clone(), released.clone(), cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let (plan, released, cut) = shared.clone();
                tokio::spawn(carry(client, server, plan, released.subscribe(), cut.subscribe()));
            }
        });
        Self { port, plan, released, cut }
    }

    fn plan(&self, plan: Plan) {
        *self.plan.lock() = plan;
    }

    /// Cuts what is open.
    fn cut_all(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}

/// Carries the bytes of one connection until it is cut or closed.
async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    plan: Arc<Mutex<Plan>>,
    mut released: watch::Receiver<bool>,
    mut cut: watch::Receiver<u64>,
) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            _ = cut.changed() => return,
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                let now = *plan.lock();
                match now {
                    Plan::CutRequest(left) => {
                        let passing = left.min(count);
                        if server.write_all(&up[..passing]).await.is_err() { return }
                        if passing < count || left == count {
                            *plan.lock() = Plan::Pass;
                            return;
                        }
                        *plan.lock() = Plan::CutRequest(left - passing);
                    }
                    Plan::Hold => {
                        *plan.lock() = Plan::Pass;
                        // The client may give up meanwhile; its bytes go on all the same.
                        if released.wait_for(|released| *released).await.is_err() { return }
                        let _ = server.write_all(&up[..count]).await;
                        let _ = server.read(&mut down).await;
                        return;
                    }
                    _ => if server.write_all(&up[..count]).await.is_err() { return },
                }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                let now = *plan.lock();
                if let Plan::CutAnswer(left) = now {
                    if client.write_all(&down[..left.min(count)]).await.is_err() || left <= count {
                        *plan.lock() = Plan::Pass;
                        return;
                    }
                    *plan.lock() = Plan::CutAnswer(left - count);
                } else if client.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A bus behind a proxy, and one that is not, over the same topic.
async fn behind(timeouts: Timeouts) -> (Proxy, RedisBus, RedisBus, Topic) {
    let port = shared_port();
    let proxy = Proxy::before(port).await;
    let prefix = own_prefix();
    let direct = RedisBus::open(RedisConfig { prefix: prefix.clone(), ..config(port) }).await.unwrap();
    let bus = RedisBus::open(RedisConfig { prefix, timeouts, ..config(proxy.port) }).await.unwrap();
    let topic = topic("cut");
    direct.admin().create_topic(&topic, 1).await.unwrap();
    (proxy, bus, direct, topic)
}

#[tokio::test]
async fn a_connection_cut_anywhere_in_a_group_loses_no_ack_and_breaks_no_order() {
    let (proxy, bus, direct, topic) = behind(Timeouts::default()).await;
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    // A request of three records has some 450 bytes, its answer some 230: each boundary of the protocol and what lies
    // between, densely at the ends.
    let near = (0..24).chain((24..420).step_by(17)).chain(420..520);
    let plans = near.clone().map(Plan::CutRequest).chain((0..240).step_by(5).map(Plan::CutAnswer));
    let (mut acked, mut refused, mut unknown) = (Vec::new(), Vec::new(), 0);
    let mut n = 1;
    for plan in plans {
        proxy.plan(plan);
        let batch = [record("k", n), record("j", n), record("k", n + 1)];
        let answers = publisher.publish_batch(&topic, batch.to_vec()).await;
        n += 2;
        for (answer, record) in answers.into_iter().zip(batch) {
            match answer {
                Ok(at) => acked.push((at, record)),
                Err(e) if e.effect() == Effect::Unknown => {
                    assert_eq!(*e.kind(), ErrorKind::Unavailable, "{plan:?}: {e}");
                    unknown += 1;
                }
                Err(_) => refused.push(record),
            }
        }
        // What comes next works again, over a new connection.
        proxy.plan(Plan::Pass);
        let after = record("k", n);
        acked.push((publisher.publish(&topic, after.clone()).await.unwrap(), after));
        n += 1;
    }
    let log = read_all(&direct.reader(), &topic, 0).await;
    expect_acked(&log, &acked);
    expect_order(&log);
    for record in refused {
        assert!(log.iter().all(|r| r.envelope != record.envelope), "said not to be there: {record:?}");
    }
    assert!(unknown > 150, "most cuts leave the outcome unknown: {unknown}");
    // A group is there whole or not at all.
    let there: std::collections::HashSet<_> =
        log.iter().map(|r| (r.partition_key.as_str().to_owned(), number(&r.envelope))).collect();
    for (key, m) in &there {
        if key == "j" {
            assert!(there.contains(&("k".to_owned(), *m)) && there.contains(&("k".to_owned(), m + 1)), "{m}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_broke_while_it_was_idle_costs_nothing() {
    let (proxy, bus, _direct, topic) = behind(Timeouts::default()).await;
    let publisher = bus.publisher();
    for n in 0..10 {
        publisher.publish(&topic, record("k", n)).await.unwrap();
        proxy.cut_all();
        // The end of the connection is noticed by its own task.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_append_that_was_lost_on_the_way_never_lands_behind_a_later_one() {
    let timeouts = Timeouts { answer: Duration::from_millis(200), ..Timeouts::default() };
    let (proxy, bus, direct, topic) = behind(timeouts).await;
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    proxy.plan(Plan::Hold);
    let lost = publisher.publish(&topic, record("k", 1));
    // These two wait in line while the first is on its way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (same, other) =
        (publisher.publish(&topic, record("k", 2)), publisher.publish(&topic, record("j", 3)));
    let e = lost.await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Timeout, Effect::Unknown), "{e}");
    let e = same.await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::NotAttempted, Effect::None), "{e}");
    other.await.unwrap();
    publisher.publish(&topic, record("k", 4)).await.unwrap();
    // Only now do its bytes arrive.
    proxy.released.send_replace(true);
    publisher.publish(&topic, record("k", 5)).await.unwrap();
    let log = read_all(&direct.reader(), &topic, 0).await;
    let numbers: Vec<_> = log.iter().map(|r| number(&r.envelope)).collect();
    assert_eq!(numbers, [0, 3, 4, 5], "the lost append was ended before anything else was sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(read_all(&direct.reader(), &topic, 0).await.len(), 4);
}
