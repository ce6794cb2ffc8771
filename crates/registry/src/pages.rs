//! Lists in pages: where the next one is (`Link`, RFC 8288; OCI distribution-spec, "Listing Tags").

/// The reference of the page after this, of all fields `Link` of an answer.
pub fn next_page<'f>(fields: impl IntoIterator<Item = &'f str>) -> Option<String> {
    fields.into_iter().find_map(of_field)
}

fn of_field(field: &str) -> Option<String> {
    let mut rest = field;
    while let Some((target, behind)) = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        let (parameters, next) = until_comma(behind);
        if leads_on(parameters) {
            return (!target.is_empty() && !target.contains(char::is_control)).then(|| target.to_owned());
        }
        rest = next;
    }
    None
}

/// What stands before the next comma that is not quoted.
fn until_comma(text: &str) -> (&str, &str) {
    let mut is_quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

/// `rel="next"`; there may be several words in it (RFC 8288, section 3.3).
fn leads_on(parameters: &str) -> bool {
    parameters.split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let words = value.trim().trim_matches('"').split_ascii_whitespace();
        name.trim().eq_ignore_ascii_case("rel") && words.into_iter().any(|word| word.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (field, want) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("/v2/a/tags/list?n=2&last=b")),
            ("<https://r.example/v2/x>;rel=next", Some("https://r.example/v2/x")),
            (r#"<a>; rel="prev", <b>; title="x, y"; REL="last Next""#, Some("b")),
            (r#"<a>; rel="prev""#, None),
            ("<a>", None),
            ("<a; rel=next", None),
            ("<>; rel=next", None),
            ("a>b<c; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_page([field]).as_deref(), want, "{field}");
        }
        assert_eq!(next_page(["<a>; rel=first", "<b>; rel=next"]).as_deref(), Some("b"));
    }
}
