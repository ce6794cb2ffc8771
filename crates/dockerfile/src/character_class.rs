//! `[a-z]` and `[^a-z]` of a pattern: one of several characters, or none of them (Go's filepath.Match).

use std::iter::Peekable;
use std::str::Chars;

/// Some characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CharacterClass {
    ranges: Vec<(char, char)>,
    is_negated: bool,
}

impl CharacterClass {
    /// Reads what stands behind `[`, up to its `]`. `None`: it has no end, or it is none.
    pub fn read(characters: &mut Peekable<Chars<'_>>) -> Option<Self> {
        let is_negated = characters.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        let one = |characters: &mut Peekable<Chars<'_>>| match characters.next()? {
            '\\' => characters.next(),
            '-' | ']' => None,
            character => Some(character),
        };
        while characters.peek()? != &']' || ranges.is_empty() {
            let from = one(characters)?;
            let to = if characters.next_if_eq(&'-').is_some() { one(characters)? } else { from };
            ranges.push((from, to));
        }
        characters.next();
        Some(Self { ranges, is_negated })
    }

    /// It is one of them.
    pub fn has(&self, character: char) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&character)) != self.is_negated
    }
}
