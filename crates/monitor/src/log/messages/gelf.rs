//! Graylog's format: GELF 1.1 ("GELF Payload Specification" and "GELF via UDP", "via TCP" of Graylog's documentation), pure.

use std::collections::BTreeMap;
use std::io::Write;

use dozen_model::GelfCompression;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use rustix::time::Timespec;
use serde::Serialize;

use super::super::settings::{RemoteAddress, RemoteSettings};

/// What fits into a packet on the way, with its head: Docker's size.
const DATAGRAM_BYTES: usize = 1420;
/// Magic number, the message's id, the chunk's number, how many there are.
const HEAD_BYTES: usize = 12;
const MAGIC: [u8; 2] = [0x1e, 0x0f];
/// A message of more is thrown away by the server.
const CHUNKS: usize = 128;

#[derive(Serialize)]
struct Payload<'a> {
    version: &'static str,
    host: &'a str,
    short_message: &'a str,
    /// Seconds, with milliseconds behind the point.
    timestamp: f64,
    level: u8,
    /// Each name begins with `_`.
    #[serde(flatten)]
    additional: &'a BTreeMap<String, String>,
}

/// A message as the server takes it, before it is cut into chunks; empty of an empty line, which the format cannot say. Over
/// a connection it ends with a zero byte, and nothing is compressed.
pub(super) fn encode(
    settings: &RemoteSettings,
    host: &str,
    compression: GelfCompression,
    level: u8,
    time: Timespec,
    text: &[u8],
) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    let milliseconds = time.tv_sec as f64 * 1000.0 + (time.tv_nsec / 1_000_000) as f64;
    let payload = Payload {
        version: "1.1",
        host,
        short_message: &String::from_utf8_lossy(text),
        timestamp: milliseconds / 1000.0,
        level,
        additional: &settings.attributes,
    };
    let mut message = serde_json::to_vec(&payload).expect("texts and numbers can be written as JSON");
    if !matches!(settings.address, RemoteAddress::Udp(_)) {
        message.push(0);
        return message;
    }
    let packed = match compression {
        GelfCompression::None => return message,
        GelfCompression::Gzip { level } => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&message).and_then(|()| encoder.finish())
        }
        GelfCompression::Zlib { level } => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&message).and_then(|()| encoder.finish())
        }
    };
    packed.expect("memory takes all that is written to it")
}

/// What goes out of a message: itself, or chunks of it that bear this id; `None`: it is too long for any.
pub(super) fn datagrams(message: Vec<u8>, id: u64) -> Option<Vec<Vec<u8>>> {
    if message.len() <= DATAGRAM_BYTES {
        return Some(vec![message]);
    }
    let chunks = message.chunks(DATAGRAM_BYTES - HEAD_BYTES);
    let count = u8::try_from(chunks.len()).ok().filter(|count| usize::from(*count) <= CHUNKS)?;
    let head = |number: u8| [&MAGIC[..], &id.to_be_bytes(), &[number, count]].concat();
    Some((0..count).zip(chunks).map(|(number, chunk)| [&head(number), chunk].concat()).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::SocketAddr;

    use super::super::tests::settings;
    use super::super::{Piece, Protocol, Stream, encode};
    use super::*;

    fn said(address: RemoteAddress, compression: GelfCompression, text: &[u8]) -> Vec<u8> {
        let mut settings = settings(Protocol::Gelf { host: "here".to_owned(), compression });
        settings.address = address;
        settings.attributes = BTreeMap::from([("_tag".to_owned(), "web".to_owned())]);
        let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 12_999_999 };
        encode(&settings, Piece { text, part: 0 }, Stream::Stderr, time, 0)
    }

    fn address() -> SocketAddr {
        "192.0.2.1:12201".parse().unwrap()
    }

    const WANT: &str = r#"{"version":"1.1","host":"here","short_message":"hi \"you\"","timestamp":1700000000.012,"level":3,"_tag":"web"}"#;

    #[test]
    fn a_message_is_json_of_version_1_1() {
        let text = b"hi \"you\"\n";
        let plain = said(RemoteAddress::Udp(address()), GelfCompression::None, text);
        assert_eq!(String::from_utf8(plain).unwrap(), WANT);
        let stream = said(RemoteAddress::Tcp(address()), GelfCompression::Gzip { level: 1 }, text);
        assert_eq!(String::from_utf8(stream).unwrap(), format!("{WANT}\0"));
        let mut unpacked = String::new();
        let gzip = said(RemoteAddress::Udp(address()), GelfCompression::Gzip { level: 9 }, text);
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut unpacked).unwrap();
        let zlib = said(RemoteAddress::Udp(address()), GelfCompression::Zlib { level: 0 }, text);
        flate2::read::ZlibDecoder::new(&zlib[..]).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, [WANT, WANT].concat());
        assert!(said(RemoteAddress::Tcp(address()), GelfCompression::None, b"\n").is_empty());
        let torn = said(RemoteAddress::Udp(address()), GelfCompression::None, b"\xff\0\n");
        assert!(String::from_utf8(torn).unwrap().contains("\"short_message\":\"\u{fffd}\\u0000\""));
    }

    #[test]
    fn what_is_long_goes_in_chunks() {
        let message: Vec<u8> = (0..3000_u32).map(|number| number as u8).collect();
        let chunks = datagrams(message.clone(), 7).unwrap();
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [1420, 1420, 196]);
        let mut joined = Vec::new();
        for (number, chunk) in chunks.iter().enumerate() {
            assert_eq!(chunk[..HEAD_BYTES], [0x1e, 0x0f, 0, 0, 0, 0, 0, 0, 0, 7, number as u8, 3]);
            joined.extend_from_slice(&chunk[HEAD_BYTES..]);
        }
        assert_eq!(joined, message);
        for (length, count) in
            [(0, Some(1)), (1420, Some(1)), (1421, Some(2)), (1408 * 128, Some(128)), (1408 * 128 + 1, None)]
        {
            assert_eq!(datagrams(vec![0; length], 0).map(|chunks| chunks.len()), count, "{length}");
        }
    }
}
