//! Patterns of sources, as Go's filepath.Match reads them: `*` and `?` stop at slashes, `[a-z]` is one of several
//! characters, `\` takes a meaning away. There is no `**`.

use dozen_dockerfile::CharacterClass;

use super::CopyError;
use crate::tree::{Kind, Tree, TreeError, join, resolve};

/// One component of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Component(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Character(char),
    /// `?`.
    Any,
    /// `*`.
    Star,
    /// `[…]`, `[^…]`.
    Class(CharacterClass),
}

/// Anything in it means more than itself.
pub(super) fn has_wildcard(text: &str) -> bool {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => _ = characters.next(),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// What a clean pattern finds in a tree, in order. Its first components, those without wildcards, may lead through links;
/// one without any wildcard finds itself, whether it is there or not.
pub(super) fn find(tree: &dyn Tree, pattern: &str) -> Result<Vec<Vec<u8>>, CopyError> {
    let components: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty()).collect();
    let plain = components.iter().position(|name| has_wildcard(name)).unwrap_or(components.len());
    let (before, wild) = components.split_at(plain);
    let before = before.join("/").into_bytes();
    if wild.is_empty() {
        return Ok(vec![before]);
    }
    let wild = wild.iter().map(|name| Component::parse(name)).collect::<Option<Vec<_>>>();
    let wild = wild.ok_or_else(|| CopyError::Pattern { pattern: pattern.to_owned() })?;
    let base = resolve(|path| tree.kind(path), &before, true)?;
    let mut found = match base.kind {
        Some(Kind::Directory) => vec![base.path],
        _ => Vec::new(),
    };
    for (index, component) in wild.iter().enumerate() {
        let is_last = index + 1 == wild.len();
        let mut next = Vec::new();
        for directory in &found {
            let matched = tree.names(directory)?.into_iter().filter(|name| component.matches(name));
            for path in matched.map(|name| join(directory, &name)) {
                if is_last || is_directory(tree, &path)? {
                    next.push(path);
                }
            }
        }
        found = next;
    }
    // As a walk comes by them: names in order, one directory after the other.
    Ok(found)
}

fn is_directory(tree: &dyn Tree, path: &[u8]) -> Result<bool, TreeError> {
    Ok(tree.kind(path)? == Some(Kind::Directory))
}

impl Component {
    /// `None`: a bracket has no end, or an escape nothing behind it.
    fn parse(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            tokens.push(match character {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::Character(characters.next()?),
                '[' => Token::Class(CharacterClass::read(&mut characters)?),
                _ => Token::Character(character),
            });
        }
        Some(Self(tokens))
    }

    /// The whole name matches. A star that turns out too short takes one character more; only the last one may have to,
    /// so that no name takes long.
    fn matches(&self, name: &[u8]) -> bool {
        let name: Vec<char> = String::from_utf8_lossy(name).chars().collect();
        let (mut at, mut token) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < name.len() {
            match self.0.get(token) {
                Some(Token::Star) => {
                    star = Some((token, at));
                    token += 1;
                }
                Some(one) if one.is_one(name[at]) => (at, token) = (at + 1, token + 1),
                _ => match &mut star {
                    Some((after, taken)) => {
                        *taken += 1;
                        (at, token) = (*taken, *after + 1);
                    }
                    None => return false,
                },
            }
        }
        self.0[token..].iter().all(|token| *token == Token::Star)
    }
}

impl Token {
    fn is_one(&self, character: char) -> bool {
        match self {
            Self::Character(wanted) => *wanted == character,
            Self::Any => true,
            Self::Star => false,
            Self::Class(class) => class.has(character),
        }
    }
}
