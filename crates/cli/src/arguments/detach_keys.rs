//! The keys that leave an attached container running: `ctrl-p,ctrl-q` unless told otherwise.

use std::str::FromStr;

/// Control codes, in order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl FromStr for DetachKeys {
    type Err = String;
    /// A list of single characters and `ctrl-` with a letter or one of `@[\]^_`.
    fn from_str(text: &str) -> Result<Self, String> {
        let key = |part: &str| {
            let code = match part.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([letter @ b'a'..=b'z']) => letter - b'a' + 1,
                Some([letter @ b'A'..=b'Z']) => letter - b'A' + 1,
                Some([b'@']) => 0,
                Some([symbol @ (b'[' | b'\\' | b']' | b'^' | b'_')]) => symbol - b'@',
                _ => match part.as_bytes() {
                    [single] => *single,
                    _ => return Err(format!("unknown character: '{part}'")),
                },
            };
            Ok(code)
        };
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// Looks for the keys in what is typed; remembers a beginning from one read to the next.
#[derive(Debug)]
pub struct DetachScanner {
    keys: DetachKeys,
    matched: usize,
}

impl DetachScanner {
    /// A scanner for these keys.
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes typed bytes; what is not part of the keys goes to `passed`. `true` once the keys are complete.
    pub fn scan(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> bool {
        let keys = &self.keys.0;
        for byte in typed {
            if *byte == keys[self.matched] {
                self.matched += 1;
                if self.matched == keys.len() {
                    return true;
                }
                continue;
            }
            passed.extend_from_slice(&keys[..self.matched]);
            self.matched = usize::from(*byte == keys[0] && keys.len() > 1);
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse() {
        for (text, codes) in
            [("ctrl-p,ctrl-q", vec![16, 17]), ("a", vec![97]), ("ctrl-@,ctrl-_", vec![0, 31]), ("ctrl-\\", vec![28])]
        {
            assert_eq!(text.parse(), Ok(DetachKeys(codes)), "{text}");
        }
        for bad in ["", "ctrl-", "ctrl-1", "ab", "a,,b"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_beginning_that_goes_on_otherwise_is_passed_on() {
        let mut scanner = DetachScanner::new(DetachKeys::default());
        let mut passed = Vec::new();
        assert!(!scanner.scan(b"a\x10", &mut passed));
        assert_eq!(passed, b"a");
        assert!(!scanner.scan(b"b\x10\x10", &mut passed));
        assert_eq!(passed, b"a\x10b\x10");
        assert!(scanner.scan(b"\x11", &mut passed));
        assert_eq!(passed, b"a\x10b\x10");
    }
}
