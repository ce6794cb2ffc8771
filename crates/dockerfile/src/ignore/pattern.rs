//! One pattern: `*` and `?` stop at slashes, `**` does not, `[a-z]` is one of several characters, and `\` takes a
//! meaning away (Go's filepath.Match, with moby's `**`).

use crate::CharacterClass;

/// A pattern that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Character(char),
    /// `?`.
    Any,
    /// `*`.
    Star,
    /// `**/`: nothing, or whole directories.
    Directories,
    /// `**` at the end.
    Everything,
    /// `[…]`, `[^…]`.
    Class(CharacterClass),
}

impl Pattern {
    /// `None`: a bracket has no end, or an escape nothing behind it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            tokens.push(match character {
                '*' if characters.next_if_eq(&'*').is_some() => {
                    // "**/" eats its slash; what stands right behind "**" begins a part of its own.
                    characters.next_if_eq(&'/');
                    if characters.peek().is_none() { Token::Everything } else { Token::Directories }
                }
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::Character(characters.next()?),
                '[' => Token::Class(CharacterClass::read(&mut characters)?),
                _ => Token::Character(character),
            });
        }
        Some(Self { tokens })
    }

    /// The whole path matches, or that of a directory above it.
    pub fn matches(&self, path: &str) -> bool {
        let mut places = self.start();
        let mut next = Vec::new();
        for character in path.chars() {
            if character == '/' && places[self.tokens.len()] {
                return true;
            }
            self.step(&places, character, &mut next);
            std::mem::swap(&mut places, &mut next);
            if !places.contains(&true) {
                return false;
            }
        }
        places[self.tokens.len()]
    }

    /// Something below a directory may match: the pattern is not over when the directory is, or it never is.
    pub fn may_match_below(&self, directory: &str) -> bool {
        let mut places = self.start();
        let mut next = Vec::new();
        for character in directory.chars().chain(['/']) {
            // It has matched a directory above: all below is matched.
            if character == '/' && places[self.tokens.len()] {
                return true;
            }
            self.step(&places, character, &mut next);
            std::mem::swap(&mut places, &mut next);
        }
        places.contains(&true)
    }

    /// Before which tokens one may stand at first.
    fn start(&self) -> Vec<bool> {
        let mut places = vec![false; self.tokens.len() + 1];
        self.reach(&mut places, 0);
        places
    }

    /// Stands before a token, and before those behind it as long as they may be nothing.
    fn reach(&self, places: &mut [bool], mut place: usize) {
        loop {
            places[place] = true;
            match self.tokens.get(place) {
                Some(Token::Star | Token::Directories | Token::Everything) => place += 1,
                _ => return,
            }
        }
    }

    /// From where one may stand to where one may stand after a character: all ways at once, so none takes long.
    fn step(&self, places: &[bool], character: char, next: &mut Vec<bool>) {
        next.clear();
        next.resize(places.len(), false);
        for (place, token) in self.tokens.iter().enumerate().filter(|(place, _)| places[*place]) {
            match token {
                Token::Character(wanted) if *wanted == character => self.reach(next, place + 1),
                Token::Any if character != '/' => self.reach(next, place + 1),
                Token::Star if character != '/' => self.reach(next, place),
                Token::Everything => self.reach(next, place),
                Token::Directories if character == '/' => self.reach(next, place),
                // Within a directory's name: the token is not over until its slash.
                Token::Directories => next[place] = true,
                Token::Class(class) if class.has(character) && character != '/' => self.reach(next, place + 1),
                _ => {}
            }
        }
    }
}
