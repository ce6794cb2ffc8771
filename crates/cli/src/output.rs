//! What is shown: tables and templates, durations and sizes for people, JSON, progress.
//!
//! Stdout is data, stderr is talk.

pub mod duration;
pub mod json;
pub mod layers;
pub mod listing;
pub mod progress;
pub mod size;
pub mod table;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

/// One of our streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// For data.
    Stdout,
    /// For talk.
    Stderr,
}

/// Writes data to stdout; to a terminal, what may be read there.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let text = if stdout.is_terminal() { printable(text) } else { Cow::Borrowed(text) };
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes data and a line feed to stdout.
pub fn print_line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Says something on stderr; that nobody listens is no failure.
pub fn say(text: &str) {
    let stderr = io::stderr();
    let text = if stderr.is_terminal() { printable(text) } else { Cow::Borrowed(text) };
    let _ = writeln!(stderr.lock(), "{text}");
}

/// Names and labels come from images, command lines from containers: what would command the terminal is spelled out.
fn printable(text: &str) -> Cow<'_, str> {
    spelled_out(text, |character| commands(character) && !matches!(character, '\n' | '\t'))
}

/// The same for a cell of a table, which no line feed or tab may part in two.
pub fn cell(text: &str) -> Cow<'_, str> {
    spelled_out(text, commands)
}

/// Control characters (ECMA-48: C0, DEL and C1), and those that turn the direction of writing (Unicode, UAX #9).
fn commands(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn spelled_out(text: &str, is_spelled: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_spelled) {
        return Cow::Borrowed(text);
    }
    let spell = |character: char| match character {
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        '\r' => "\\r".to_owned(),
        _ if character.is_ascii() => format!("\\x{:02x}", u32::from(character)),
        _ => format!("\\u{:04x}", u32::from(character)),
    };
    let piece = |character| if is_spelled(character) { spell(character) } else { character.to_string() };
    Cow::Owned(text.chars().map(piece).collect())
}

/// The first 12 digits of an id, without its algorithm.
pub fn short_id(id: &str) -> &str {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.get(..12).unwrap_or(digits)
}

/// At most `length` characters; an ellipsis stands for what was cut.
pub fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_the_terminal() {
        for (text, shown, in_a_cell) in [
            ("plain é 日本\n\tx", "plain é 日本\n\tx", "plain é 日本\\n\\tx"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07", "\\x1b]0;title\\x07"),
            ("a\r\u{9b}31m\u{7f}", "a\\r\\u009b31m\\x7f", "a\\r\\u009b31m\\x7f"),
            ("user\u{202e}txt", "user\\u202etxt", "user\\u202etxt"),
        ] {
            assert_eq!((printable(text).as_ref(), cell(text).as_ref()), (shown, in_a_cell), "{text:?}");
        }
    }
}
