use proptest::prelude::*;

use super::*;

fn variables(name: &str) -> Option<&'static str> {
    match name {
        "x" => Some("X Y"),
        "e" => Some(""),
        "path" => Some("/a/b.tar.gz"),
        "PWD" => Some("/home"),
        _ => None,
    }
}

fn word(text: &str) -> Word {
    Word { text: text.to_owned(), span: Span { start: 0, end: text.len() } }
}

fn expanded(text: &str, escape: char) -> Result<String, String> {
    expand(&word(text), escape, Quotes::Taken, &variables).map(|it| it.text).map_err(|error| error.message)
}

#[test]
fn words_become_texts() {
    for (text, expected) in [
        ("a", "a"),
        ("$x", "X Y"),
        ("${x}z$xz", "X Yz"),
        ("$x.$", "X Y.$"),
        ("$u${u}", ""),
        ("$$ $1a", " a"),
        ("${x:-d}|${u:-d}|${e:-d}", "X Y|d|d"),
        ("${x-d}|${u-d}|${e-d}", "X Y|d|"),
        ("${x:+d}|${u:+d}|${e:+d}", "d||"),
        ("${x+d}|${u+d}|${e+d}", "d||d"),
        ("${x:?no}${e?no}", "X Y"),
        ("${u:-${x}-'}'\\}}", "X Y-}}"),
        ("${path#*/}|${path##*/}|${path%.*}|${path%%.*}", "a/b.tar.gz|b.tar.gz|/a/b.tar|/a/b"),
        ("${path/a/$e}|${path//[.]/}|${path//\\//-}|${path/.*/.zip}", "//b.tar.gz|/a/b.tar.gz|-a-b.tar.gz|/a/b.zip"),
        ("${u#a}${u/a/b}", ""),
        ("'$x'", "$x"),
        ("\"$x\"", "X Y"),
        ("\"a\\\"\\$x\\\\ \\n\"", "a\"$x\\ \\n"),
        ("a\\ b\\$x\\", "a b$x"),
        ("'a\\'b", "a\\b"),
        ("\"it's\" ''", "it's "),
        ("$é", ""),
    ] {
        assert_eq!(expanded(text, '\\'), Ok(expected.to_owned()), "{text}");
    }
    for (text, expected) in [("C:\\$x`$x", "C:\\X Y$x"), ("\"`\"\\\"", "\"\\"), ("${path%`/*}", "/a")] {
        assert_eq!(expanded(text, '`'), Ok(expected.to_owned()), "{text}");
    }
}

#[test]
fn what_cannot_be_expanded_is_said_with_its_place() {
    for (text, message, place) in [
        ("a${", "syntax error: missing '}'", 1..3),
        ("a${x", "syntax error: missing '}'", 1..4),
        ("a${x:-b", "syntax error: missing '}'", 7..7),
        ("${}", "syntax error: bad substitution", 0..2),
        ("${:-a}", "syntax error: bad substitution", 0..2),
        ("${x/a}", "syntax error: missing '/' in ${}", 6..6),
        ("${x^}", "unsupported modifier (^) in substitution", 0..4),
        ("${x:1:2}", "unsupported modifier (:1) in substitution", 0..5),
        ("a'b", "unexpected end of statement while looking for matching single-quote", 1..3),
        ("a\"b", "unexpected end of statement while looking for matching double-quote", 1..3),
        ("a${u:?}b", "u: is not allowed to be unset", 1..7),
        ("${e:?}", "e: is not allowed to be empty", 0..6),
        ("${u?say $x}", "u: say X Y", 0..11),
        ("${x#\\n}", "invalid pattern (\\n) in substitution: invalid escape '\\n'", 0..7),
    ] {
        let error = expand(&word(text), '\\', Quotes::Taken, &variables).unwrap_err();
        assert_eq!(error.message, format!("failed to process {text:?}: {message}"));
        assert_eq!(error.span, Span { start: place.start, end: place.end }, "{text}");
    }
    let deep = "${a:-".repeat(40) + &"}".repeat(40);
    assert!(expanded(&deep, '\\').unwrap_err().contains("one in another"));
    assert!(expanded(&"${a:-".repeat(100_000), '\\').is_err());
}

#[test]
fn blanks_part_words_unless_they_are_quoted() {
    for (text, expected) in [
        ("a b\tc", &["a", "b", "c"][..]),
        ("$x", &["X", "Y"]),
        ("\"$x\" 'a b'c", &["X Y", "a bc"]),
        ("a\\ b", &["a b"]),
        ("a$x", &["aX", "Y"]),
        ("'' $e", &[]),
    ] {
        assert_eq!(expand(&word(text), '\\', Quotes::Taken, &variables).unwrap().words, expected, "{text}");
    }
}

#[test]
fn quotes_in_a_heredoc_are_text() {
    let expanded = expand(&word("it's \"$x\" \\$x ${u:-'}\n"), '\\', Quotes::Kept, &variables).unwrap();
    assert_eq!(expanded.text, "it's \"X Y\" $x '\n");
}

#[test]
fn who_was_asked_is_known() {
    let it = expand(&word("$x ${u:-$v} ${e:+$w} '$z'"), '\\', Quotes::Taken, &variables).unwrap();
    assert_eq!(it.used.into_iter().collect::<Vec<_>>(), ["e", "x"]);
    assert_eq!(it.unknown.into_iter().collect::<Vec<_>>(), ["u", "v", "w"]);
    assert_eq!(names(&word("${a#$b}${c/$d/$e}"), '\\', Quotes::Taken).into_iter().collect::<String>(), "abcde");
}

#[test]
fn nothing_grows_without_end() {
    struct Large(String);
    impl Variables for Large {
        fn value(&self, _: &str) -> Value<'_> {
            Value::Set(&self.0)
        }
    }
    let large = Large("x".repeat(LONGEST_BYTES / 2 + 1));
    let grown = |text: &str| expand(&word(text), '\\', Quotes::Taken, &large).unwrap_err().message;
    assert!(grown("$a$a").contains("longer than"));
    assert!(grown("${a//x/$a}").contains("longer than"));
}

proptest! {
    #[test]
    fn expansion_never_panics(text in "[$\\{\\}a:#%/?*+'\"\\\\` é-]{0,40}", backtick: bool, kept: bool) {
        let escape = if backtick { '`' } else { '\\' };
        let quotes = if kept { Quotes::Kept } else { Quotes::Taken };
        match expand(&word(&text), escape, quotes, &|_: &str| Some("a/b*")) {
            Ok(it) => prop_assert!(it.text.len() <= LONGEST_BYTES && names(&word(&text), escape, quotes) == it.used),
            Err(error) => prop_assert!(error.span.end <= text.len() && text.is_char_boundary(error.span.start)),
        }
    }

    #[test]
    fn text_without_a_meaning_stays(text in "[a-zA-Z0-9é /.:=-]{0,40}") {
        prop_assert_eq!(expanded(&text, '\\'), Ok(text));
    }
}
