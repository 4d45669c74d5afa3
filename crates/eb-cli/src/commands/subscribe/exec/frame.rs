//! Frames between us and the keeper: two lengths as 32-bit numbers in little endian, a head of JSON, and bytes.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::command::Ended;
use super::moment::Moment;

/// Both ends are the same program; what is longer was never sent by it.
const LONGEST_HEAD: usize = 1 << 20;
/// More than any bus takes as an envelope.
const LONGEST_BODY: usize = 256 << 20;

/// What the keeper is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Run the command; the envelope is the frame's bytes.
    Run {
        id: u64,
        env: Vec<(String, String)>,
        /// When it is to be killed, unless that is put off.
        until: Option<Moment>,
    },
    /// The lease was renewed.
    Until {
        id: u64,
        until: Moment,
    },
    Kill {
        id: u64,
    },
}

/// What the keeper tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum News {
    Started { id: u64, leader: u32 },
    Ended { id: u64, ended: Ended },
}

pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    head: &impl Serialize,
    body: &[u8],
) -> io::Result<()> {
    let json = serde_json::to_vec(head)?;
    let mut frame = Vec::with_capacity(8 + json.len());
    for length in [json.len(), body.len()] {
        let length = u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        frame.extend_from_slice(&length.to_le_bytes());
    }
    frame.extend_from_slice(&json);
    to.write_all(&frame).await?;
    to.write_all(body).await
}

/// The next frame; `None` where the other end has ended between two. Not to be dropped halfway.
pub(super) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut lengths = [0; 8];
    match from.read_exact(&mut lengths).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read.map(drop)?,
    }
    let [a, b, c, d, e, f, g, h] = lengths;
    let of = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    let (head, body) = (of([a, b, c, d]), of([e, f, g, h]));
    if head > LONGEST_HEAD || body > LONGEST_BODY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; head];
    from.read_exact(&mut bytes).await?;
    let head = serde_json::from_slice(&bytes)?;
    bytes.clear();
    bytes.resize(body, 0);
    from.read_exact(&mut bytes).await?;
    Ok(Some((head, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_as_they_were_written_and_what_is_too_long_is_refused() {
        let mut wire = Vec::new();
        let env = vec![("EB_KEY".to_owned(), "ä\u{1}\"".to_owned())];
        write(&mut wire, &Order::Run { id: 7, env: env.clone(), until: None }, b"{}\n").await.unwrap();
        write(&mut wire, &Order::Kill { id: 7 }, b"").await.unwrap();
        let mut from = &wire[..];
        let Some((Order::Run { id: 7, env: read_env, until: None }, body)) = read(&mut from).await.unwrap()
        else {
            panic!("another frame")
        };
        assert_eq!((read_env, &body[..]), (env, &b"{}\n"[..]));
        assert!(matches!(read(&mut from).await.unwrap(), Some((Order::Kill { id: 7 }, _))));
        assert!(read::<Order>(&mut from).await.unwrap().is_none());

        let cut = read::<Order>(&mut &wire[..wire.len() - 1]).await;
        assert!(cut.unwrap().is_some(), "the first is whole");
        let mut long = wire.clone();
        long[2] = 0xff;
        assert_eq!(read::<Order>(&mut &long[..]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read::<Order>(&mut &wire[..20]).await.is_err(), "one that is cut off is no end");
    }
}
