//! A GET over a plain socket: an oracle that shares no code with the probe under test.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status, for instance 200.
    pub status: u16,
    /// Body, up to 1 MiB.
    pub body: String,
}

/// One GET; `target` is path and query. Every wait is bounded by `timeout`.
///
/// # Errors
/// No connection, no whole answer in time, or no HTTP.
pub fn get(address: SocketAddr, target: &str, timeout: Duration) -> io::Result<HttpAnswer> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(1 << 20).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other("the answer ended before its body"))?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .and_then(|value| value.parse::<usize>().ok());
    if length.is_some_and(|length| body.len() < length) {
        return Err(io::Error::other("the answer was cut off"));
    }
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other("the answer has no status"))?;
    Ok(HttpAnswer {
        status,
        body: body.to_owned(),
    })
}
