//! The way to the server: a socket, perhaps encrypted, that counts what is written to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use redis::ConnectionAddr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Anything that bytes go over.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// How many bytes were handed to the wire so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written(Arc<AtomicU64>);

impl Written {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A connection to the server.
pub(crate) struct Transport {
    wire: Box<dyn Wire>,
    written: Written,
}

impl Transport {
    /// Connects, encrypted with a connector. Dropping the future leaves nothing behind.
    pub(crate) async fn connect(addr: &ConnectionAddr, tls: Option<&TlsConnector>) -> io::Result<Self> {
        match addr {
            ConnectionAddr::Tcp(host, port) => {
                let stream = tcp(host, *port).await?;
                let Some(connector) = tls else { return Ok(Self::over(stream)) };
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no name for a certificate"))?;
                Ok(Self::over(connector.connect(name, stream).await?))
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => Ok(Self::over(UnixStream::connect(path).await?)),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "this kind of address")),
        }
    }

    fn over(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), written: Written::default() }
    }

    pub(crate) fn written(&self) -> Written {
        self.written.clone()
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.wire).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = &polled {
            self.written.0.fetch_add(*count as u64, Ordering::Release);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
