//! How messages are written to log servers: pure.

mod gelf;

use std::collections::BTreeMap;

use dozen_model::SyslogFormat;
use rustix::time::Timespec;

use super::Stream;
use super::lines::Piece;
use super::settings::{Protocol, RemoteAddress, RemoteSettings};

/// One message, as a server takes it; empty if it cannot be said. `line`: which of the stream's lines it is a part of, for
/// those that join parts again.
pub fn encode(settings: &RemoteSettings, piece: Piece<'_>, stream: Stream, time: Timespec, line: u64) -> Vec<u8> {
    let text = piece.text.strip_suffix(b"\n").unwrap_or(piece.text);
    let partial = Partial::of(piece, line);
    match &settings.protocol {
        Protocol::Syslog { format, facility, hostname } => {
            let priority = facility * 8 + severity(stream);
            syslog(*format, priority, hostname, &settings.tag, &local_time(time), text)
        }
        Protocol::Fluentd { sub_second_precision } => {
            fluentd(settings, *sub_second_precision, stream, time, text, partial)
        }
        Protocol::Journald => journald(settings, stream, text, partial),
        Protocol::Gelf { host, compression } => {
            gelf::encode(settings, host, *compression, severity(stream), time, text)
        }
    }
}

/// What goes out of a message, all or nothing of it; `None`: it is too long. `number` is another for each message.
pub fn units(settings: &RemoteSettings, message: Vec<u8>, number: u32) -> Option<Vec<Vec<u8>>> {
    match (&settings.protocol, &settings.address) {
        (Protocol::Gelf { .. }, RemoteAddress::Udp(_)) => {
            // What another container of this host's sends at the same time has another id.
            let beginning = settings.container_id.get(..8).and_then(|text| u32::from_str_radix(text, 16).ok());
            gelf::datagrams(message, u64::from(beginning.unwrap_or(0)) << 32 | u64::from(number))
        }
        _ => Some(vec![message]),
    }
}

/// Of a line that is longer than a message may be.
struct Partial {
    line: u64,
    part: u32,
    is_last: bool,
}

impl Partial {
    fn of(piece: Piece<'_>, line: u64) -> Option<Self> {
        (piece.part > 0).then(|| Self { line, part: piece.part, is_last: !piece.is_torn() })
    }
}

/// Informational, or an error (RFC 5424, section 6.2.1).
fn severity(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 6,
        Stream::Stderr => 3,
    }
}

/// A moment on the clock of this host.
#[derive(Debug, Clone, Copy)]
struct LocalTime {
    year: i32,
    month: usize,
    day: i32,
    hour: i32,
    minute: i32,
    second: i32,
    microsecond: i64,
    /// Minutes east of Greenwich.
    offset_minutes: i64,
}

fn local_time(time: Timespec) -> LocalTime {
    // SAFETY: an all-zero tm is valid, and localtime_r(3) fills it in or leaves it; it reads no other memory of ours than
    // the two arguments.
    let parts = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        libc::localtime_r(&time.tv_sec, &mut parts);
        parts
    };
    LocalTime {
        year: parts.tm_year + 1900,
        month: usize::try_from(parts.tm_mon).unwrap_or(0).min(11),
        day: parts.tm_mday,
        hour: parts.tm_hour,
        minute: parts.tm_min,
        second: parts.tm_sec,
        microsecond: time.tv_nsec / 1000,
        offset_minutes: parts.tm_gmtoff / 60,
    }
}

impl LocalTime {
    /// `Jan  2 15:04:05` (RFC 3164, section 4.1.2).
    fn stamp(&self) -> String {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let Self { month, day, hour, minute, second, .. } = self;
        format!("{} {day:2} {hour:02}:{minute:02}:{second:02}", MONTHS[*month])
    }

    /// RFC 3339.
    fn rfc3339(&self, with_microseconds: bool) -> String {
        let Self { year, month, day, hour, minute, second, microsecond, offset_minutes } = self;
        let fraction = if with_microseconds { format!(".{microsecond:06}") } else { String::new() };
        let offset = match offset_minutes {
            0 => "Z".to_owned(),
            _ => {
                let sign = if *offset_minutes < 0 { '-' } else { '+' };
                format!("{sign}{:02}:{:02}", offset_minutes.abs() / 60, offset_minutes.abs() % 60)
            }
        };
        format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}", month + 1)
    }
}

/// As Docker's driver writes it; a newline ends every message, whatever carries it. There is one process id that can be
/// said of all messages: the monitor's.
fn syslog(format: SyslogFormat, priority: u8, hostname: &str, tag: &str, time: &LocalTime, text: &[u8]) -> Vec<u8> {
    let pid = std::process::id();
    let head = match format {
        SyslogFormat::Local => format!("<{priority}>{} {tag}[{pid}]: ", time.stamp()),
        SyslogFormat::Rfc3164 => format!("<{priority}>{} {hostname} {tag}[{pid}]: ", time.stamp()),
        SyslogFormat::Rfc5424 => format!("<{priority}>1 {} {hostname} {tag} {pid} {tag} - ", time.rfc3339(false)),
        SyslogFormat::Rfc5424Micro => format!("<{priority}>1 {} {hostname} {tag} {pid} {tag} - ", time.rfc3339(true)),
    };
    [head.as_bytes(), text, b"\n"].concat()
}

/// The forward protocol's "message" mode: `[tag, time, record]` in MessagePack (fluentd's Forward Protocol
/// Specification v1, and msgpack's spec.md).
fn fluentd(
    settings: &RemoteSettings,
    sub_second_precision: bool,
    stream: Stream,
    time: Timespec,
    text: &[u8],
    partial: Option<Partial>,
) -> Vec<u8> {
    let mut record: Vec<(&str, Vec<u8>)> = vec![
        ("container_id", settings.container_id.clone().into_bytes()),
        ("container_name", format!("/{}", settings.container_name).into_bytes()),
        ("source", stream.name().into()),
        ("log", text.to_vec()),
    ];
    if let Some(Partial { line, part, is_last }) = partial {
        record.push(("partial_message", b"true".to_vec()));
        record.push(("partial_id", partial_id(settings, line).into_bytes()));
        record.push(("partial_ordinal", part.to_string().into_bytes()));
        record.push(("partial_last", is_last.to_string().into_bytes()));
    }
    for (name, value) in &settings.attributes {
        record.retain(|(known, _)| known != name);
        record.push((name, value.clone().into_bytes()));
    }
    // An array of three.
    let mut message = vec![0x93];
    put_string(settings.tag.as_bytes(), &mut message);
    let seconds = u32::try_from(time.tv_sec).unwrap_or(0);
    if sub_second_precision {
        // EventTime: an extension of type 0 with eight bytes.
        message.extend_from_slice(&[0xd7, 0]);
        message.extend_from_slice(&seconds.to_be_bytes());
        message.extend_from_slice(&u32::try_from(time.tv_nsec).unwrap_or(0).to_be_bytes());
    } else {
        message.push(0xce);
        message.extend_from_slice(&seconds.to_be_bytes());
    }
    // A map; attributes are what labels and an environment can hold.
    message.push(0xdf);
    message.extend_from_slice(&u32::try_from(record.len()).unwrap_or(0).to_be_bytes());
    for (name, value) in record {
        put_string(name.as_bytes(), &mut message);
        put_string(&value, &mut message);
    }
    message
}

fn put_string(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..256 => out.extend_from_slice(&[0xd9, length as u8]),
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

fn partial_id(settings: &RemoteSettings, line: u64) -> String {
    let short: String = settings.container_id.chars().take(12).collect();
    format!("{short}-{}-{line}", std::process::id())
}

/// systemd's "Native Journal Protocol": a field a line; one whose value has newlines, with its length as 64 bits, little
/// endian.
fn journald(settings: &RemoteSettings, stream: Stream, text: &[u8], partial: Option<Partial>) -> Vec<u8> {
    let short: String = settings.container_id.chars().take(12).collect();
    let mut entry = Vec::new();
    // First, so that no attribute of such a name comes before what it would forge: the journal keeps both.
    put_field("MESSAGE", text, &mut entry);
    put_field("PRIORITY", severity(stream).to_string().as_bytes(), &mut entry);
    put_field("CONTAINER_ID", short.as_bytes(), &mut entry);
    put_field("CONTAINER_ID_FULL", settings.container_id.as_bytes(), &mut entry);
    put_field("CONTAINER_NAME", settings.container_name.as_bytes(), &mut entry);
    put_field("CONTAINER_TAG", settings.tag.as_bytes(), &mut entry);
    put_field("IMAGE_NAME", settings.image_name.as_bytes(), &mut entry);
    put_field("SYSLOG_IDENTIFIER", settings.tag.as_bytes(), &mut entry);
    if let Some(Partial { line, part, is_last }) = partial {
        if !is_last {
            put_field("CONTAINER_PARTIAL_MESSAGE", b"true", &mut entry);
        }
        put_field("CONTAINER_PARTIAL_ID", partial_id(settings, line).as_bytes(), &mut entry);
        put_field("CONTAINER_PARTIAL_ORDINAL", part.to_string().as_bytes(), &mut entry);
        put_field("CONTAINER_PARTIAL_LAST", is_last.to_string().as_bytes(), &mut entry);
    }
    for (name, value) in journal_names(&settings.attributes) {
        put_field(&name, value.as_bytes(), &mut entry);
    }
    entry
}

fn put_field(name: &str, value: &[u8], entry: &mut Vec<u8>) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// Names that the journal takes (systemd.journal-fields(7)): capitals, digits and underscores, which come not first.
fn journal_names(attributes: &BTreeMap<String, String>) -> impl Iterator<Item = (String, &String)> {
    attributes.iter().filter_map(|(name, value)| {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
        let name: String = name.chars().map(plain).skip_while(|letter| *letter == '_').take(64).collect();
        (!name.is_empty() && !name.starts_with(|letter: char| letter.is_ascii_digit())).then_some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use dozen_model::LogDelivery;

    use super::*;

    pub(super) fn settings(protocol: Protocol) -> RemoteSettings {
        RemoteSettings {
            protocol,
            address: RemoteAddress::Unix(PathBuf::from("/nowhere")),
            tag: "web".to_owned(),
            container_id: "0123456789abcdef".to_owned(),
            container_name: "web_1".to_owned(),
            image_name: "nginx".to_owned(),
            attributes: BTreeMap::from([("my-label".to_owned(), "a\nb".to_owned())]),
            delivery: LogDelivery::Blocking,
            may_be_absent: false,
            retry_wait_ms: 100,
        }
    }

    #[test]
    fn syslog_is_written_as_docker_writes_it() {
        let time = LocalTime {
            year: 2026,
            month: 0,
            day: 2,
            hour: 3,
            minute: 4,
            second: 5,
            microsecond: 67,
            offset_minutes: -90,
        };
        let pid = std::process::id();
        for (format, want) in [
            (SyslogFormat::Local, format!("<30>Jan  2 03:04:05 web[{pid}]: hi\n")),
            (SyslogFormat::Rfc3164, format!("<30>Jan  2 03:04:05 host web[{pid}]: hi\n")),
            (SyslogFormat::Rfc5424, format!("<30>1 2026-01-02T03:04:05-01:30 host web {pid} web - hi\n")),
            (SyslogFormat::Rfc5424Micro, format!("<30>1 2026-01-02T03:04:05.000067-01:30 host web {pid} web - hi\n")),
        ] {
            let message = syslog(format, 30, "host", "web", &time, b"hi");
            assert_eq!(String::from_utf8(message).unwrap(), want);
        }
        let protocol = Protocol::Syslog { format: SyslogFormat::Local, facility: 3, hostname: "host".into() };
        let piece = Piece { text: b"hi\n", part: 0 };
        let message = encode(&settings(protocol), piece, Stream::Stderr, Timespec { tv_sec: 0, tv_nsec: 0 }, 0);
        assert!(message.starts_with(b"<27>") && message.ends_with(b": hi\n"), "{message:?}");
    }

    #[test]
    fn fluentd_is_message_pack() {
        let settings = settings(Protocol::Fluentd { sub_second_precision: false });
        let time = Timespec { tv_sec: 258, tv_nsec: 3 };
        let message = encode(&settings, Piece { text: b"hi\n", part: 0 }, Stream::Stdout, time, 0);
        let want = [
            &b"\x93\xa3web\xce\0\0\x01\x02\xdf\0\0\0\x05"[..],
            b"\xaccontainer_id\xb00123456789abcdef",
            b"\xaecontainer_name\xa6/web_1",
            b"\xa6source\xa6stdout\xa3log\xa2hi",
            b"\xa8my-label\xa3a\nb",
        ];
        assert_eq!(message, want.concat());
        let precise = super::fluentd(&settings, true, Stream::Stdout, time, b"", None);
        assert!(precise[5..].starts_with(b"\xd7\0\0\0\x01\x02\0\0\0\x03"));
        let long = encode(&settings, Piece { text: &[b'x'; 300], part: 1 }, Stream::Stdout, time, 7);
        let text = String::from_utf8_lossy(&long);
        assert!(text.contains("partial_message") && text.contains("-7") && text.contains("partial_last"));
        assert!(long.windows(9).any(|window| window == b"\xa3log\xdb\0\0\x01\x2c"));
    }

    #[test]
    fn the_journal_has_its_fields() {
        let time = Timespec { tv_sec: 0, tv_nsec: 0 };
        let entry = encode(&settings(Protocol::Journald), Piece { text: b"hi\n", part: 0 }, Stream::Stderr, time, 0);
        let want = [
            &b"MESSAGE=hi\nPRIORITY=3\nCONTAINER_ID=0123456789ab\nCONTAINER_ID_FULL=0123456789abcdef\n"[..],
            b"CONTAINER_NAME=web_1\nCONTAINER_TAG=web\nIMAGE_NAME=nginx\nSYSLOG_IDENTIFIER=web\n",
            b"MY_LABEL\n\x03\0\0\0\0\0\0\0a\nb\n",
        ];
        assert_eq!(entry, want.concat());
        let names = BTreeMap::from([("_x".to_owned(), String::new()), ("1".to_owned(), String::new())]);
        assert_eq!(journal_names(&names).map(|(name, _)| name).collect::<Vec<_>>(), ["X"]);
        let torn = encode(&settings(Protocol::Journald), Piece { text: b"hi", part: 2 }, Stream::Stdout, time, 1);
        assert!(String::from_utf8_lossy(&torn).contains("CONTAINER_PARTIAL_MESSAGE=true\n"));
    }
}
