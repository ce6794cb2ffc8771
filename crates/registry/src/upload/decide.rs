//! What is done about an upload that stopped: it goes on where the server has it, begins anew, or has failed.

use crate::Refusal;

/// What a server still has of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// So many bytes from the beginning.
    Bytes(u64),
    /// Nothing that could be gone on with.
    Lost,
}

/// Of the answer to the question where an upload is: its status, and its field `Range`, which has no unit (OCI
/// distribution-spec, "Pushing a blob in chunks"). `0-0` is said of an empty upload as well (distribution, of those that are
/// not to be resumed): it counts as one, since a byte that is sent twice would be found out only in the end.
pub(super) fn kept(status: u16, range: Option<&str>, size_bytes: u64) -> Kept {
    if !matches!(status, 200 | 202 | 204) {
        return Kept::Lost;
    }
    let Some(range) = range else { return Kept::Bytes(0) };
    let range = range.trim().strip_prefix("bytes=").unwrap_or(range.trim());
    let last = range.strip_prefix("0-").filter(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    match last.and_then(|last| last.parse::<u64>().ok()) {
        Some(0) => Kept::Bytes(0),
        Some(last) if last < size_bytes => Kept::Bytes(last + 1),
        _ => Kept::Lost,
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The server is asked how far it is.
    Ask,
    /// It begins anew.
    Anew,
    /// It has failed.
    GiveUp,
}

/// After a refusal. `is_resumed`: what the server has came in several parts.
pub(super) fn then(refusal: &Refusal, is_resumed: bool) -> Then {
    let is = |code| refusal.is(code);
    match refusal.status {
        408 | 429 | 500 | 502..=504 => Then::Ask,
        _ if is("BLOB_UPLOAD_UNKNOWN") || is("BLOB_UPLOAD_INVALID") => Then::Anew,
        // It may have been put together wrongly.
        _ if is_resumed && (is("DIGEST_INVALID") || is("SIZE_INVALID")) => Then::Anew,
        404 | 410 | 416 if refusal.errors.is_empty() => Then::Anew,
        416 => Then::Ask,
        _ => Then::GiveUp,
    }
}

/// After a refusal of what came without a length: whether it may be taken with one. Some servers want to know it (RFC 9110,
/// section 15.5.12, "411 Length Required"), and not all of them say so in these words.
pub(super) fn wants_length(status: u16) -> bool {
    matches!(status, 400 | 405 | 411 | 416 | 501)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Said;

    #[test]
    fn how_far_it_is_is_read() {
        use Kept::{Bytes, Lost};
        for (status, range, want) in [
            (204, Some("0-499"), Bytes(500)),
            (204, Some("bytes=0-499"), Bytes(500)),
            (202, Some(" 0-999 "), Bytes(1000)),
            (204, Some("0-0"), Bytes(0)),
            (204, None, Bytes(0)),
            (204, Some("0-1000"), Lost),
            (204, Some("5-9"), Lost),
            (204, Some("0--1"), Lost),
            (204, Some("0-99999999999999999999"), Lost),
            (204, Some(""), Lost),
            (404, Some("0-499"), Lost),
            (500, None, Lost),
        ] {
            assert_eq!(kept(status, range, 1000), want, "{status} {range:?}");
        }
    }

    #[test]
    fn what_a_refusal_means() {
        use Then::{Anew, Ask, GiveUp};
        for (status, code, is_resumed, want) in [
            (503, "", false, Ask),
            (429, "TOOMANYREQUESTS", false, Ask),
            (404, "BLOB_UPLOAD_UNKNOWN", false, Anew),
            (400, "BLOB_UPLOAD_INVALID", false, Anew),
            (404, "", false, Anew),
            (404, "NAME_UNKNOWN", false, GiveUp),
            (416, "RANGE_INVALID", false, Ask),
            (416, "", false, Anew),
            (400, "DIGEST_INVALID", false, GiveUp),
            (400, "DIGEST_INVALID", true, Anew),
            (403, "DENIED", true, GiveUp),
            (401, "UNAUTHORIZED", false, GiveUp),
            (413, "", false, GiveUp),
            (507, "", false, GiveUp),
        ] {
            let said = Said { code: code.into(), message: String::new() };
            let errors = if code.is_empty() { vec![] } else { vec![said] };
            assert_eq!(then(&Refusal { status, errors }, is_resumed), want, "{status} {code} {is_resumed}");
        }
    }

    #[test]
    fn who_wants_a_length_is_told_one() {
        for (status, want) in
            [(400, true), (411, true), (501, true), (401, false), (404, false), (413, false), (503, false)]
        {
            assert_eq!(wants_length(status), want, "{status}");
        }
    }
}
