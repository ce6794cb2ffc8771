//! What commands write, as it may stand on somebody's terminal.

use crate::output::cell;

/// A line without what would move the cursor or colour what follows; of what a carriage return writes over, the last.
pub(super) fn visible(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let last = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
    cell(&without_sequences(last).replace('\t', "        ")).into_owned()
}

/// Control sequences (ECMA-48, 5.4) and operating system commands (xterm, "OSC") go; what else is a control character is
/// spelled out by the caller.
fn without_sequences(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('\x1b', Some('[')) => {
                letters.next();
                while letters.next_if(|it| ('\x20'..='\x3f').contains(it)).is_some() {}
                letters.next_if(|it| ('\x40'..='\x7e').contains(it));
            }
            ('\x1b', Some(']')) => {
                while let Some(it) = letters.next() {
                    if it == '\x07' || (it == '\x1b' && letters.next_if_eq(&'\\').is_some()) {
                        break;
                    }
                }
            }
            _ => kept.push(letter),
        }
    }
    kept
}

/// So that it fits: what is not ASCII may be two columns wide.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let mut used = 0;
    let wide = |letter: char| if letter.is_ascii() { 1 } else { 2 };
    let end = text.char_indices().find(|(_, letter)| {
        used += wide(*letter);
        used > columns
    });
    text[..end.map_or(text.len(), |(at, _)| at)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        for (line, shown) in [
            ("plain é\ttab", "plain é        tab"),
            ("\x1b[1;31mred\x1b[0m text\x1b[K", "red text"),
            ("10%\r50%\r100%\r", "100%"),
            ("\x1b]0;title\x07after", "after"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bc\x08\u{9b}31m", "\\x1bc\\x08\\u009b31m"),
            ("\x1b[", ""),
            ("\x1b]unfinished", ""),
            ("", ""),
        ] {
            assert_eq!(visible(line), shown, "{line:?}");
        }
        assert_eq!((cut("abc", 2), cut("aé日", 4), cut("", 0)), ("ab".into(), "aé".into(), String::new()));
    }
}
