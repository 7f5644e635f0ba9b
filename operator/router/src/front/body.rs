//! Reads bodies of requests, every byte of them counted before it is kept. Effects: reads from the network.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::error::Failure;
use crate::flow::budget::{Budget, Lease};

/// Bytes that are unpacked, and counted, at once.
const CHUNK: usize = 64 << 10;
/// How long the next part of a body may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A body, and its part of the budget.
#[derive(Debug)]
pub struct Held {
    /// The body, unpacked.
    pub bytes: Bytes,
    lease: Lease,
}

impl Held {
    /// Bytes of the budget.
    pub fn cost(&self) -> usize {
        self.lease.bytes()
    }
}

fn overloaded() -> Failure {
    Failure::overloaded("the router holds as much as it may: send it again later")
}

fn too_large(limit: usize) -> Failure {
    let reason = format!("entity content is too large: the limit is {limit} bytes");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "content_too_long_exception", reason)
}

/// The body of a request of at most `limit` bytes, unpacked.
pub async fn read(
    headers: &HeaderMap,
    mut body: Incoming,
    budget: &Arc<Budget>,
    limit: usize,
) -> Result<Held, Failure> {
    let announced = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let size = announced.unwrap_or(0);
    if size > limit {
        return Err(too_large(limit));
    }
    // All of it at once where its size is known, so that a request is refused before it is read, not in its middle.
    let Some(mut lease) = budget.take(size) else {
        if !headers.contains_key(header::EXPECT) {
            discard(body, limit).await;
        }
        return Err(overloaded());
    };
    let mut bytes = BytesMut::with_capacity(size);
    loop {
        // Who sends nothing must not hold bytes that others could use.
        let next = timeout(PATIENCE, body.frame()).await;
        let slow = || {
            Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout_exception", "the body did not come in time")
        };
        let Some(frame) = next.map_err(|_| slow())? else { break };
        let cut = |error: hyper::Error| Failure::illegal(format!("the body broke off: {error}"));
        let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
        let after = bytes.len() + data.len();
        if after > limit {
            return Err(too_large(limit));
        }
        if after > lease.bytes() && !lease.grow(data.len().max(CHUNK)) {
            drop((bytes, lease));
            discard(body, limit - after).await;
            return Err(overloaded());
        }
        bytes.extend_from_slice(&data);
    }
    let packed = headers.get(header::CONTENT_ENCODING).map(|encoding| encoding.as_bytes());
    match packed {
        None | Some(b"identity") => Ok(Held { bytes: bytes.freeze(), lease }),
        Some(b"gzip") => unpack(&bytes, budget, limit),
        Some(_) => Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "illegal_argument_exception",
            "content encodings other than gzip are not supported",
        )),
    }
}

/// Reads what a client is still sending, and keeps none of it: a connection that is closed before that loses the
/// answer for clients that read only when they have written all.
async fn discard(mut body: Incoming, limit: usize) {
    let mut left = limit;
    while let Ok(Some(Ok(frame))) = timeout(PATIENCE, body.frame()).await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(size) else { return };
        left = rest;
    }
}

fn unpack(packed: &[u8], budget: &Arc<Budget>, limit: usize) -> Result<Held, Failure> {
    let mut lease = budget.take(CHUNK).ok_or_else(overloaded)?;
    let mut decoder = MultiGzDecoder::new(packed);
    let mut bytes = Vec::with_capacity(CHUNK);
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = decoder
            .read(&mut chunk)
            .map_err(|error| Failure::illegal(format!("the body is no gzip: {error}")))?;
        if count == 0 {
            return Ok(Held { bytes: bytes.into(), lease });
        }
        if bytes.len() + count > limit {
            return Err(too_large(limit));
        }
        // Room in a vector comes in doublings, and all of it is memory.
        if bytes.len() + count > bytes.capacity() {
            if !lease.grow(bytes.capacity()) {
                return Err(overloaded());
            }
            bytes.reserve_exact(bytes.capacity());
        }
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_small_body_that_unpacks_to_much_is_refused_before_it_is_kept() {
        let pack = |size: usize| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&vec![b' '; size]).unwrap();
            encoder.finish().unwrap()
        };
        let budget = Budget::new(1 << 20);
        let held = unpack(&pack(300_000), &budget, 1 << 20).unwrap();
        assert!(held.bytes.len() == 300_000 && held.cost() >= 300_000 && budget.used() == held.cost());
        drop(held);
        assert_eq!(unpack(&pack(3_000_000), &budget, 1 << 21).unwrap_err().status, 429);
        assert_eq!(unpack(&pack(300_000), &budget, 200_000).unwrap_err().status, 413);
        assert_eq!(unpack(b"no gzip", &budget, 10).unwrap_err().status, 400);
        assert!(budget.used() == 0 && budget.peak() <= 1 << 20);
    }
}
