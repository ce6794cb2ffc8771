//! Words as Go's fmt writes them: the history of images is full of them, and tools compare it.

/// `%q` of a text (strconv.Quote).
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    text.chars().for_each(|character| push(&mut quoted, character, '"'));
    quoted + "\""
}

/// `%q` of a list of texts.
pub(super) fn quoted_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `%q` of a number, which is taken for a character (strconv.QuoteRune).
pub(super) fn quoted_rune(number: u32) -> String {
    let mut quoted = "'".to_owned();
    push(&mut quoted, char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER), '\'');
    quoted + "'"
}

fn push(to: &mut String, character: char, quote: char) {
    let escaped = match character {
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\x0c' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\x0b' => "\\v",
        '\\' => "\\\\",
        character if character == quote => {
            to.push('\\');
            to.push(quote);
            return;
        }
        character if is_print(character) => {
            to.push(character);
            return;
        }
        character => {
            let number = u32::from(character);
            to.push_str(&match number {
                0..0x20 | 0x7f => format!("\\x{number:02x}"),
                0..0x10000 => format!("\\u{number:04x}"),
                _ => format!("\\U{number:08x}"),
            });
            return;
        }
    };
    to.push_str(escaped);
}

/// unicode.IsPrint: everything but control and format characters, blanks other than the one of ASCII, and what no
/// character has. Rust's Debug draws the same line; behind a letter it leaves combining marks as they are.
fn is_print(character: char) -> bool {
    match character {
        ' '..='~' => true,
        _ => !format!("a{character}").escape_debug().to_string().starts_with("a\\"),
    }
}

/// A duration's String: `1m30s`, `1.5s`, `500ms`.
pub(super) fn duration(nanoseconds: u128) -> String {
    const SECOND: u128 = 1_000_000_000;
    let in_unit = |unit: u128, name: &str| {
        let (whole, rest) = (nanoseconds % (60 * SECOND) / unit, nanoseconds % unit);
        let digits = format!("{:0width$}", rest, width = unit.ilog10() as usize);
        match digits.trim_end_matches('0') {
            _ if rest == 0 => format!("{whole}{name}"),
            digits => format!("{whole}.{digits}{name}"),
        }
    };
    let (minutes, hours) = (nanoseconds / SECOND / 60 % 60, nanoseconds / SECOND / 3600);
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => in_unit(1_000, "µs"),
        1_000_000..SECOND => in_unit(1_000_000, "ms"),
        _ if hours > 0 => format!("{hours}h{minutes}m{}", in_unit(SECOND, "s")),
        _ if minutes > 0 => format!("{minutes}m{}", in_unit(SECOND, "s")),
        _ => in_unit(SECOND, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_in_go() {
        for (text, expected) in [
            ("a b", r#""a b""#),
            ("\"'\\", r#""\"'\\""#),
            ("\t\n\x01\x7f\0", r#""\t\n\x01\x7f\x00""#),
            ("né日🦀", r#""né日🦀""#),
            ("e\u{301}\u{301}", "\"e\u{301}\u{301}\""),
            ("\u{a0}\u{200b}\u{feff}\u{e000}", r#""\u00a0\u200b\ufeff\ue000""#),
            ("\u{10ffff}", r#""\U0010ffff""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
        assert_eq!(quoted_list(&["a".into(), "b c".into()]), r#"["a" "b c"]"#);
        for (number, expected) in [(0, r"'\x00'"), (3, r"'\x03'"), (10, r"'\n'"), (39, r"'\''"), (34, "'\"'")] {
            assert_eq!(quoted_rune(number), expected);
        }
        assert_eq!(quoted_rune(u32::MAX), "'\u{fffd}'");
    }

    #[test]
    fn durations_are_those_of_go() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_000_001, "1.000001ms"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_001, "25h1m1.000000001s"),
        ] {
            assert_eq!(duration(nanoseconds), expected, "{nanoseconds}");
        }
    }
}
