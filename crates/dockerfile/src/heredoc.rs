//! Heredocs: text for an instruction on the lines below it (docs.docker.com/reference/dockerfile, "Here-Documents").
//!
//! A mark is a whole word of the line, `<<NAME` or `<<-NAME`, with a descriptor's number before it if need be, and blanks
//! behind `<<` if there is no `-`. Quotes in the name keep variables in the text from being expanded; `-` takes the tabs
//! before each line away.

use crate::error::Error;
use crate::logical::Cursor;
use crate::span::Span;
use crate::text::{Text, Word, is_blank};

/// A heredoc with its text.
#[derive(Debug, Clone)]
pub struct Heredoc {
    /// The word that ends it, and for COPY the file's name.
    pub name: String,
    /// Where its mark stands.
    pub mark: Span,
    /// The descriptor on which a RUN's shell gets it; 0 unless said.
    pub descriptor: u32,
    /// Variables in it are expanded: by COPY and ADD; in a RUN that is the shell's own doing.
    pub expand: bool,
    /// Tabs at the beginning of its lines do not count.
    pub strip_tabs: bool,
    /// The lines as they were written.
    pub content: Word,
}

/// Equal if they say the same, wherever they stand.
impl PartialEq for Heredoc {
    fn eq(&self, other: &Self) -> bool {
        let key = |it: &Self| (it.name.clone(), it.descriptor, it.expand, it.strip_tabs, it.content.clone());
        key(self) == key(other)
    }
}

impl Eq for Heredoc {}

impl Heredoc {
    /// The text as a file gets it: without the tabs, if they do not count.
    pub fn text(&self) -> String {
        match self.strip_tabs {
            true => self.content.text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect(),
            false => self.content.text.clone(),
        }
    }
}

/// A mark in an instruction's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    name: String,
    span: Span,
    descriptor: u32,
    expand: bool,
    strip_tabs: bool,
}

impl Mark {
    /// The mark that a word is, if it is one.
    pub fn read(word: Text<'_>) -> Option<Self> {
        let text = word.as_str();
        let (descriptor, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let rest = rest.strip_prefix("<<")?;
        let (strip_tabs, name) = rest.strip_prefix('-').map_or((false, rest), |name| (true, name));
        let name = name.trim_start_matches(is_blank);
        if name.contains('<') {
            return None;
        }
        let (name, is_quoted) = unquoted(name)?;
        let descriptor = if descriptor.is_empty() { 0 } else { descriptor.parse().ok()? };
        (!name.is_empty()).then(|| Self { name, span: word.span(), descriptor, expand: !is_quoted, strip_tabs })
    }

    /// The lines below, up to the one that is the name.
    pub fn collect(self, cursor: &mut Cursor<'_>) -> Result<Heredoc, Error> {
        let mut text = String::new();
        let mut start = None;
        while let Some(line) = cursor.next_line() {
            let begin = *start.get_or_insert(line.start);
            let end = if self.strip_tabs { line.text.trim_start_matches('\t') } else { line.text };
            if end == self.name {
                let span = Span { start: begin, end: begin + text.len() };
                let Self { name, span: mark, descriptor, expand, strip_tabs } = self;
                return Ok(Heredoc { name, mark, descriptor, expand, strip_tabs, content: Word { text, span } });
            }
            text.push_str(line.whole);
        }
        let error = Error::new("unterminated heredoc", self.span);
        Err(match self.name.find(['|', '>', ';', '&', ')']) {
            Some(at) if at > 0 => {
                error.with_hint(format!("its name is {:?}: put a blank behind {:?}", self.name, &self.name[..at]))
            }
            _ => error.with_hint(format!("end it with a line that is {:?} and nothing else", self.name)),
        })
    }
}

/// The marks in a line, in order. A line whose quotes do not match has none.
pub(crate) fn marks(line: Text<'_>) -> Vec<Mark> {
    shell_words(line).unwrap_or_default().into_iter().filter_map(Mark::read).collect()
}

/// The words of a shell's command line, with their quotes; `None` if a quote has no end. The escape character is the
/// shell's, whatever the file's is.
fn shell_words(line: Text<'_>) -> Option<Vec<Text<'_>>> {
    let text = line.as_str();
    let mut words = Vec::new();
    let mut begin = None;
    let mut has_ends = true;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if is_blank(character) {
            words.extend(begin.take().map(|from| line.part(from, at)));
            continue;
        }
        begin.get_or_insert(at);
        match character {
            '\\' => _ = characters.next(),
            // Arithmetic shifts, and names nothing: `$((1 << n))`.
            '$' if has_ends && text[at..].starts_with("$((") => match text[at..].find("))") {
                Some(length) => {
                    while characters.as_str().len() > text.len() - at - length - 2 {
                        characters.next();
                    }
                }
                None => has_ends = false,
            },
            // The name may stand behind blanks.
            '<' if text[at..].starts_with("<<") && !text[at..].starts_with("<<<") => {
                characters.next();
                while characters.as_str().starts_with(is_blank) {
                    characters.next();
                }
            }
            '\'' => _ = characters.find(|(_, it)| *it == '\'')?,
            '"' => loop {
                match characters.next()?.1 {
                    '"' => break,
                    '\\' => _ = characters.next(),
                    _ => {}
                }
            },
            _ => {}
        }
    }
    words.extend(begin.map(|from| line.part(from, text.len())));
    Some(words)
}

/// A heredoc's name without its quotes, and whether it had any.
fn unquoted(text: &str) -> Option<(String, bool)> {
    let mut name = String::new();
    let mut quote = None;
    let mut is_quoted = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '\'' | '"') => {
                quote = Some(character);
                is_quoted = true;
            }
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => name.extend(characters.next()),
            _ => name.push(character),
        }
    }
    quote.is_none().then_some((name, is_quoted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Joined;

    fn found(line: &str) -> Vec<(String, u32, bool, bool)> {
        let mut joined = Joined::default();
        joined.push(line, 0);
        marks(joined.whole()).into_iter().map(|it| (it.name, it.descriptor, it.expand, it.strip_tabs)).collect()
    }

    #[test]
    fn marks_are_words_of_their_own() {
        let one = |name: &str, descriptor, expand, strip| vec![(name.to_owned(), descriptor, expand, strip)];
        for (line, expected) in [
            ("RUN <<EOF", one("EOF", 0, true, false)),
            ("RUN cat 3<<-EOF >/a", one("EOF", 3, true, true)),
            ("COPY <<\"a b\" /x", one("a b", 0, false, false)),
            ("COPY <<'E'O\"F\" /x", one("EOF", 0, false, false)),
            ("RUN <<\\EOF", one("EOF", 0, true, false)),
            ("RUN $(cat <<E\tF)", one("E", 0, true, false)),
            ("RUN cat <<  EOF >/a", one("EOF", 0, true, false)),
            ("RUN cat 4<< 'E F'", one("E F", 4, false, false)),
            ("RUN x=$((1 << y)) <<EOF", one("EOF", 0, true, false)),
        ] {
            assert_eq!(found(line), expected, "{line}");
        }
        for none in [
            "RUN a<<EOF",
            "RUN <<<EOF",
            "RUN \"<<EOF\"",
            "RUN it's <<EOF",
            "RUN \\<<EOF",
            "RUN 1<2",
            "RUN <<''",
            "RUN <<",
            "RUN <<- EOF",
            "RUN x=$((1 << y)) z=$(( 1<<2 ))",
        ] {
            assert_eq!(found(none), [], "{none}");
        }
        let names: Vec<String> = found("COPY <<a <<b /x").into_iter().map(|it| it.0).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn bodies_end_with_the_name() {
        let read = |source: &str, mark: &str| {
            let mut joined = Joined::default();
            joined.push(mark, 0);
            let mut cursor = Cursor::new(source);
            Mark::read(joined.whole()).unwrap().collect(&mut cursor).map(|it| (it.content.text.clone(), it.text()))
        };
        let both = |raw: &str, text: &str| Ok((raw.to_owned(), text.to_owned()));
        assert_eq!(read("a\r\n EOF\nEOF\nFROM", "<<EOF"), both("a\r\n EOF\n", "a\r\n EOF\n"));
        assert_eq!(read("\t\ta\n\tb\tc\n\tEOF", "<<-EOF"), both("\t\ta\n\tb\tc\n", "a\nb\tc\n"));
        assert_eq!(read("EOF\n", "<<EOF"), both("", ""));
        assert_eq!(read("a\n", "<<EOF").unwrap_err().message, "unterminated heredoc");
        assert!(read("a\n", "<<EOF|sh").unwrap_err().hint.unwrap().contains("put a blank behind \"EOF\""));
    }
}
