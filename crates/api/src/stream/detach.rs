//! The keys by which a user leaves a terminal without ending what runs in it: ctrl-p, ctrl-q.

use crate::error::ApiError;

/// What Docker detaches on unless told otherwise: ctrl-p, ctrl-q.
const DEFAULT: [u8; 2] = [16, 17];

/// Watches typed bytes for the sequence. A begun sequence is held back until it is clear what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

/// What to do after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Typed {
    Go,
    Detach,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self { keys: DEFAULT.to_vec(), matched: 0 }
    }
}

impl std::str::FromStr for DetachKeys {
    type Err = ApiError;
    /// `ctrl-a`, `x`, or several of them, comma between them.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let key = |word: &str| -> Option<u8> {
            if let [byte] = word.as_bytes() {
                return Some(*byte);
            }
            match word.strip_prefix("ctrl-")?.as_bytes() {
                [letter @ (b'a'..=b'z')] => Some(letter - b'a' + 1),
                [b'@'] => Some(0),
                [sign @ b'['..=b'_'] => Some(sign - b'@'),
                _ => None,
            }
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys {
            Some(keys) if keys.len() <= 64 => Ok(Self { keys, matched: 0 }),
            _ => Err(ApiError::invalid(format!("Invalid escape keys ({text}) provided"))
                .with_hint("write keys as ctrl-<letter> or one character, comma between them: ctrl-p,ctrl-q")),
        }
    }
}

impl DetachKeys {
    /// Appends to `out` what may pass of `typed`. After `Detach` the rest is dropped.
    pub(crate) fn filter(&mut self, typed: &[u8], out: &mut Vec<u8>) -> Typed {
        for byte in typed {
            if self.keys.get(self.matched) != Some(byte) && self.matched > 0 {
                out.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return Typed::Detach;
                }
            } else {
                out.push(*byte);
            }
        }
        Typed::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_sequence_is_found_across_reads_and_held_back_until_then() {
        let (mut keys, mut out) = (DetachKeys::default(), Vec::new());
        assert_eq!(keys.filter(b"ls\x10", &mut out), Typed::Go);
        assert_eq!(out, b"ls");
        assert_eq!(keys.filter(b"x\x10\x10", &mut out), Typed::Go);
        assert_eq!(out, b"ls\x10x\x10");
        assert_eq!(keys.filter(b"\x11never", &mut out), Typed::Detach);
        assert_eq!(out, b"ls\x10x\x10");
    }

    #[test]
    fn keys_parse_or_are_refused() {
        for (text, keys) in
            [("ctrl-p,ctrl-q", vec![16, 17]), ("ctrl-@", vec![0]), ("a,b", vec![97, 98]), ("ctrl-[", vec![27])]
        {
            assert_eq!(text.parse::<DetachKeys>().map(|k| k.keys), Ok(keys), "{text}");
        }
        for bad in ["", "ctrl-", "ctrl-A", "shift-a", "ab", "a,,b", "ctrl-é"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_what_was_typed(typed in proptest::collection::vec(14u8..18, 0..40)) {
            let (mut keys, mut out) = (DetachKeys::default(), Vec::new());
            if keys.filter(&typed, &mut out) == Typed::Go {
                out.extend_from_slice(&keys.keys[..keys.matched]);
                prop_assert_eq!(out, typed);
            }
        }
    }
}
