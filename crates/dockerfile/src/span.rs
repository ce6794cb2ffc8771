//! Where something stands in a Dockerfile: bytes, lines, columns, and the lines around it for people to read.

use std::fmt;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use dozen_model::line_without_credentials;

/// Bytes of the file, the end not included; always on boundaries of characters.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl Span {
    /// From the beginning of this one to the end of `other`.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end.max(self.start) }
    }
}

/// A place as editors show it, both numbers from 1. A column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

/// A file's text with the places of its lines.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Looks for the lines of `text`.
    pub fn new(text: &'a str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// Where a byte stands; one behind the file's end stands at its end.
    pub fn position(&self, byte: usize) -> Position {
        let byte = byte.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= byte);
        let before = self.text.get(self.starts[line - 1]..byte).unwrap_or_default();
        Position { line, column: before.trim_start_matches('\u{feff}').chars().count() + 1 }
    }

    /// The lines that a span touches, from 1.
    pub fn of(&self, span: Span) -> RangeInclusive<usize> {
        let last = if span.end > span.start { span.end - 1 } else { span.end };
        self.position(span.start).line..=self.position(last).line
    }

    /// A line's text without its end; empty where there is no such line.
    pub fn text(&self, line: usize) -> &'a str {
        let Some(start) = line.checked_sub(1).and_then(|index| self.starts.get(index)) else { return "" };
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        self.text[*start..end].trim_end_matches(['\n', '\r']).trim_start_matches('\u{feff}')
    }

    /// A line without its end, as a span.
    pub fn span(&self, line: usize) -> Span {
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(self.text.len());
        Span { start, end: start + self.text[start..].find(['\r', '\n']).unwrap_or(self.text.len() - start) }
    }

    /// How many there are; a line feed at the end begins one more, which is empty.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// The lines `marked` with some around them, in the shape in which BuildKit prints a source (its
    /// solver/errdefs/source.go). Where a span within one line is given, a caret line stands under it.
    pub fn excerpt(&self, file: &str, marked: RangeInclusive<usize>, caret: Option<Span>) -> String {
        const RULE: &str = "--------------------\n";
        let (first, last) = (*marked.start().min(&self.count()), *marked.end().min(&self.count()));
        let (mut start, mut end) = (first, last);
        let wanted = if first == last { 4 } else { 2 };
        let mut padding = 0;
        while padding < wanted {
            if start > 1 {
                start -= 1;
                padding += 1;
            }
            if end < self.count() {
                end += 1;
                padding += 1;
            }
            padding += 1;
        }
        let caret = caret.map(|span| (self.position(span.start), self.position(span.end)));
        let mut text = format!("{file}:{first}\n{RULE}");
        for line in start..=end {
            let mark = if (first..=last).contains(&line) { ">>>" } else { "   " };
            // It ends up in logs of others.
            let shown = line_without_credentials(self.text(line));
            let _ = writeln!(text, "{}", format!(" {line:3} | {mark} {shown}").trim_end());
            if let Some((from, to)) = caret
                && from.line == line
                && shown == self.text(line)
            {
                let until = if to.line == line { to.column } else { self.text(line).chars().count() + 1 };
                // Tabs stay tabs, so that the carets stand where the terminal puts what they mean.
                let blanks = self.text(line).chars().take(from.column - 1);
                let blanks: String = blanks.map(|it| if it == '\t' { '\t' } else { ' ' }).collect();
                let carets = "^".repeat(until.saturating_sub(from.column).max(1));
                let _ = writeln!(text, "     |     {blanks}{carets}");
            }
        }
        text + RULE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_lines_and_columns() {
        let lines = Lines::new("\u{feff}ab\r\né日x\n");
        for (byte, line, column) in [(0, 1, 1), (3, 1, 1), (4, 1, 2), (7, 2, 1), (9, 2, 2), (12, 2, 3), (14, 3, 1)] {
            assert_eq!(lines.position(byte), Position { line, column }, "{byte}");
        }
        assert_eq!((lines.position(99).line, lines.count()), (3, 3));
        assert_eq!([lines.text(0), lines.text(1), lines.text(2), lines.text(3)], ["", "ab", "é日x", ""]);
        assert_eq!(lines.of(Span { start: 3, end: 7 }), 1..=1);
        assert_eq!(lines.of(Span { start: 3, end: 8 }), 1..=2);
    }

    #[test]
    fn an_excerpt_shows_what_is_around() {
        let lines = Lines::new("FROM a\n\n\tRUN b\nCMD c\nUSER d\nUSER e\n");
        let secret = Lines::new("ADD https://me:pw@h/a /b\n");
        assert_eq!(
            secret.excerpt("x", 1..=1, Some(Span { start: 4, end: 20 })),
            "x:1\n--------------------\n   1 | >>> ADD https://xxxxx@h/a /b\n   2 |\n--------------------\n"
        );
        assert_eq!(
            lines.excerpt("Dockerfile", 3..=3, Some(Span { start: 13, end: 14 })),
            "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |\n   3 | >>> \tRUN b\n\
             \x20    |     \t    ^\n   4 |     CMD c\n   5 |     USER d\n--------------------\n"
        );
        assert_eq!(
            lines.excerpt("x", 1..=2, None),
            "x:1\n--------------------\n   1 | >>> FROM a\n   2 | >>>\n   3 |     \tRUN b\n--------------------\n"
        );
    }
}
