//! A few words of the Postgres protocol: connect without a password, run simple queries.
//!
//! Enough to know that a server answers and to make databases in it, without a client library.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 196_608;
/// No message of these queries comes near it.
const MAX_MESSAGE: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub struct PgWire(TcpStream);

/// Why a query failed.
#[derive(Debug)]
pub enum SqlError {
    /// The connection failed.
    Io(io::Error),
    /// The server refused.
    Refused {
        /// The five characters of its SQLSTATE.
        state: String,
        /// Its words.
        message: String,
    },
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Refused { state, message } => write!(f, "{message} ({state})"),
        }
    }
}

impl std::error::Error for SqlError {}

impl From<io::Error> for SqlError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl PgWire {
    /// Connects to a server on the loopback interface as a user who needs no password.
    ///
    /// # Errors
    /// When there is no such server, or it refuses.
    pub fn connect(port: u16, user: &str, database: &str) -> Result<Self, SqlError> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", user, "database", database, ""] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        stream.write_all(&frame(None, &body))?;
        let mut wire = Self(stream);
        wire.until_ready()?;
        Ok(wire)
    }

    /// Runs statements, and gives back the first column of every row as text (NULL as an empty text).
    ///
    /// # Errors
    /// What the server says of the first statement that fails.
    pub fn query(&mut self, sql: &str) -> Result<Vec<String>, SqlError> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.0.write_all(&frame(Some(b'Q'), &body))?;
        self.until_ready()
    }

    fn until_ready(&mut self) -> Result<Vec<String>, SqlError> {
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let mut head = [0; 5];
            if let Err(e) = self.0.read_exact(&mut head) {
                // A server that refuses a connection closes it after saying why.
                return Err(refused.unwrap_or(SqlError::Io(e)));
            }
            let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(size) = size.checked_sub(4).filter(|s| *s <= MAX_MESSAGE) else {
                return Err(io::Error::other("a message of an impossible size").into());
            };
            let mut body = vec![0; size];
            self.0.read_exact(&mut body)?;
            match head[0] {
                b'Z' => return refused.map_or(Ok(rows), Err),
                b'E' => refused = Some(refusal(&body)),
                b'D' => rows.push(first_column(&body).unwrap_or_default()),
                b'R' if body.first_chunk() != Some(&[0, 0, 0, 0]) => {
                    return Err(io::Error::other("the server wants a password").into());
                }
                _ => {}
            }
        }
    }
}

fn frame(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

fn refusal(body: &[u8]) -> SqlError {
    let field = |code: u8| {
        let found = body.split(|b| *b == 0).find(|f| f.first() == Some(&code));
        found.map(|f| String::from_utf8_lossy(&f[1..]).into_owned()).unwrap_or_default()
    };
    SqlError::Refused { state: field(b'C'), message: field(b'M') }
}

fn first_column(body: &[u8]) -> Option<String> {
    let size = i32::from_be_bytes(*body.get(2..)?.first_chunk()?);
    let size = usize::try_from(size).ok()?;
    Some(String::from_utf8_lossy(body.get(6..6 + size)?).into_owned())
}
