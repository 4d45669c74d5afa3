//! One HTTP request at a time, as much as health checks and switches need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Sends one request to a port of the loopback interface; a body is sent as JSON. `None` when there is no whole answer
/// within ten seconds.
#[must_use]
pub fn http(port: u16, method: &str, path: &str, body: Option<&str>) -> Option<HttpAnswer> {
    let head = format!("{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\n");
    send(port, &head, body.unwrap_or_default(), Duration::from_secs(10))
}

/// Calls an operation of Kinesis, unsigned: emulators look at no signature.
pub(super) fn call_kinesis(port: u16, operation: &str, patience: Duration) -> Option<HttpAnswer> {
    let head = format!(
        "POST / HTTP/1.0\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: Kinesis_20131202.{operation}\r\n"
    );
    send(port, &head, "{}", patience)
}

fn send(port: u16, head: &str, body: &str, patience: Duration) -> Option<HttpAnswer> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let request = format!(
        "{head}Host: 127.0.0.1:{port}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Option<HttpAnswer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(HttpAnswer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_and_half_of_one_is_none() {
        let answer = parse("HTTP/1.1 503 Busy\r\nA: b\r\n\r\nlater").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "later"));
        assert_eq!(parse("HTTP/1.1 200"), None);
        assert_eq!(http(1, "GET", "/", None), None);
    }
}
