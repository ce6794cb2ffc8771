//! Signals by name and number, as `kill`, `--stop-signal` and STOPSIGNAL take them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signal of Linux, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Signal(i32);

/// A text that names no signal. The words are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {text}")]
pub struct SignalError {
    text: String,
}

/// Numbers as on x86-64 and arm64 (signal(7), "Signal numbering for standard signals").
const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", REAL_TIME_MIN),
    ("RTMAX", REAL_TIME_MAX),
];
/// What a C library leaves to programs: it keeps 32 and 33 for its threads.
const REAL_TIME_MIN: i32 = 34;
const REAL_TIME_MAX: i32 = 64;

impl Signal {
    /// SIGKILL.
    pub const KILL: Self = Self(9);
    /// SIGTERM, with which `stop` begins unless told otherwise.
    pub const TERM: Self = Self(15);

    /// The signal of this number.
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=REAL_TIME_MAX).contains(&number).then_some(Self(number))
    }

    /// Its number, 1 to 64.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = SignalError;
    fn from_str(text: &str) -> Result<Self, SignalError> {
        let error = || SignalError { text: text.chars().take(80).collect() };
        if let Ok(number) = text.parse::<i32>() {
            return Self::from_number(number).ok_or_else(error);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(*number));
        }
        let offset = |rest: &str| rest.parse::<i32>().ok().filter(|n| (0..=REAL_TIME_MAX - REAL_TIME_MIN).contains(n));
        match (name.strip_prefix("RTMIN+").and_then(offset), name.strip_prefix("RTMAX-").and_then(offset)) {
            (Some(up), _) => Ok(Self(REAL_TIME_MIN + up)),
            (_, Some(down)) => Ok(Self(REAL_TIME_MAX - down)),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Signal {
    /// `SIGTERM`; real-time signals as `SIGRTMIN+n`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None if self.0 > REAL_TIME_MIN => write!(f, "SIGRTMIN+{}", self.0 - REAL_TIME_MIN),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<i32> for Signal {
    type Error = SignalError;
    fn try_from(number: i32) -> Result<Self, SignalError> {
        Self::from_number(number).ok_or_else(|| SignalError { text: number.to_string() })
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> i32 {
        signal.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("sigkill", 9), ("SIGTERM", 15), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "{text}");
        }
        for bad in ["", "0", "65", "-1", "NOPE", "RTMIN+31", "RTMAX--1"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_signal_prints_what_parses_back() {
        for signal in (1..=64).filter_map(Signal::from_number) {
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }
}
