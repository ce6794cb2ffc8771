//! Where a container's output goes and how much of it is kept: Docker's LogConfig, parsed once.
//!
//! The options are Docker's own ("Configure logging drivers" of its documentation, and a page for each driver), with its
//! defaults and its words where they are wrong. What differs is the default of all: `json-file` keeps three files of
//! 20 MB, the older two compressed, where Docker keeps one without a bound.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;

mod remote;

pub use remote::{FluentdOptions, GelfCompression, GelfOptions, LogAddress, SyslogFormat, SyslogOptions};

/// `mode=non-blocking` without `max-buffer-size` (Docker's 1 MiB).
const BUFFER_DEFAULT_BYTES: u64 = 1 << 20;

/// A log driver with its options, validated. It serializes as what was asked for, and reads the rows of older engines,
/// which knew two numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct LogSpec {
    options: BTreeMap<String, String>,
    driver: LogDriver,
    files: Option<LogFiles>,
    attributes: LogAttributes,
    tag: Option<String>,
    delivery: LogDelivery,
}

/// Who takes the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogDriver {
    /// Docker's JSON lines, in files that other programs may read.
    JsonFile,
    /// Files of our own, smaller and faster.
    Local,
    /// A syslog server.
    Syslog(SyslogOptions),
    /// A fluentd server, or one that speaks its protocol.
    Fluentd(FluentdOptions),
    /// The host's journal.
    Journald,
    /// A Graylog server, or one that speaks its protocol.
    Gelf(GelfOptions),
    /// Nobody.
    None,
}

/// What is kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFiles {
    /// A file is rotated once it is this long; `u64::MAX`: never.
    pub file_size_bytes: u64,
    /// How many files are kept, the current one included. At least 1.
    pub files: u32,
    /// All but the current one are compressed.
    pub compress: bool,
}

/// What of the container's labels and environment goes with every message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogAttributes {
    /// These labels.
    pub labels: Vec<String>,
    /// And those whose name matches.
    pub labels_regex: Option<String>,
    /// These variables.
    pub environment: Vec<String>,
    /// And those whose name matches.
    pub environment_regex: Option<String>,
}

/// What happens when messages come faster than they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogDelivery {
    /// The container waits.
    Blocking,
    /// So much is kept in memory; what comes on top is dropped, and counted.
    NonBlocking {
        /// Bytes of messages.
        buffer_bytes: u64,
    },
}

/// A log configuration that cannot be had. The words are Docker's where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LogSpecError {
    /// [`ErrorKind::Invalid`], or [`ErrorKind::NotBuilt`] for what Docker has and we do not.
    pub kind: ErrorKind,
    message: String,
    /// What to do.
    pub hint: Option<&'static str>,
}

impl LogFiles {
    /// Of `json-file`, where nothing is said: 60 MB a container.
    const JSON_FILE: Self = Self { file_size_bytes: 20_000_000, files: 3, compress: true };
    /// Of `local` (Docker's).
    const LOCAL: Self = Self { file_size_bytes: 20_000_000, files: 5, compress: true };
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            options: BTreeMap::new(),
            driver: LogDriver::JsonFile,
            files: Some(LogFiles::JSON_FILE),
            attributes: LogAttributes::default(),
            tag: None,
            delivery: LogDelivery::Blocking,
        }
    }
}

impl LogDriver {
    /// Its word in requests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::Syslog(_) => "syslog",
            Self::Fluentd(_) => "fluentd",
            Self::Journald => "journald",
            Self::Gelf(_) => "gelf",
            Self::None => "none",
        }
    }
}

impl LogSpec {
    /// What drivers there are, as `info` lists them.
    pub const DRIVERS: &[&str] = &["fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"];

    /// From a driver's name, where an empty one is the default, and its options.
    ///
    /// # Errors
    /// There is no such driver, it has no such option, or the value cannot be.
    pub fn parse(driver: &str, options: &BTreeMap<String, String>) -> Result<Self, LogSpecError> {
        let name = if driver.is_empty() { "json-file" } else { driver };
        let Some(known) = Self::DRIVERS.iter().find(|known| **known == name) else {
            return Err(match name {
                "awslogs" | "etwlogs" | "gcplogs" | "splunk" => not_built(
                    format!("the log driver {name:?}"),
                    "fluentd, gelf, journald, json-file, local, none and syslog are",
                ),
                _ => invalid(format!("logger: no log driver named '{name}' is registered")),
            });
        };
        let mut rest = Options { driver: known, left: options.clone() };
        let driver = match *known {
            "json-file" => LogDriver::JsonFile,
            "local" => LogDriver::Local,
            "syslog" => LogDriver::Syslog(rest.syslog()?),
            "fluentd" => LogDriver::Fluentd(rest.fluentd()?),
            "journald" => LogDriver::Journald,
            "gelf" => LogDriver::Gelf(rest.gelf()?),
            _ => LogDriver::None,
        };
        let has_attributes =
            matches!(driver, LogDriver::JsonFile | LogDriver::Fluentd(_) | LogDriver::Journald | LogDriver::Gelf(_));
        let has_tag = has_attributes || matches!(driver, LogDriver::Syslog(_));
        let spec = Self {
            options: options.clone(),
            files: rest.files(&driver)?,
            attributes: if has_attributes { rest.attributes() } else { LogAttributes::default() },
            tag: if has_tag { rest.take("tag").filter(|tag| !tag.is_empty()) } else { None },
            delivery: rest.delivery(&driver)?,
            driver,
        };
        match rest.left.pop_first() {
            None => Ok(spec),
            Some(_) if spec.driver == LogDriver::None => Err(invalid("invalid logging opts for driver none")),
            Some((name, _)) => Err(invalid(format!("unknown log opt '{name}' for {} log driver", spec.driver.name()))),
        }
    }

    /// The same driver with other values for some options; an empty value takes an option away.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn with(&self, changes: &BTreeMap<String, String>) -> Result<Self, LogSpecError> {
        let mut options = self.options.clone();
        options.extend(changes.clone());
        options.retain(|_, value| !value.is_empty());
        Self::parse(self.driver.name(), &options)
    }

    /// Who takes the output.
    pub fn driver(&self) -> &LogDriver {
        &self.driver
    }

    /// The options as they were asked for.
    pub fn options(&self) -> &BTreeMap<String, String> {
        &self.options
    }

    /// What is kept on disk; `None`: nothing, and `logs` has nothing to read.
    pub fn files(&self) -> Option<LogFiles> {
        self.files
    }

    /// What goes with every message.
    pub fn attributes(&self) -> &LogAttributes {
        &self.attributes
    }

    /// A template for the name under which messages go, as written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// What happens when messages come faster than they are taken.
    pub fn delivery(&self) -> LogDelivery {
        self.delivery
    }
}

fn invalid(message: impl Into<String>) -> LogSpecError {
    LogSpecError { kind: ErrorKind::Invalid, message: message.into(), hint: None }
}

fn not_built(what: String, hint: &'static str) -> LogSpecError {
    LogSpecError { kind: ErrorKind::NotBuilt, message: format!("{what} is not built yet"), hint: Some(hint) }
}

/// The options that nobody has taken yet.
struct Options {
    driver: &'static str,
    left: BTreeMap<String, String>,
}

impl Options {
    fn take(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    fn parsed<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, LogSpecError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| invalid(format!("invalid value for the log option {name}: {text:?}")))
    }

    fn files(&mut self, driver: &LogDriver) -> Result<Option<LogFiles>, LogSpecError> {
        let default = match driver {
            LogDriver::None => return Ok(None),
            LogDriver::JsonFile => LogFiles::JSON_FILE,
            LogDriver::Local => LogFiles::LOCAL,
            // A copy of what the server gets, so that `logs` has something to read (Docker's "dual logging").
            LogDriver::Syslog(_) | LogDriver::Fluentd(_) | LogDriver::Journald | LogDriver::Gelf(_) => {
                let files = self.kept("cache-max-size", "cache-max-file", "cache-compress", LogFiles::LOCAL)?;
                return Ok((self.parsed("cache-disabled", boolean)? != Some(true)).then_some(files));
            }
        };
        self.kept("max-size", "max-file", "compress", default).map(Some)
    }

    /// Of the default, what is not said otherwise; but whoever says something of `json-file`'s files has Docker's
    /// defaults for the rest: one file, uncompressed.
    fn kept(&mut self, size: &str, count: &str, compress: &str, default: LogFiles) -> Result<LogFiles, LogSpecError> {
        let size = self.parsed(size, |text| match text {
            "-1" => Some(u64::MAX),
            _ => decimal_size(text).filter(|size| *size > 0),
        })?;
        let files = self.parsed(count, |text| text.parse::<u32>().ok().filter(|files| *files > 0))?;
        let compress = self.parsed(compress, boolean)?;
        let is_dockers = self.driver == "json-file" && (size.is_some() || files.is_some());
        let file_size_bytes = size.unwrap_or(default.file_size_bytes);
        let files = files.unwrap_or(if is_dockers { 1 } else { default.files });
        if compress == Some(true) && (files == 1 || file_size_bytes == u64::MAX) {
            return Err(invalid("compress cannot be true when max-file is less than 2 or max-size is not set"));
        }
        let compress = compress.unwrap_or(default.compress && !is_dockers);
        Ok(LogFiles { file_size_bytes, files, compress })
    }

    fn attributes(&mut self) -> LogAttributes {
        let mut names = |option: &str| -> Vec<String> {
            let text = self.take(option).unwrap_or_default();
            text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let (labels, environment) = (names("labels"), names("env"));
        let mut expression = |option: &str| self.take(option).filter(|text| !text.is_empty());
        LogAttributes {
            labels,
            environment,
            labels_regex: expression("labels-regex"),
            environment_regex: expression("env-regex"),
        }
    }

    fn delivery(&mut self, driver: &LogDriver) -> Result<LogDelivery, LogSpecError> {
        if self.driver == "none" {
            return Ok(LogDelivery::Blocking);
        }
        let is_blocking = match self.take("mode").as_deref() {
            None | Some("" | "blocking") => true,
            Some("non-blocking") => false,
            Some(mode) => return Err(invalid(format!("logger: logging mode not supported: {mode}"))),
        };
        if is_blocking && self.left.contains_key("max-buffer-size") {
            return Err(invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'"));
        }
        let buffer_bytes = self.parsed("max-buffer-size", binary_size)?.unwrap_or(BUFFER_DEFAULT_BYTES);
        if is_blocking {
            return Ok(LogDelivery::Blocking);
        }
        if matches!(driver, LogDriver::JsonFile | LogDriver::Local) {
            return Err(not_built(
                format!("mode=non-blocking for the log driver {}", self.driver),
                "a file is written to the page cache, which hardly ever waits",
            ));
        }
        Ok(LogDelivery::NonBlocking { buffer_bytes: buffer_bytes.max(1) })
    }
}

/// Go's strconv.ParseBool.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `20m` is 20 000 000: Docker's log options count in powers of 1000 (go-units, FromHumanSize).
fn decimal_size(text: &str) -> Option<u64> {
    size(text, 1000)
}

/// `4m` is 4 MiB (go-units, RAMInBytes).
fn binary_size(text: &str) -> Option<u64> {
    size(text, 1024)
}

fn size(text: &str, base: u64) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.strip_suffix('b').unwrap_or(&lower);
    let number = number.strip_suffix('i').unwrap_or(number);
    let (number, power) = match number.char_indices().last() {
        Some((at, unit)) => match "kmgtp".find(unit) {
            Some(power) => (&number[..at], power as u32 + 1),
            None => (number, 0),
        },
        None => return None,
    };
    let number = number.trim_end_matches(' ');
    let factor = base.checked_pow(power)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor) / 10_u128.pow(fraction.len() as u32);
    whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?)
}

/// In the ledger.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Config {
        driver: String,
        options: BTreeMap<String, String>,
    },
    /// Until drivers could be chosen.
    Limits {
        file_size_bytes: u64,
        files: u32,
    },
}

impl From<LogSpec> for Stored {
    fn from(spec: LogSpec) -> Self {
        Self::Config { driver: spec.driver.name().to_owned(), options: spec.options }
    }
}

impl TryFrom<Stored> for LogSpec {
    type Error = LogSpecError;
    fn try_from(stored: Stored) -> Result<Self, LogSpecError> {
        match stored {
            Stored::Config { driver, options } => Self::parse(&driver, &options),
            Stored::Limits { file_size_bytes: 20_000_000, files: 3 } => Ok(Self::default()),
            Stored::Limits { file_size_bytes, files } => {
                let size = if file_size_bytes == u64::MAX { "-1".to_owned() } else { file_size_bytes.to_string() };
                let options = [("max-size", size), ("max-file", files.to_string())];
                Self::parse("json-file", &options.map(|(name, value)| (name.to_owned(), value)).into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
