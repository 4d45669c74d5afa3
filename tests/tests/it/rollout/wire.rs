//! A line to a server that can be cut, and that can lead what is put into a stream into another one.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What a put is called in the head of its request.
const PUT: &[u8] = b"Kinesis_20131202.PutRecords";

/// Two names of the same length: of a stream, and of the one that its puts go to instead.
type Astray = Option<(Vec<u8>, Vec<u8>)>;

/// The line; it stands until it is cut.
pub(super) struct Wire {
    port: u16,
    ends: Arc<Ends>,
    accepting: Option<JoinHandle<()>>,
}

struct Ends {
    server: u16,
    cut: AtomicBool,
    /// The clients' ends of the connections. The server never sees that a client has gone: it would drop what it was asked, and that is unknown for as
    /// long as a gate waits for a Kinesis.
    open: Mutex<Vec<TcpStream>>,
    astray: Mutex<Astray>,
}

impl Wire {
    pub(super) fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, open, astray) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let ends = Arc::new(Ends { server, cut, open, astray });
        let accepting = Some(accept(listener, ends.clone()));
        Self { port, ends, accepting }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections, and refuses new ones. What was carried to the server before is done there.
    pub(super) fn cut(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.ends.cut.store(true, Ordering::SeqCst);
        // Wakes whoever accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        accepting.join().unwrap();
        for end in self.ends.open.lock().drain(..) {
            // It may have ended by itself.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again, at the same port.
    pub(super) fn mend(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "port {}: {error}", self.port),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.ends.cut.store(false, Ordering::SeqCst);
        self.accepting = Some(accept(listener, self.ends.clone()));
    }

    /// From now on what is put into one stream goes into another, whose name is as long. A name that is cut in two by the network is overlooked.
    pub(super) fn lead_astray(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        let quoted = |name: &str| format!("\"{name}\"").into_bytes();
        *self.ends.astray.lock() = Some((quoted(from), quoted(to)));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
    }
}

fn accept(listener: TcpListener, ends: Arc<Ends>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for client in listener.incoming() {
            if ends.cut.load(Ordering::SeqCst) {
                return;
            }
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", ends.server))) else {
                continue;
            };
            let Ok(kept) = client.try_clone() else { continue };
            ends.open.lock().push(kept);
            let (of, there) = (ends.clone(), Arc::new((client, server)));
            let back = there.clone();
            std::thread::spawn(move || carry(&there.0, &there.1, |bytes, put| of.lead(bytes, put)));
            std::thread::spawn(move || {
                carry(&back.1, &back.0, |_, _| {});
                // Either end may be gone already.
                let _ = (back.0.shutdown(Shutdown::Both), back.1.shutdown(Shutdown::Both));
            });
        }
    })
}

/// Carries what comes from one end to the other.
fn carry(mut from: &TcpStream, mut to: &TcpStream, on_the_way: impl Fn(&mut [u8], &mut bool)) {
    let mut bytes = vec![0; 256 << 10];
    let mut put = false;
    // Answers are waited for: nothing gathers.
    let _ = to.set_nodelay(true);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        on_the_way(&mut bytes[..count], &mut put);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
}

impl Ends {
    fn lead(&self, bytes: &mut [u8], put: &mut bool) {
        if bytes.starts_with(b"POST ") {
            *put = bytes.windows(PUT.len()).any(|w| w == PUT);
        }
        let astray = self.astray.lock();
        let Some((from, to)) = astray.as_ref().filter(|_| *put) else { return };
        let places: Vec<_> =
            bytes.windows(from.len()).enumerate().filter(|(_, w)| w == from).map(|(at, _)| at).collect();
        for at in places {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
}
