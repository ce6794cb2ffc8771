//! Parts of a blob: `Content-Range` of an answer (RFC 9110, section 14.4).

/// Where what comes stands in the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of the first byte.
    pub begin: u64,
    /// Of the first that does not come any more.
    pub end: u64,
    /// Bytes of the whole, if that is said.
    pub whole_bytes: Option<u64>,
}

impl Part {
    /// Reads `bytes 0-499/1234`; `None` for what is none, or cannot be true.
    pub fn read(field: &str) -> Option<Self> {
        let (unit, range) = field.trim().split_once(' ')?;
        let (range, whole) = range.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let whole_bytes = if whole == "*" { None } else { Some(number(whole)?) };
        let part = Self { begin: number(first)?, end: number(last)?.checked_add(1)?, whole_bytes };
        let is_true = part.begin < part.end && whole_bytes.is_none_or(|whole| part.end <= whole);
        (unit.eq_ignore_ascii_case("bytes") && is_true).then_some(part)
    }
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Whether an answer is the part that was asked for, with nothing of what stands around it. One that is shorter is one, too
/// (RFC 9110, section 15.3.7: what is not satisfied may be asked for again).
pub fn is_part(status: u16, content_range: Option<&str>, begin: u64, end: u64, whole_bytes: u64) -> bool {
    let is_asked = |part: Part| {
        part.begin == begin && part.end <= end && part.whole_bytes.is_none_or(|whole| whole == whole_bytes)
    };
    status == 206 && content_range.and_then(Part::read).is_some_and(is_asked)
}

/// What to do with an answer to `Range: bytes={begin}-`, of a blob with so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// It goes on where it was.
    Goes,
    /// It begins anew: so many bytes are there already, and are to be read over.
    Again(u64),
    /// It is something else.
    Wrong(&'static str),
}

/// See [`Resumed`]; of an answer its status and its `Content-Range`.
pub fn resumed(status: u16, content_range: Option<&str>, begin: u64, whole_bytes: u64) -> Resumed {
    match (status, content_range.map(Part::read)) {
        (200, _) => Resumed::Again(begin),
        (206, Some(Some(part))) if part.begin != begin => Resumed::Wrong("it sends another part than it was asked for"),
        (206, Some(Some(part))) if part.whole_bytes.is_some_and(|whole| whole != whole_bytes) => {
            Resumed::Wrong("what it sends has got another size meanwhile")
        }
        (206, Some(Some(_))) => Resumed::Goes,
        (206, _) => Resumed::Wrong("it sends a part and does not say which"),
        _ => Resumed::Wrong("it does not send the rest"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_read() {
        let part = |begin, end, whole_bytes| Some(Part { begin, end, whole_bytes });
        for (field, want) in [
            ("bytes 0-499/1234", part(0, 500, Some(1234))),
            ("Bytes 5-5/*", part(5, 6, None)),
            (" bytes 5-9/10 ", part(5, 10, Some(10))),
            ("bytes 5-9/9", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes +1-2/3", None),
            ("items 0-1/2", None),
            ("bytes", None),
            ("", None),
        ] {
            assert_eq!(Part::read(field), want, "{field}");
        }
    }

    #[test]
    fn what_goes_on_is_told_from_what_does_not() {
        for (status, field, want) in [
            (206, Some("bytes 5-9/10"), Resumed::Goes),
            (206, Some("bytes 5-9/*"), Resumed::Goes),
            (200, None, Resumed::Again(5)),
            (206, Some("bytes 4-9/10"), Resumed::Wrong("it sends another part than it was asked for")),
            (206, Some("bytes 5-10/11"), Resumed::Wrong("what it sends has got another size meanwhile")),
            (206, None, Resumed::Wrong("it sends a part and does not say which")),
            (206, Some("bytes */10"), Resumed::Wrong("it sends a part and does not say which")),
            (416, Some("bytes */10"), Resumed::Wrong("it does not send the rest")),
        ] {
            assert_eq!(resumed(status, field, 5, 10), want, "{status} {field:?}");
        }
    }

    #[test]
    fn parts_are_told_from_what_nobody_asked_for() {
        for (status, field, want) in [
            (206, Some("bytes 5-9/100"), true),
            (206, Some("bytes 5-9/*"), true),
            (206, Some("bytes 5-7/100"), true),
            (206, Some("bytes 5-10/100"), false),
            (206, Some("bytes 4-9/100"), false),
            (206, Some("bytes 5-9/101"), false),
            (206, None, false),
            (200, None, false),
            (200, Some("bytes 5-9/100"), false),
        ] {
            assert_eq!(is_part(status, field, 5, 10, 100), want, "{status} {field:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(begin in 0u64..1 << 40, length in 1u64..1 << 40, more in 0u64..9) {
            let end = begin + length;
            let written = format!("bytes {begin}-{}/{}", end - 1, end + more);
            prop_assert_eq!(Part::read(&written), Some(Part { begin, end, whole_bytes: Some(end + more) }));
        }
    }
}
