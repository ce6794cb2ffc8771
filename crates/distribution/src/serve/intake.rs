//! The body of a request as it comes in: in time, within its limits, and never in memory as a whole.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::refusal::{Kind, Refusal};

/// So much is written at once: fewer, larger writes.
const BATCH_BYTES: usize = 256 << 10;
/// Of a request that was refused, so much is read before the answer.
const SWALLOW_BYTES: usize = 1 << 20;
const SWALLOW_PATIENCE: Duration = Duration::from_secs(1);

/// Bytes that have come, and what came after them.
pub(super) struct Batch {
    pub(super) bytes: Vec<Bytes>,
    /// Nothing follows: the body is over, or will not be.
    pub(super) end: Option<Result<(), Refusal>>,
}

/// The next bytes, several frames of them. What has come before something goes wrong is not lost.
pub(super) async fn next_batch(body: &mut Incoming, stall: Duration) -> Batch {
    let (mut bytes, mut length) = (Vec::new(), 0);
    while length < BATCH_BYTES {
        match next(body, stall).await {
            Ok(Some(more)) => {
                length += more.len();
                bytes.push(more);
            }
            Ok(None) => return Batch { bytes, end: Some(Ok(())) },
            Err(refusal) => return Batch { bytes, end: Some(Err(refusal)) },
        }
    }
    Batch { bytes, end: None }
}

async fn next(body: &mut Incoming, stall: Duration) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = tokio::time::timeout(stall, body.frame()).await;
        let frame = frame.map_err(|_| Refusal::new(Kind::Stalled, format!("nothing has come for {stall:?}")))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Refusal::new(Kind::SizeInvalid, format!("the body ends early: {error}"))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                // Trailers say nothing here.
                _ => {}
            },
        }
    }
}

/// All of it, if it is no longer than this.
pub(super) async fn whole(
    body: &mut Incoming,
    limit_bytes: usize,
    stall: Duration,
) -> Result<Option<Vec<u8>>, Refusal> {
    if body.size_hint().lower() > limit_bytes as u64 {
        return Ok(None);
    }
    let mut all = Vec::new();
    while let Some(bytes) = next(body, stall).await? {
        if all.len() + bytes.len() > limit_bytes {
            return Ok(None);
        }
        all.extend_from_slice(&bytes);
    }
    Ok(Some(all))
}

/// Reads what is left, or some of it, for nothing. Whether that was all.
pub(super) async fn swallow(body: &mut Incoming) -> bool {
    let read = async {
        let mut length = 0;
        while length <= SWALLOW_BYTES {
            match body.frame().await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => length += frame.data_ref().map_or(0, Bytes::len),
            }
        }
        false
    };
    tokio::time::timeout(SWALLOW_PATIENCE, read).await.unwrap_or(false)
}
