//! Connections that break anywhere: what is said to have had no effect is not in the log, and nothing overtakes.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{Effect, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader, PartitionId, Topic};
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

/// What became of the requests that were kept.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Held {
    None,
    /// They are here.
    Kept,
    /// They may go on.
    Released,
    /// They went on as far as the server took them, which has answered or hung up.
    Gone,
}

/// A proxy before a server. Its first connection under a plan takes it; the next ones pass.
struct Proxy {
    port: u16,
    plan: Arc<Mutex<Plan>>,
    held: watch::Sender<Held>,
    cut: watch::Sender<u64>,
    /// How many connections there are.
    open: watch::Sender<usize>,
}

impl Proxy {
    async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::new(Mutex::new(Plan::Pass));
        let (held, cut, open) =
            (watch::Sender::new(Held::None), watch::Sender::new(0), watch::Sender::new(0));
        let shared = (plan.clone(), held.clone(), cut.clone(), open.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let (plan, held, cut, open) = shared.clone();
                open.send_modify(|n| *n += 1);
                let carried = carry(client, server, plan, held, cut.subscribe());
                tokio::spawn(async move {
                    carried.await;
                    open.send_modify(|n| *n -= 1);
                });
            }
        });
        Self { port, plan, held, cut, open }
    }

    fn plan(&self, plan: Plan) {
        *self.plan.lock() = plan;
    }

    /// Cuts what is open, and comes back when all of it is closed.
    async fn cut_all(&self) {
        self.cut.send_modify(|n| *n += 1);
        self.open.subscribe().wait_for(|open| *open == 0).await.unwrap();
    }

    /// Comes when the requests that are kept have got so far.
    async fn until(&self, stage: Held) {
        self.held.subscribe().wait_for(|held| *held >= stage).await.unwrap();
    }
}

/// Carries the bytes of one connection until it is cut or closed.
async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    plan: Arc<Mutex<Plan>>,
    held: watch::Sender<Held>,
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
                        held.send_replace(Held::Kept);
                        // The client may give up meanwhile; its bytes go on all the same.
                        held.subscribe().wait_for(|held| *held >= Held::Released).await.unwrap();
                        let _ = server.write_all(&up[..count]).await;
                        let _ = server.read(&mut down).await;
                        held.send_replace(Held::Gone);
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
    let (proxy, bus, direct, topic) = behind(Timeouts::default()).await;
    let (publisher, other) = (bus.publisher(), direct.reader());
    for n in 0..10 {
        publisher.publish(&topic, record("k", n)).await.unwrap();
        proxy.cut_all().await;
        // What came before the answers to these calls, the end of a connection among it, has been seen by its task.
        for _ in 0..2 {
            other.head(&topic, PartitionId(0)).await.unwrap();
        }
    }
    assert_eq!(read_all(&other, &topic, 0).await.len(), 10);
}

#[tokio::test]
async fn an_append_that_was_lost_on_the_way_never_lands_behind_a_later_one() {
    let timeouts = Timeouts { answer: Duration::from_secs(1), ..Timeouts::default() };
    let (proxy, bus, direct, topic) = behind(timeouts).await;
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 0)).await.unwrap();
    proxy.plan(Plan::Hold);
    let lost = publisher.publish(&topic, record("k", 1));
    proxy.until(Held::Kept).await;
    // These two wait in line while the first is on its way.
    let (same, other) =
        (publisher.publish(&topic, record("k", 2)), publisher.publish(&topic, record("j", 3)));
    let e = lost.await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Timeout, Effect::Unknown), "{e}");
    let e = same.await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::NotAttempted, Effect::None), "{e}");
    other.await.unwrap();
    publisher.publish(&topic, record("k", 4)).await.unwrap();
    // Only now do its bytes arrive.
    proxy.held.send_replace(Held::Released);
    proxy.until(Held::Gone).await;
    publisher.publish(&topic, record("k", 5)).await.unwrap();
    let log = read_all(&direct.reader(), &topic, 0).await;
    let numbers: Vec<_> = log.iter().map(|r| number(&r.envelope)).collect();
    assert_eq!(numbers, [0, 3, 4, 5], "the lost append was ended before anything else was sent");
}
