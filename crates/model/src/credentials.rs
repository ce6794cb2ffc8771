//! Addresses that people write, as they may be shown: in errors, logs, an image's history.

use std::borrow::Cow;

/// In the place of what is not shown.
const HIDDEN: &str = "xxxxx";

/// A text that may be a URL, without the name and the password in it (RFC 3986, section 3.2.1). Of `http` and `https` the name
/// goes in any case: it may be a token. Elsewhere a name without a password stays, as in `ssh://git@host`.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let Some((said, _)) = authority.rsplit_once('@') else { return Cow::Borrowed(text) };
    // A quotation mark may stand before it.
    let scheme_alone = scheme.trim_start_matches(|letter: char| !letter.is_ascii_alphanumeric());
    let is_token = ["http", "https"].iter().any(|known| scheme_alone.eq_ignore_ascii_case(known));
    if said.is_empty() || !is_token && !said.contains(':') {
        return Cow::Borrowed(text);
    }
    let separator = if text.len() > rest.len() { "://" } else { "" };
    Cow::Owned(format!("{scheme}{separator}{HIDDEN}{}", &rest[said.len()..]))
}

/// A line with any number of URLs in it, each without its password.
pub fn line_without_credentials(line: &str) -> Cow<'_, str> {
    if !line.contains("://") || !line.contains('@') {
        return Cow::Borrowed(line);
    }
    let words = line.split_inclusive(char::is_whitespace);
    words
        .map(|word| if word.contains("://") { without_credentials(word) } else { word.into() })
        .collect::<String>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for (text, shown) in [
            ("https://me:secret@host/a?b#c", "https://xxxxx@host/a?b#c"),
            ("HTTPS://me:secret@host", "HTTPS://xxxxx@host"),
            ("https://secret@host/a", "https://xxxxx@host/a"),
            ("https://me:secret@host?a@b", "https://xxxxx@host?a@b"),
            ("http://me:sec@ret@host:80/", "http://xxxxx@host:80/"),
            ("http://:secret@host/", "http://xxxxx@host/"),
            ("ftp://me:secret@host/", "ftp://xxxxx@host/"),
            ("me:secret@host/a", "xxxxx@host/a"),
            ("[\"https://secret@host/a\",", "[\"https://xxxxx@host/a\","),
            // There is nothing to hide.
            ("https://host/@scope/a", "https://host/@scope/a"),
            ("https://@host/", "https://@host/"),
            ("ssh://git@host/a.git", "ssh://git@host/a.git"),
            ("git@host:a.git", "git@host:a.git"),
            ("a/b@sha256:0", "a/b@sha256:0"),
            ("", ""),
            ("://", "://"),
        ] {
            assert_eq!(without_credentials(text), shown, "{text}");
        }
    }

    #[test]
    fn each_password_of_a_line_is_not_shown() {
        for (line, shown) in [
            ("ADD https://a:b@h/ http://c@h/\t/d\n", "ADD https://xxxxx@h/ http://xxxxx@h/\t/d\n"),
            ("RUN curl -u a:b@c https://h/", "RUN curl -u a:b@c https://h/"),
            ("", ""),
        ] {
            assert_eq!(line_without_credentials(line), shown);
        }
    }
}
