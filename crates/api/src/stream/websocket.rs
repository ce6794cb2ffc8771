//! Streams by WebSocket (RFC 6455), as Docker has them for attach: what the client says is standard input, what the process
//! says comes in binary messages, standard output and standard error in one.
//!
//! The other half of a socket pair speaks the raw protocol, so that everything behind it is as for any other client:
//! ```text
//! client ◀─frames─▶ bridge ◀─bytes─▶ relay ◀─▶ monitor
//! ```
//! A client that reads nothing holds the bridge up, that the relay, and the relay lets go of it.

mod frames;

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dozen_model::base64;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use self::frames::{Control, Decoder, Plain, binary, close, pong};
use super::hangup::Hangup;
use crate::error::ApiError;

const BUFFER_BYTES: usize = 32 << 10;
/// Pongs and the like between who reads a client and who writes to it. Of pings that come faster some are not answered,
/// which they need not be (section 5.5.3).
const CONTROLS: usize = 4;
/// When all is said, the client may take so long to read it.
const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// And so long to say that it has heard of the end.
const LINGER: Duration = Duration::from_secs(1);
/// Appended to a client's key (section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a connection ends (section 7.4.1).
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;

/// Why there is no WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not asked for as it has to be.
    Request(ApiError),
    /// Another version is asked for.
    Version,
}

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Request(error) => error.into_response(),
            Refused::Version => (StatusCode::UPGRADE_REQUIRED, [(header::SEC_WEBSOCKET_VERSION, "13")]).into_response(),
        }
    }
}

/// What a client's key is answered with, if it asks for a WebSocket (section 4.2.1).
pub(crate) fn accept(headers: &HeaderMap) -> Result<String, Refused> {
    let has = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let refused = |why: &str| Err(Refused::Request(ApiError::invalid(format!("this is no WebSocket request: {why}"))));
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return refused("it wants no upgrade to websocket");
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(Refused::Version);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default().trim();
    if base64::decode(key).is_none_or(|key| key.len() != 16) {
        return refused("its key is not 16 bytes in base 64");
    }
    Ok(base64::encode(&Sha1::digest(format!("{key}{GUID}"))))
}

/// Carries a client's messages to `inner` and what comes from there to the client, until one of them ends it. `framed`: what
/// comes has Docker's heads, which the client does not get.
pub(crate) async fn bridge(client: UnixStream, early: Bytes, inner: UnixStream, framed: bool) {
    let (Ok(over), Ok(gone)) = (Hangup::of(&inner), Hangup::of(&client)) else { return };
    let (client_read, client_write) = client.into_split();
    let (inner_read, inner_write) = inner.into_split();
    let (controls, to_send) = mpsc::channel(CONTROLS);
    let mut listener = Listener { client: client_read, controls };
    let speaker = Speaker { client: client_write, over, is_over: false, plain: framed.then(Plain::default) };
    let speak = speaker.run(inner_read, to_send);
    tokio::pin!(speak);
    tokio::select! {
        is_whole = &mut speak => {
            if is_whole {
                // What it still sends is read: else the kernel takes back what it has not read yet (unix(7)).
                let _ = tokio::time::timeout(LINGER, listener.drain()).await;
            }
        }
        end = listener.run(early, inner_write) => {
            // It has said goodbye, and hears the same. Who listens behind it sees it go.
            if let Some(code) = end {
                let goodbye = async { tokio::join!(listener.controls.send(Outgoing::Close(code)), speak) };
                let _ = tokio::time::timeout(LINGER, goodbye).await;
            }
        }
        () = gone.wait() => {}
    }
}

/// All data up to the end or the first violation, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn decoded<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut decoder, mut data) = (Decoder::default(), Vec::new());
    for part in parts {
        match decoder.feed(part, &mut data) {
            Ok(controls) if !controls.contains(&Control::Close) => {}
            _ => break,
        }
    }
    data
}

enum Outgoing {
    Pong(Vec<u8>),
    /// The last.
    Close(u16),
}

/// Reads what a client sends.
struct Listener {
    client: OwnedReadHalf,
    controls: mpsc::Sender<Outgoing>,
}

impl Listener {
    /// Until it closes: with which word it is answered; `None`: it has gone without one.
    async fn run(&mut self, early: Bytes, mut inner: OwnedWriteHalf) -> Option<u16> {
        let (mut decoder, mut data) = (Decoder::default(), Vec::new());
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut came = early;
        let mut is_open = true;
        loop {
            let controls = decoder.feed(&came, &mut data);
            if is_open && !data.is_empty() {
                // Whoever reads it may have ended: what follows is read and dropped.
                is_open = inner.write_all(&data).await.is_ok();
            }
            data.clear();
            let Ok(controls) = controls else { return Some(PROTOCOL_ERROR) };
            for control in controls {
                match control {
                    Control::Ping(payload) => drop(self.controls.try_send(Outgoing::Pong(payload))),
                    Control::Close => return Some(NORMAL),
                }
            }
            match self.client.read(&mut buffer).await {
                Ok(count @ 1..) => came = Bytes::copy_from_slice(&buffer[..count]),
                _ => return None,
            }
        }
    }

    async fn drain(&mut self) {
        let mut buffer = vec![0; 4096];
        while self.client.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    }
}

/// Writes to a client.
struct Speaker {
    client: OwnedWriteHalf,
    /// Ends when nobody is behind it any more.
    over: Hangup,
    is_over: bool,
    plain: Option<Plain>,
}

impl Speaker {
    /// To the end of what there is to say; false if the client could not be told all of it.
    async fn run(mut self, mut inner: OwnedReadHalf, mut controls: mpsc::Receiver<Outgoing>) -> bool {
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut payload, mut message) = (Vec::new(), Vec::new());
        loop {
            let count = tokio::select! {
                biased;
                Some(control) = controls.recv() => {
                    let (bytes, is_last) = match control {
                        Outgoing::Pong(payload) => (pong(&payload), false),
                        Outgoing::Close(code) => (close(code), true),
                    };
                    if !self.write(&bytes).await || is_last {
                        return false;
                    }
                    continue;
                }
                read = inner.read(&mut buffer) => read.unwrap_or(0),
            };
            if count == 0 {
                let told = self.write(&close(NORMAL)).await;
                let _ = self.client.shutdown().await;
                return told;
            }
            payload.clear();
            match &mut self.plain {
                Some(plain) => plain.feed(&buffer[..count], &mut payload),
                None => payload.extend_from_slice(&buffer[..count]),
            }
            if payload.is_empty() {
                continue;
            }
            message.clear();
            binary(&payload, &mut message);
            if !self.write(&message).await {
                return false;
            }
        }
    }

    /// As long as somebody is behind it, who has patience of their own; and then only so long.
    async fn write(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let written = if self.is_over {
                tokio::time::timeout(LAST_PATIENCE, self.client.write(bytes)).await.unwrap_or(Ok(0))
            } else {
                tokio::select! {
                    biased;
                    written = self.client.write(bytes) => written,
                    () = self.over.wait() => {
                        self.is_over = true;
                        continue;
                    }
                }
            };
            match written {
                Ok(count @ 1..) => bytes = &bytes[count..],
                _ => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    const ASKED: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_key_is_answered_as_the_standard_has_it() {
        // Section 1.3.
        assert_eq!(accept(&headers(&ASKED)).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let mut old = ASKED;
        old[2].1 = "8";
        assert_eq!(accept(&headers(&old)), Err(Refused::Version));
        for (at, value) in [(0, "tcp"), (1, "close"), (3, "short"), (3, "")] {
            let mut wrong = ASKED;
            wrong[at].1 = value;
            assert!(matches!(accept(&headers(&wrong)), Err(Refused::Request(_))), "{value}");
        }
    }

    struct Ends {
        client: UnixStream,
        inner: UnixStream,
        bridge: tokio::task::JoinHandle<()>,
    }

    fn bridged(early: &'static [u8], framed: bool) -> Ends {
        let (client, theirs) = UnixStream::pair().unwrap();
        let (inner, end) = UnixStream::pair().unwrap();
        let bridge = tokio::spawn(bridge(theirs, Bytes::from_static(early), end, framed));
        Ends { client, inner, bridge }
    }

    const NO_MASK: [u8; 4] = [0; 4];

    fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[flags, 0x80 | payload.len() as u8][..], &NO_MASK, payload].concat()
    }

    #[tokio::test]
    async fn messages_are_input_and_output_is_messages() {
        let mut ends = bridged(b"\x81\x83\0\0\0\0ear", true);
        ends.client.write_all(&[frame(0x82, b"ly"), frame(0x89, b"?")].concat()).await.unwrap();
        let mut input = [0; 5];
        ends.inner.read_exact(&mut input).await.unwrap();
        assert_eq!(&input, b"early");
        let mut heard = [0; 3];
        ends.client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [0x8a, 1, b'?']);
        ends.inner.write_all(b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err").await.unwrap();
        drop(ends.inner);
        let mut heard = Vec::new();
        ends.client.read_to_end(&mut heard).await.unwrap();
        let text: Vec<u8> =
            heard.split(|byte| *byte == 0x82).flat_map(|message| message.iter().skip(1)).copied().collect();
        assert!(text.starts_with(b"outerr"), "{heard:?}");
        assert!(heard.ends_with(&close(NORMAL)));
        drop(ends.client);
        ends.bridge.await.unwrap();
    }

    #[tokio::test]
    async fn who_says_goodbye_hears_it_and_is_gone_behind_the_bridge() {
        let mut ends = bridged(b"", false);
        ends.client.write_all(&frame(0x88, &[3, 0xe8])).await.unwrap();
        let mut heard = Vec::new();
        ends.client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, close(NORMAL));
        assert_eq!(ends.inner.read(&mut [0; 8]).await.unwrap(), 0);
        ends.bridge.await.unwrap();
    }

    #[tokio::test]
    async fn nonsense_ends_it_with_the_word_for_that() {
        let mut ends = bridged(b"", false);
        ends.client.write_all(b"no frame at all").await.unwrap();
        let mut heard = Vec::new();
        ends.client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, close(PROTOCOL_ERROR));
        ends.bridge.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_goes_is_noticed_though_it_reads_nothing() {
        let ends = bridged(b"", false);
        let mut inner = ends.inner;
        // More than any buffer on the way.
        let writer = tokio::spawn(async move {
            let chunk = vec![7; 1 << 20];
            while inner.write_all(&chunk).await.is_ok() {}
        });
        tokio::task::yield_now().await;
        drop(ends.client);
        ends.bridge.await.unwrap();
        writer.await.unwrap();
    }
}
