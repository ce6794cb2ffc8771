//! Words in quotes, and JSON arrays: how an instruction's line comes apart.

use crate::error::Error;
use crate::text::{Text, Word};

/// The words of a line; what stands in quotes is not parted, and the quotes stay for the expansion to take off.
///
/// In double quotes and outside of quotes the escape character keeps the next one from having a meaning. A quote that is
/// not closed goes to the end of the line: the expansion says so.
pub(crate) fn quoted<'a>(text: Text<'a>, escape: char) -> Vec<Text<'a>> {
    let mut words = Vec::new();
    let mut begin = None;
    let mut quote = None;
    let mut characters = text.as_str().char_indices();
    while let Some((at, character)) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            words.extend(begin.take().map(|from| text.part(from, at)));
            continue;
        }
        begin.get_or_insert(at);
        match quote {
            Some(open) if open == character => quote = None,
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some('\'') => {}
            _ if character == escape => _ = characters.next(),
            _ => {}
        }
    }
    words.extend(begin.map(|from| text.after(from)));
    words
}

/// The strings of a JSON array; `None` if the text is no JSON array, and so is meant for a shell.
pub(crate) fn json(text: Text<'_>) -> Result<Option<Vec<Word>>, Error> {
    let text = text.trim();
    if !text.as_str().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text.as_str()) else { return Ok(None) };
    let mut words = Vec::new();
    let mut places = strings(text.as_str()).into_iter();
    for value in values {
        let (serde_json::Value::String(value), Some((from, to))) = (value, places.next()) else {
            let message = "when using JSON array syntax, arrays must be comprised of strings only";
            return Err(Error::new(message, text.span()));
        };
        words.push(Word { text: value, span: text.span_of(from, to) });
    }
    Ok(Some(words))
}

/// Where the strings of a JSON text stand, quotes included.
fn strings(text: &str) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    let mut bytes = text.bytes().enumerate();
    while let Some((from, byte)) = bytes.next() {
        if byte != b'"' {
            continue;
        }
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'\\' => _ = bytes.next(),
                b'"' => {
                    places.push((from, at + 1));
                    break;
                }
                _ => {}
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Joined;

    fn with<T>(text: &str, read: impl Fn(Text<'_>) -> T) -> T {
        let mut joined = Joined::default();
        joined.push(text, 0);
        read(joined.whole())
    }

    #[test]
    fn quotes_hold_words_together() {
        for (text, expected) in [
            ("a  b\tc", &["a", "b", "c"][..]),
            (r#"a="b c" d='e f'g"#, &[r#"a="b c""#, "d='e f'g"]),
            (r#"a="b\" c" d\ e"#, &[r#"a="b\" c""#, r"d\ e"]),
            (r"a='b\' c", &[r"a='b\'", "c"]),
            (r#"a="b c"#, &[r#"a="b c"#]),
            ("\"\" ''", &["\"\"", "''"]),
            ("a\\", &["a\\"]),
            ("", &[]),
        ] {
            let words =
                with(text, |it| quoted(it, '\\').into_iter().map(|it| it.as_str().to_owned()).collect::<Vec<_>>());
            assert_eq!(words, expected, "{text}");
        }
    }

    #[test]
    fn arrays_are_of_strings() {
        let read = |text: &str| with(text, |it| json(it).map_err(|error| error.message).map(|it| format!("{it:?}")));
        for (text, expected) in [
            (r#" ["a", "b\"\u00e9"] "#, r#"Some(["a"@2..5, "b\"é"@7..18])"#),
            ("[]", "Some([])"),
            ("['a']", "None"),
            (r#"["a"] b"#, "None"),
            (r#"[ "$a" = b ]"#, "None"),
            (r#"["a","#, "None"),
            ("a", "None"),
        ] {
            assert_eq!(read(text), Ok(expected.to_owned()), "{text}");
        }
        for mixed in [r#"["a", 1]"#, "[null]", r#"[{"a": "b"}]"#, "[[]]"] {
            assert!(read(mixed).unwrap_err().contains("strings only"), "{mixed}");
        }
    }
}
