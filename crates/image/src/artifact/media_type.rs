//! What a file is, by its first bytes (WHATWG, "MIME Sniffing", section 7, "Determining the computed MIME type of a resource",
//! as far as no browser is needed for it), with the names that podman's artifacts have for it.

/// So much of a file is looked at.
pub(super) const SNIFFED_BYTES: usize = 512;

const TEXT: &str = "text/plain; charset=utf-8";
const BINARY: &str = "application/octet-stream";

/// Tags that a page of HTML may begin with.
const HTML: [&str; 17] = [
    "<!DOCTYPE HTML",
    "<HTML",
    "<HEAD",
    "<SCRIPT",
    "<IFRAME",
    "<H1",
    "<DIV",
    "<FONT",
    "<TABLE",
    "<A",
    "<STYLE",
    "<TITLE",
    "<B",
    "<BODY",
    "<BR",
    "<P",
    "<!--",
];

/// A beginning, with the places in it that count (`None`: any byte), and what it means.
const BEGINNINGS: [(&[u8], &str); 31] = [
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xfe\xff", "text/plain; charset=utf-16be"),
    (b"\xff\xfe", "text/plain; charset=utf-16le"),
    (b"\xef\xbb\xbf", TEXT),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"ID3", "audio/mpeg"),
    (b"OggS\x00", "application/ogg"),
    (b"MThd\x00\x00\x00\x06", "audio/midi"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"\x00\x01\x00\x00", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"Rar!\x1a\x07\x00", "application/x-rar-compressed"),
    (b"Rar!\x1a\x07\x01\x00", "application/x-rar-compressed"),
    (b"\x00asm", "application/wasm"),
    (b".snd", "audio/basic"),
    (b"FORM????AIFF", "audio/aiff"),
    (b"RIFF????AVI ", "video/avi"),
    (b"RIFF????WAVE", "audio/wave"),
    (b"RIFF????WEBPVP", "image/webp"),
];

/// See the module.
pub(super) fn sniff(bytes: &[u8]) -> &'static str {
    let text = bytes.trim_ascii_start();
    if HTML.iter().any(|tag| begins_html(text, tag)) {
        return "text/html; charset=utf-8";
    }
    if text.starts_with(b"<?xml") {
        return "text/xml; charset=utf-8";
    }
    if let Some((_, kind)) = BEGINNINGS.iter().find(|(beginning, _)| begins(bytes, beginning)) {
        return kind;
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return "video/mp4";
    }
    // "Binary data byte", section 3.
    let is_binary = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    if bytes.iter().any(is_binary) { BINARY } else { TEXT }
}

/// A question mark stands for any byte.
fn begins(bytes: &[u8], beginning: &[u8]) -> bool {
    let is_same = |(byte, wanted): (&u8, &u8)| byte == wanted || *wanted == b'?';
    bytes.len() >= beginning.len() && bytes.iter().zip(beginning).all(is_same)
}

/// A tag in whatever letters, and behind it a byte that ends it; a comment needs none.
fn begins_html(text: &[u8], tag: &str) -> bool {
    let Some(begin) = text.get(..tag.len()) else { return false };
    let ends = tag == "<!--" || matches!(text.get(tag.len()), Some(b' ' | b'>'));
    begin.eq_ignore_ascii_case(tag.as_bytes()) && ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_beginnings() {
        for (bytes, want) in [
            (&b""[..], TEXT),
            (b"a note\n", TEXT),
            ("\u{fc}ber".as_bytes(), TEXT),
            (b"{\"a\":1}", TEXT),
            (b"a\0b", BINARY),
            (b"\x7fELF\x02\x01\x01\0", BINARY),
            (b"  <!doctype html>", "text/html; charset=utf-8"),
            (b"<b>", "text/html; charset=utf-8"),
            (b"<body2", TEXT),
            (b"<!--x", "text/html; charset=utf-8"),
            (b"\n<?xml version", "text/xml; charset=utf-8"),
            (b"\x1f\x8b\x08\0", "application/x-gzip"),
            (b"PK\x03\x04", "application/zip"),
            (b"%PDF-1.7", "application/pdf"),
            (b"RIFF\x01\x02\x03\x04WAVEfmt ", "audio/wave"),
            (b"RIFF\x01\x02\x03\x04", BINARY),
            (b"\0\0\0\x18ftypisom", "video/mp4"),
            (b"\0asm\x01", "application/wasm"),
        ] {
            assert_eq!(sniff(bytes), want, "{bytes:?}");
        }
    }
}
