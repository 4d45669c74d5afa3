//! A proxy that cuts connections, keeps requests and forges answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use eb_contract::{EventBusAdmin, Topic};
use eb_redis::{RedisBus, RedisConfig, Timeouts};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::{config, own_prefix, shared_port, topic};

/// What happens to the bytes that go by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plan {
    Pass,
    /// So many bytes of requests go on, then the connection is cut.
    CutRequest(usize),
    /// Requests go on, and so many bytes of answers; then the connection is cut.
    CutAnswer(usize),
    /// Requests are kept, to go on when they are released.
    Hold,
    /// The next answer of the script that appends is made into another.
    Forge(fn(&str) -> String),
    /// Connections are taken, and nothing goes over them, until there is another plan.
    Deaf,
}

/// What became of the requests that were kept.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) enum Held {
    None,
    /// They are here.
    Kept,
    /// They may go on.
    Released,
    /// They went on as far as the server took them, which has answered or hung up.
    Gone,
}

/// A proxy before a server. Its first connection under a plan takes it; the next ones pass.
pub(crate) struct Proxy {
    port: u16,
    plan: Arc<Mutex<Plan>>,
    pub(crate) held: watch::Sender<Held>,
    cut: watch::Sender<u64>,
    /// How many connections there are.
    open: watch::Sender<usize>,
    /// How many there have been.
    taken: Arc<AtomicUsize>,
}

impl Proxy {
    async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::new(Mutex::new(Plan::Pass));
        let (held, cut, open) =
            (watch::Sender::new(Held::None), watch::Sender::new(0), watch::Sender::new(0));
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let shared = (plan.clone(), held.clone(), cut.clone(), open.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
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
        Self { port, plan, held, cut, open, taken }
    }

    pub(crate) fn plan(&self, plan: Plan) {
        *self.plan.lock() = plan;
    }

    /// How many connections were made.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Cuts what is open, and comes back when all of it is closed.
    pub(crate) async fn cut_all(&self) {
        self.cut.send_modify(|n| *n += 1);
        self.open.subscribe().wait_for(|open| *open == 0).await.unwrap();
    }

    /// Comes when the requests that are kept have got so far.
    pub(crate) async fn until(&self, stage: Held) {
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
    if matches!(*plan.lock(), Plan::Deaf) {
        // The client gives up, or is cut off.
        let _ = cut.changed().await;
        return;
    }
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
                } else if let (Plan::Forge(forge), Some(text)) = (now, appended(&down[..count])) {
                    *plan.lock() = Plan::Pass;
                    if client.write_all(forge(text).as_bytes()).await.is_err() { return }
                } else if client.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The answer, where it is that of the script that appends.
fn appended(answer: &[u8]) -> Option<&str> {
    std::str::from_utf8(answer).ok().filter(|text| text.contains("\r\n$2\r\nok\r\n$"))
}

/// A bus behind a proxy, and one that is not, over the same topic.
pub(crate) async fn behind(timeouts: Timeouts) -> (Proxy, RedisBus, RedisBus, Topic) {
    behind_as(1, |config| RedisConfig { timeouts, ..config }).await
}

/// The same with so many partitions, and a config of its own for the one behind the proxy.
pub(crate) async fn behind_as(
    partitions: u32,
    change: impl FnOnce(RedisConfig) -> RedisConfig,
) -> (Proxy, RedisBus, RedisBus, Topic) {
    let port = shared_port();
    let proxy = Proxy::before(port).await;
    let prefix = own_prefix();
    let direct = RedisBus::open(RedisConfig { prefix: prefix.clone(), ..config(port) }).await.unwrap();
    let bus = RedisBus::open(change(RedisConfig { prefix, ..config(proxy.port) })).await.unwrap();
    let topic = topic("cut");
    direct.admin().create_topic(&topic, partitions).await.unwrap();
    (proxy, bus, direct, topic)
}
