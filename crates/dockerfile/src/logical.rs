//! Logical lines: the file's lines with those that are continued put together (docs.docker.com/reference/dockerfile,
//! "Format" and "escape").
//!
//! Blanks before an instruction do not count, those of a continuation line do. Comments between continuation lines are
//! left out, and so are empty lines, which are frowned upon.

use crate::directives::{Directives, Reader};
use crate::error::Error;
use crate::span::Span;
use crate::text::{Joined, Word};

/// One instruction's lines.
#[derive(Debug)]
pub(crate) struct Logical {
    /// What they say; never empty.
    pub text: Joined,
    /// From 1.
    pub first_line: usize,
    /// The end of the last line, without its line feed.
    pub end: usize,
    /// The comments directly above.
    pub comments: Vec<Word>,
    pub has_empty_continuation: bool,
}

/// A line of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// Without its end.
    pub text: &'a str,
    /// With its end.
    pub whole: &'a str,
    /// Where it begins in the file.
    pub start: usize,
}

/// Goes through a file.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    directives: Reader,
}

impl<'a> Cursor<'a> {
    pub fn new(source: &'a str) -> Self {
        // A byte order mark says nothing in UTF-8.
        let at = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { source, at, line: 0, directives: Reader::default() }
    }

    pub fn end(&self) -> usize {
        self.source.len()
    }

    /// Where the line that was read last ends, without its line feed.
    pub fn end_of_previous(&self) -> usize {
        self.source[..self.at].trim_end_matches(['\n', '\r']).len()
    }

    pub fn escape(&self) -> char {
        self.directives.escape().character()
    }

    pub fn directives(self) -> Directives {
        self.directives.finish()
    }

    /// The next line of the file, whatever it is.
    pub fn next_line(&mut self) -> Option<Line<'a>> {
        let rest = &self.source[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let line = Line { text: rest[..length].trim_end_matches(['\n', '\r']), whole: &rest[..length], start: self.at };
        self.at += length;
        self.line += 1;
        Some(line)
    }

    /// The next instruction's lines.
    pub fn next(&mut self) -> Result<Option<Logical>, Error> {
        let mut comments = Vec::new();
        while let Some(line) = self.next_line() {
            let is_directive = self.directives.take(line.text, line.start)?;
            let text = line.text.trim_start();
            if let Some(comment) = text.strip_prefix('#') {
                // An empty one parts those above it from the instruction.
                match comment.trim() {
                    "" => comments.clear(),
                    _ if is_directive => {}
                    comment => comments.push(word(comment, &line)),
                }
            } else if text.is_empty() {
                comments.clear();
            } else {
                return Ok(self.continued(text, line, comments));
            }
        }
        Ok(None)
    }

    fn continued(&mut self, text: &str, line: Line<'_>, comments: Vec<Word>) -> Option<Logical> {
        let escape = self.escape();
        let mut logical = Logical {
            text: Joined::default(),
            first_line: self.line,
            end: line.start + line.text.len(),
            comments,
            has_empty_continuation: false,
        };
        let (text, mut goes_on) = without_continuation(text, escape);
        logical.text.push(text, line.start + (line.text.len() - line.text.trim_start().len()));
        while goes_on {
            let Some(next) = self.next_line() else { break };
            let trimmed = next.text.trim_start();
            logical.end = next.start + next.text.len();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                logical.has_empty_continuation = true;
                continue;
            }
            let (text, is_continued) = without_continuation(next.text, escape);
            logical.text.push(text, next.start);
            goes_on = is_continued;
        }
        // Nothing but continuation marks, up to the end of the file: no instruction.
        (!logical.text.whole().trim().is_empty()).then_some(logical)
    }
}

fn word(text: &str, line: &Line<'_>) -> Word {
    let start = line.start + (text.as_ptr() as usize - line.text.as_ptr() as usize);
    Word { text: text.to_owned(), span: Span { start, end: start + text.len() } }
}

/// The line without the mark that continues it, and whether there was one: the escape character before nothing but
/// blanks, unless another stands before it.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    let Some(text) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else { return (line, false) };
    if text.ends_with(escape) { (line, false) } else { (text, true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Vec<(usize, String, bool, Vec<String>)> {
        let mut cursor = Cursor::new(source);
        let mut all = Vec::new();
        while let Some(it) = cursor.next().unwrap() {
            let comments = it.comments.iter().map(|comment| comment.text.clone()).collect();
            all.push((it.first_line, it.text.whole().as_str().to_owned(), it.has_empty_continuation, comments));
        }
        all
    }

    #[track_caller]
    fn check(source: &str, expected: &[(usize, &str, bool, &[&str])]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, text, empty, comments)| {
                (*line, (*text).to_owned(), *empty, comments.iter().map(|&it| it.to_owned()).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(read(source), expected, "{source:?}");
    }

    #[test]
    fn lines_are_joined() {
        check(
            "\u{feff}  FROM a  \r\nRUN b\\\r\n  c\\ \t\n# no\n   # no\n d\n",
            &[(1, "FROM a  ", false, &[]), (2, "RUN b  c d", false, &[])],
        );
        check("RUN a \\\n\n  b", &[(1, "RUN a   b", true, &[])]);
        check("RUN a \\", &[(1, "RUN a ", false, &[])]);
        check("RUN a \\\\\nRUN b", &[(1, "RUN a \\\\", false, &[]), (2, "RUN b", false, &[])]);
        check("# escape=`\nRUN a`\n b\\\nRUN c", &[(2, "RUN a b\\", false, &[]), (4, "RUN c", false, &[])]);
        check("\\\n \\\nRUN a", &[(1, " RUN a", false, &[])]);
        check("\\\n\\", &[]);
        check("", &[]);
    }

    #[test]
    fn comments_belong_to_what_is_below_them() {
        check("# x\n#\n# a\n # b c\nFROM d\nRUN e", &[(5, "FROM d", false, &["a", "b c"]), (6, "RUN e", false, &[])]);
        check("# syntax=x\n# a\n\nFROM d", &[(4, "FROM d", false, &[])]);
        check("# syntax=x\n# a\nFROM d", &[(3, "FROM d", false, &["a"])]);
    }
}
