//! Domain names as they stand in messages (RFC 1035, 3.1).

/// The longest label.
const LONGEST_LABEL_BYTES: usize = 63;
/// The longest name, with the lengths of its labels and the root's.
const LONGEST_NAME_BYTES: usize = 255;
/// The two bits of a pointer (RFC 1035, 4.1.4).
const POINTER: u8 = 0xc0;

/// A name in lower case: its labels, each after its length, and the root's empty one. Never compressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// From words with dots between them; one at the end is allowed. `None` where a label is empty or longer than 63
    /// bytes, or the name longer than 255.
    pub fn from_words(words: &str) -> Option<Self> {
        let mut wire = Vec::with_capacity(words.len() + 2);
        for label in words.strip_suffix('.').unwrap_or(words).split('.') {
            if label.is_empty() || label.len() > LONGEST_LABEL_BYTES {
                return None;
            }
            wire.push(u8::try_from(label.len()).ok()?);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= LONGEST_NAME_BYTES).then_some(Self(wire))
    }

    /// The name at `at` that nothing is left out of, as a question's is, and how many bytes it has there.
    pub(crate) fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut end = at;
        loop {
            let length = *message.get(end)?;
            end += 1;
            if length == 0 {
                break;
            }
            if usize::from(length) > LONGEST_LABEL_BYTES {
                return None;
            }
            end += usize::from(length);
            if end - at >= LONGEST_NAME_BYTES {
                return None;
            }
        }
        let spelled = message.get(at..end)?;
        // A length is below 64 and stays what it is: capital letters begin at 65.
        Some((Self(spelled.to_ascii_lowercase()), end - at))
    }

    /// As it stands in a message.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// With dots between the labels and none at the end. `None` for what nobody could write so: a label with a dot, a
    /// blank, or a byte that is not ASCII.
    pub fn words(&self) -> Option<String> {
        let mut words = String::with_capacity(self.0.len());
        for label in self.labels() {
            if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
                return None;
            }
            if !words.is_empty() {
                words.push('.');
            }
            words.extend(label.iter().map(|byte| char::from(*byte)));
        }
        Some(words)
    }

    fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (label, next) = after.split_at_checked(usize::from(*length))?;
            rest = next;
            (!label.is_empty()).then_some(label)
        })
    }
}

/// Where the name at `at` ends, be it compressed or not. What a pointer points to is not looked at.
pub(crate) fn skip(message: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    loop {
        let length = *message.get(end)?;
        match length & POINTER {
            0 if length == 0 => return Some(end + 1),
            0 => end += 1 + usize::from(length),
            POINTER => {
                message.get(end + 1)?;
                return Some(end + 2);
            }
            _ => return None,
        }
        if end - at > LONGEST_NAME_BYTES {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_bytes() {
        for (words, wire) in [
            ("db", Some(&b"\x02db\0"[..])),
            ("DB.MyNet.", Some(b"\x02db\x05mynet\0")),
            ("my_app-1", Some(b"\x08my_app-1\0")),
            ("a..b", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(Name::from_words(words).as_ref().map(Name::wire), wire, "{words:?}");
        }
        let longest = ["x".repeat(63).as_str(); 3].join(".") + "." + &"x".repeat(61);
        assert_eq!(Name::from_words(&longest).unwrap().wire().len(), 255);
        assert_eq!(Name::from_words(&(longest + "x")), None);
        assert_eq!(Name::from_words(&"x".repeat(64)), None);
    }

    #[test]
    fn names_are_read_from_messages() {
        for (message, words) in [
            (&b"\x02Db\x03NET\0rest"[..], Some("db.net")),
            (b"\0", Some("")),
            (b"\x03a.b\0", None),
            (b"\x02\xc3\xa4\0", None),
        ] {
            let (name, length) = Name::read(message, 0).unwrap();
            assert_eq!(name.words().as_deref(), words);
            assert_eq!(message[length - 1], 0);
        }
        for message in [&b"\x02db"[..], b"", b"\x05db\0", b"\xc0\0", b"\x40"] {
            assert_eq!(Name::read(message, 0), None, "{message:?}");
        }
        let long = [&b"\x3f"[..], &[b'x'; 63]].concat().repeat(4);
        assert_eq!(Name::read(&[long.clone(), vec![0]].concat(), 0), None);
        assert_eq!(Name::read(&long, 0), None);
    }

    #[test]
    fn names_are_skipped() {
        for (message, end) in [
            (&b"\x02db\0"[..], Some(4)),
            (b"\x02db\xc0\x0c!", Some(5)),
            (b"\xc0\x0c", Some(2)),
            (b"\xc0", None),
            (b"\x80a", None),
            (b"\x02d", None),
        ] {
            assert_eq!(skip(message, 0), end, "{message:?}");
        }
    }
}
