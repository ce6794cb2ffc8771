//! A text that was put together from pieces of the file, as continuation lines are, and the words cut from it: each
//! still knows the bytes of the file that it came from.

use std::fmt;

use crate::span::Span;

/// A part of an instruction as it was written: not expanded, with its quotes. Lines that were continued are joined.
///
/// Two words are equal if they say the same, wherever they stand.
#[derive(Clone, Default)]
pub struct Word {
    /// What it says.
    pub text: String,
    /// Where it stands, from its first to its last character.
    pub span: Span,
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}..{}", self.text, self.span.start, self.span.end)
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Word {}

/// Pieces of the file, one behind the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Joined {
    text: String,
    /// Where each piece begins, here and in the file.
    pieces: Vec<(usize, usize)>,
}

impl Joined {
    /// Adds a piece that begins at `start` in the file.
    pub fn push(&mut self, piece: &str, start: usize) {
        self.pieces.push((self.text.len(), start));
        self.text.push_str(piece);
    }

    /// All of it.
    pub fn whole(&self) -> Text<'_> {
        Text { joined: self, start: 0, end: self.text.len() }
    }

    fn in_file(&self, at: usize) -> usize {
        let after = self.pieces.partition_point(|(begin, _)| *begin <= at);
        let (begin, start) = after.checked_sub(1).map_or((0, 0), |index| self.pieces[index]);
        start + (at - begin)
    }
}

/// A part of a joined text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    joined: &'a Joined,
    start: usize,
    end: usize,
}

impl<'a> Text<'a> {
    pub fn as_str(self) -> &'a str {
        &self.joined.text[self.start..self.end]
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The part between two bytes of this one.
    pub fn part(self, from: usize, to: usize) -> Self {
        Self { start: self.start + from, end: self.start + to, ..self }
    }

    /// From a byte on.
    pub fn after(self, from: usize) -> Self {
        self.part(from, self.end - self.start)
    }

    pub fn trim_start(self) -> Self {
        self.after(self.as_str().len() - self.as_str().trim_start().len())
    }

    pub fn trim(self) -> Self {
        let text = self.trim_start();
        text.part(0, text.as_str().trim_end().len())
    }

    /// Where it stands in the file.
    pub fn span(self) -> Span {
        self.span_of(0, self.end - self.start)
    }

    /// Where the part between two bytes of this one stands.
    pub fn span_of(self, from: usize, to: usize) -> Span {
        let start = self.joined.in_file(self.start + from);
        // The end is where the last character ends, not where the next piece begins.
        let last = self.as_str()[from..to].chars().next_back().map_or(0, char::len_utf8);
        let end = if last == 0 { start } else { self.joined.in_file(self.start + to - last) + last };
        Span { start, end: end.max(start) }
    }

    pub fn word(self) -> Word {
        Word { text: self.as_str().to_owned(), span: self.span() }
    }

    /// What stands before the first blank, and the rest from its first character on.
    pub fn split_first(self) -> (Self, Self) {
        let text = self.as_str();
        let end = text.find(is_blank).unwrap_or(text.len());
        (self.part(0, end), self.after(end).trim_start())
    }

    /// The parts between blanks.
    pub fn split_blanks(self) -> Vec<Self> {
        let text = self.as_str();
        let mut parts = Vec::new();
        let mut begin = None;
        for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
            match (is_blank(character), begin) {
                (true, Some(from)) => {
                    parts.push(self.part(from, at));
                    begin = None;
                }
                (false, None) => begin = Some(at),
                _ => {}
            }
        }
        parts
    }
}

/// What parts words (BuildKit's parser, `reWhitespace`): within a logical line there are no line feeds.
pub(crate) fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_across_lines_knows_where_it_stands() {
        // RUN ab\⏎cd ef
        let mut joined = Joined::default();
        joined.push("RUN ab", 0);
        joined.push("cd ef", 8);
        let words: Vec<Word> = joined.whole().split_blanks().into_iter().map(Text::word).collect();
        assert_eq!(format!("{words:?}"), r#"["RUN"@0..3, "abcd"@4..10, "ef"@11..13]"#);
        let (first, rest) = joined.whole().split_first();
        assert_eq!((first.word().span, rest.as_str()), (Span { start: 0, end: 3 }, "abcd ef"));
        assert_eq!(joined.whole().part(0, 6).span(), Span { start: 0, end: 6 });
        assert_eq!(joined.whole().part(6, 6).span(), Span { start: 8, end: 8 });
    }
}
