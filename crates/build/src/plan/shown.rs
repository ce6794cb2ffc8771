//! An instruction's line as people see it while it is done: variables that have a value are put in, everything else
//! stays as it was written, what a shell will make of it among it.

use dozen_dockerfile::expand::{Value, Variables};

/// No line becomes longer: it is shown as it was written.
const LONGEST_BYTES: usize = 16 << 10;

/// `$name` and `${name}` become their values, but not in single quotes nor behind the escape character.
pub(super) fn line(line: &str, escape: char, variables: &dyn Variables) -> String {
    let mut shown = String::new();
    let mut rest = line;
    let mut is_quoted = false;
    while let Some(character) = rest.chars().next() {
        let mut length = character.len_utf8();
        if character == '\'' {
            is_quoted = !is_quoted;
        } else if character == escape && !is_quoted {
            length += rest[length..].chars().next().map_or(0, char::len_utf8);
        } else if character == '$'
            && !is_quoted
            && let Some((name, end)) = name(rest)
            && let Value::Set(value) = variables.value(name)
        {
            shown.push_str(value);
            rest = &rest[end..];
            if shown.len() > LONGEST_BYTES {
                return line.to_owned();
            }
            continue;
        }
        shown.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    shown
}

/// The name behind a `$`, and where what follows it begins.
fn name(text: &str) -> Option<(&str, usize)> {
    let (open, close) = if text.starts_with("${") { (2, 1) } else { (1, 0) };
    let length = text[open..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let end = open + length + close;
    let is_whole = length > 0 && (close == 0 || text[open + length..].starts_with('}'));
    is_whole.then(|| (&text[open..open + length], end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_put_in() {
        let variables = |name: &str| (name == "a").then_some("1 é");
        for (text, expected) in [
            ("COPY $a ${a}b/ $b ${b}", "COPY 1 é 1 éb/ $b ${b}"),
            ("RUN echo '$a' \"$a\" \\$a \\\\$a", "RUN echo '$a' \"1 é\" \\$a \\\\1 é"),
            ("RUN x=${a:-1} $ab $$ $a", "RUN x=${a:-1} $ab $$ 1 é"),
            ("RUN $", "RUN $"),
            ("RUN ${a", "RUN ${a"),
            ("RUN \\", "RUN \\"),
            ("RUN \\é$a", "RUN \\é1 é"),
        ] {
            assert_eq!(line(text, '\\', &variables), expected);
        }
        assert_eq!(line("WORKDIR c:\\$a", '`', &variables), "WORKDIR c:\\1 é");
        let long = "$a ".repeat(LONGEST_BYTES);
        assert_eq!(line(&long, '\\', &variables), long);
    }
}
