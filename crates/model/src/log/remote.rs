//! Log servers: where they are, and what they are told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{LogSpecError, Options, boolean, invalid, not_built};

/// Where a log server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogAddress {
    /// Datagrams to a host, by name or address, and port.
    Udp(String, u16),
    /// A connection to a host and port.
    Tcp(String, u16),
    /// A connection to a socket of this host's.
    Unix(PathBuf),
    /// Datagrams to a socket of this host's.
    UnixDatagram(PathBuf),
}

/// `--log-driver syslog`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogOptions {
    /// `None`: this host's own, /dev/log.
    pub address: Option<LogAddress>,
    /// 0 to 23 (RFC 5424, section 6.2.1).
    pub facility: u8,
    /// How messages are written.
    pub format: SyslogFormat,
}

/// How messages are written, as Docker writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogFormat {
    /// As /dev/log expects it: RFC 3164 without a host's name.
    Local,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424, with seconds.
    Rfc5424,
    /// RFC 5424, with microseconds.
    Rfc5424Micro,
}

/// `--log-driver fluentd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluentdOptions {
    /// By default port 24224 of this host.
    pub address: LogAddress,
    /// The container starts though nobody listens there.
    pub asynchronous: bool,
    /// Between two attempts to connect, in milliseconds; doubled each time.
    pub retry_wait_ms: u64,
    /// Times are sent with nanoseconds.
    pub sub_second_precision: bool,
}

/// `--log-driver gelf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GelfOptions {
    /// By UDP or TCP.
    pub address: LogAddress,
    /// Of datagrams.
    pub compression: GelfCompression,
    /// Between two attempts to connect, in milliseconds; doubled each time.
    pub retry_wait_ms: u64,
}

/// How a message is compressed. A level is 0 to 9, as zlib has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "plain")]
pub enum GelfCompression {
    None,
    Gzip { level: u32 },
    Zlib { level: u32 },
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "", "", "",
    "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

impl Options {
    pub(super) fn syslog(&mut self) -> Result<SyslogOptions, LogSpecError> {
        for option in ["syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"] {
            if self.take(option).is_some() {
                return Err(not_built(format!("the log option {option}"), "tcp, udp, unix and unixgram are"));
            }
        }
        let address = self.take("syslog-address").filter(|text| !text.is_empty());
        let facility = self.take("syslog-facility").filter(|text| !text.is_empty());
        let format = self.take("syslog-format").unwrap_or_default();
        Ok(SyslogOptions {
            address: address.map(|text| syslog_address(&text)).transpose()?,
            facility: match facility.as_deref() {
                None => 3,
                Some(name) => FACILITIES
                    .iter()
                    .position(|known| *known == name)
                    .or_else(|| name.parse().ok().filter(|number| *number < FACILITIES.len()))
                    .and_then(|number| u8::try_from(number).ok())
                    .ok_or_else(|| invalid(format!("invalid syslog facility {name:?}")))?,
            },
            format: match format.as_str() {
                "" => SyslogFormat::Local,
                "rfc3164" => SyslogFormat::Rfc3164,
                "rfc5424" => SyslogFormat::Rfc5424,
                "rfc5424micro" => SyslogFormat::Rfc5424Micro,
                other => return Err(invalid(format!("invalid syslog format {other:?}"))),
            },
        })
    }

    pub(super) fn fluentd(&mut self) -> Result<FluentdOptions, LogSpecError> {
        if self.parsed("fluentd-request-ack", boolean)? == Some(true) {
            return Err(not_built("the log option fluentd-request-ack".to_owned(), "leave it out"));
        }
        for option in ["fluentd-max-retries", "fluentd-write-timeout", "fluentd-async-reconnect-interval"] {
            if self.take(option).is_some() {
                return Err(not_built(
                    format!("the log option {option}"),
                    "a server that is gone is asked again for as long as the container runs",
                ));
            }
        }
        if self.take("fluentd-buffer-limit").is_some() {
            return Err(not_built(
                "the log option fluentd-buffer-limit".to_owned(),
                "use mode=non-blocking and max-buffer-size",
            ));
        }
        let old_name = self.parsed("fluentd-async-connect", boolean)?;
        let address = self.take("fluentd-address").filter(|text| !text.is_empty());
        Ok(FluentdOptions {
            address: fluentd_address(address.as_deref().unwrap_or("127.0.0.1:24224"))?,
            asynchronous: self.parsed("fluentd-async", boolean)?.or(old_name).unwrap_or(false),
            retry_wait_ms: self.parsed("fluentd-retry-wait", duration_ms)?.unwrap_or(500),
            sub_second_precision: self.parsed("fluentd-sub-second-precision", boolean)?.unwrap_or(false),
        })
    }
}

impl Options {
    /// Docker's options and words (its `daemon/logger/gelf`).
    pub(super) fn gelf(&mut self) -> Result<GelfOptions, LogSpecError> {
        if self.take("gelf-tcp-max-reconnect").is_some() {
            return Err(not_built(
                "the log option gelf-tcp-max-reconnect".to_owned(),
                "a server that is gone is asked again for as long as the container runs",
            ));
        }
        let unknown = |option: &str, value: &str| {
            invalid(format!("unknown value {value:?} for log opt {option:?} for gelf log driver"))
        };
        let text = self.take("gelf-address").filter(|text| !text.is_empty());
        let address = gelf_address(&text.ok_or_else(|| invalid("gelf-address is a required parameter"))?)?;
        let is_udp = matches!(address, LogAddress::Udp(..));
        let (kind, level, delay) = (
            self.take("gelf-compression-type"),
            self.take("gelf-compression-level"),
            self.take("gelf-tcp-reconnect-delay"),
        );
        if !is_udp && (kind.is_some() || level.is_some()) {
            return Err(invalid("compression is only supported on UDP"));
        }
        if is_udp && delay.is_some() {
            return Err(invalid("\"gelf-tcp-reconnect-delay\" is only valid for TCP"));
        }
        let level = match level.as_deref() {
            // The fastest: Docker's, too.
            None => 1,
            // zlib's own.
            Some("-1") => 6,
            Some(text) => {
                let level = text.parse::<u32>().ok().filter(|level| *level <= 9);
                level.ok_or_else(|| unknown("gelf-compression-level", text))?
            }
        };
        Ok(GelfOptions {
            address,
            compression: match kind.as_deref() {
                None | Some("gzip") => GelfCompression::Gzip { level },
                Some("zlib") => GelfCompression::Zlib { level },
                Some("none") => GelfCompression::None,
                Some(other) => return Err(unknown("gelf-compression-type", other)),
            },
            retry_wait_ms: match delay.as_deref() {
                None => 1000,
                Some(text) => {
                    let seconds = text.parse::<u64>().ok().filter(|seconds| (1..=3600).contains(seconds));
                    seconds.ok_or_else(|| {
                        invalid(format!("\"gelf-tcp-reconnect-delay\" must be a positive integer: {text:?}"))
                    })? * 1000
                }
            },
        })
    }
}

fn gelf_address(text: &str) -> Result<LogAddress, LogSpecError> {
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| invalid(format!("gelf-address should be in form proto://address, got {text}")))?;
    if !matches!(scheme, "udp" | "tcp") {
        return Err(invalid("gelf: endpoint needs to be TCP or UDP"));
    }
    // No port is the usual one here, and Docker wants it said.
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    if !has_port || rest.ends_with(':') {
        return Err(invalid("gelf: please provide gelf-address as proto://host:port"));
    }
    let (host, port) = host_and_port(rest, 0)?;
    Ok(if scheme == "udp" { LogAddress::Udp(host, port) } else { LogAddress::Tcp(host, port) })
}

fn syslog_address(text: &str) -> Result<LogAddress, LogSpecError> {
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| invalid(format!("syslog-address should be in form proto://address, got {text}")))?;
    match scheme {
        "unix" => path(rest).map(LogAddress::Unix),
        "unixgram" => path(rest).map(LogAddress::UnixDatagram),
        "udp" => host_and_port(rest, 514).map(|(host, port)| LogAddress::Udp(host, port)),
        "tcp" => host_and_port(rest, 514).map(|(host, port)| LogAddress::Tcp(host, port)),
        "tcp+tls" => Err(not_built("syslog over tcp+tls".to_owned(), "tcp, udp, unix and unixgram are")),
        _ => Err(invalid(format!("unsupported scheme: '{scheme}'"))),
    }
}

fn fluentd_address(text: &str) -> Result<LogAddress, LogSpecError> {
    match text.split_once("://") {
        Some(("unix", rest)) => path(rest).map(LogAddress::Unix),
        Some(("tls", _)) => Err(not_built("fluentd over tls".to_owned(), "tcp and unix are")),
        Some(("tcp", rest)) => host_and_port(rest, 24224).map(|(host, port)| LogAddress::Tcp(host, port)),
        None => host_and_port(text, 24224).map(|(host, port)| LogAddress::Tcp(host, port)),
        Some((scheme, _)) => Err(invalid(format!("unsupported scheme: '{scheme}'"))),
    }
}

fn path(text: &str) -> Result<PathBuf, LogSpecError> {
    // sun_path of unix(7), with its end.
    if text.starts_with('/') && text.len() < 108 {
        Ok(text.into())
    } else {
        Err(invalid(format!("invalid path of a log server's socket: {text:?}")))
    }
}

fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), LogSpecError> {
    let bad = || invalid(format!("invalid address of a log server: {text:?}"));
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (host, rest.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, Some(port)),
            Some(_) => return Err(bad()),
            None => (text, None),
        },
    };
    let port = match port {
        None => default_port,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(is_name) {
        return Err(bad());
    }
    Ok((host.to_owned(), port))
}

/// `500ms`, `2s`, `1m` (Go's time.ParseDuration, one unit).
fn duration_ms(text: &str) -> Option<u64> {
    let unit = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    number.parse::<u64>().ok().filter(|number| *number > 0)?.checked_mul(factor).filter(|all| *all <= 3_600_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_or_are_refused() {
        let tcp = |host: &str, port| Ok(LogAddress::Tcp(host.to_owned(), port));
        assert_eq!(syslog_address("tcp://10.0.0.1:601"), tcp("10.0.0.1", 601));
        assert_eq!(syslog_address("tcp://[fd00::1]"), tcp("fd00::1", 514));
        assert_eq!(syslog_address("udp://logs.example"), Ok(LogAddress::Udp("logs.example".into(), 514)));
        assert_eq!(syslog_address("unixgram:///dev/log"), Ok(LogAddress::UnixDatagram("/dev/log".into())));
        assert_eq!(fluentd_address("here:1"), tcp("here", 1));
        assert_eq!(fluentd_address("tcp://here"), tcp("here", 24224));
        assert_eq!(fluentd_address("unix:///s"), Ok(LogAddress::Unix("/s".into())));
        for bad in
            ["tcp://", "tcp://a:0", "tcp://a:b", "tcp://a b", "tcp://::1", "ftp://a", "a", "unix://here", "tcp+tls://a"]
        {
            assert!(syslog_address(bad).is_err(), "{bad}");
        }
        assert_eq!(
            [duration_ms("500ms"), duration_ms("2s"), duration_ms("2"), duration_ms("0s")],
            [Some(500), Some(2000), None, None]
        );
    }
}
