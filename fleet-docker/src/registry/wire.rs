//! Reads bodies with a cap: nobody's answer is taken into memory without limit.

use fleet_core::ports::PortError;
use futures::StreamExt;

use super::error::{corrupt, transport};

/// The body of an answer, at most `cap` bytes.
///
/// # Errors
/// `Corrupt`: it is larger. `Unreachable`, `Timeout`: the stream broke.
pub(super) async fn read_capped(
    host: &str,
    answer: reqwest::Response,
    cap: usize,
) -> Result<Vec<u8>, PortError> {
    let too_large = || {
        corrupt(format!(
            "expected at most {cap} bytes from {host}, found more"
        ))
    };
    let announced = answer.content_length().unwrap_or(0);
    if announced > cap as u64 {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| transport(host, error))?;
        if body.len() + chunk.len() > cap {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
