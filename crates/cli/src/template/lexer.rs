//! Cuts a template into text and the tokens within `{{` and `}}`.

use super::Fault;

/// A token and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub offset: usize,
    /// White space stands before it: `.a .b` is two operands, `.a.b` one.
    pub is_spaced: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Text(String),
    Open,
    Close,
    /// `.Name`, without the dot.
    Field(String),
    /// `$name`; just `$` is the empty one.
    Variable(String),
    Word(String),
    Dot,
    String(String),
    Integer(i64),
    Float(f64),
    LeftParenthesis,
    RightParenthesis,
    Pipe,
    Declare,
    Assign,
    Comma,
}

pub(crate) fn tokens(source: &str) -> Result<Vec<Token>, Fault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut trims_left = false;
    loop {
        let open = source[at..].find("{{").map(|found| at + found);
        let mut text = &source[at..open.unwrap_or(source.len())];
        if trims_left {
            text = text.trim_start_matches(SPACE);
        }
        let after_open = open.map(|open| &source[open + 2..]);
        let trims_right = after_open.is_some_and(|rest| rest.starts_with('-') && rest[1..].starts_with(SPACE));
        if trims_right {
            text = text.trim_end_matches(SPACE);
        }
        if !text.is_empty() {
            tokens.push(Token { kind: Kind::Text(text.to_owned()), offset: at, is_spaced: false });
        }
        let Some(open) = open else { return Ok(tokens) };
        let inside = open + 2 + if trims_right { 2 } else { 0 };
        (at, trims_left) = match source[inside..].starts_with("/*") {
            true => skip_comment(source, open, inside)?,
            false => {
                tokens.push(Token { kind: Kind::Open, offset: open, is_spaced: false });
                action(source, open, inside, &mut tokens)?
            }
        };
    }
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn skip_comment(source: &str, open: usize, inside: usize) -> Result<(usize, bool), Fault> {
    let end = source[inside + 2..].find("*/").ok_or_else(|| Fault::new(open, "unclosed comment"))? + inside + 4;
    let rest = &source[end..];
    if rest.starts_with("}}") {
        return Ok((end + 2, false));
    }
    if rest.starts_with(SPACE) && rest[1..].starts_with("-}}") {
        return Ok((end + 4, true));
    }
    Err(Fault::new(open, "comment ends before closing delimiter"))
}

/// The tokens of one action; returns where it ends and whether it trims what follows.
fn action(source: &str, open: usize, mut at: usize, tokens: &mut Vec<Token>) -> Result<(usize, bool), Fault> {
    let mut depth = 0_usize;
    let mut is_spaced = false;
    loop {
        let rest = &source[at..];
        let Some(first) = rest.chars().next() else { return Err(Fault::new(open, "unclosed action")) };
        let closes_trimming = is_spaced && rest.starts_with("-}}");
        if rest.starts_with("}}") || closes_trimming {
            if depth > 0 {
                return Err(Fault::new(at, "unclosed left paren"));
            }
            tokens.push(Token { kind: Kind::Close, offset: at, is_spaced });
            return Ok((at + if closes_trimming { 3 } else { 2 }, closes_trimming));
        }
        if SPACE.contains(&first) {
            at += 1;
            is_spaced = true;
            continue;
        }
        let (kind, length) = token(rest, at)?;
        match kind {
            Kind::LeftParenthesis => depth += 1,
            Kind::RightParenthesis => {
                depth = depth.checked_sub(1).ok_or_else(|| Fault::new(at, "unexpected right paren"))?;
            }
            _ => {}
        }
        tokens.push(Token { kind, offset: at, is_spaced });
        at += length;
        is_spaced = false;
    }
}

fn token(rest: &str, at: usize) -> Result<(Kind, usize), Fault> {
    let first = rest.chars().next().expect("the caller has looked");
    let second = rest[first.len_utf8()..].chars().next();
    let single = |kind| Ok((kind, 1));
    match first {
        '(' => single(Kind::LeftParenthesis),
        ')' => single(Kind::RightParenthesis),
        '|' => single(Kind::Pipe),
        ',' => single(Kind::Comma),
        '=' => single(Kind::Assign),
        ':' if second == Some('=') => Ok((Kind::Declare, 2)),
        ':' => Err(Fault::new(at, "expected :=")),
        '"' => quoted(rest, at),
        '`' => {
            let end = rest[1..].find('`').ok_or_else(|| Fault::new(at, "unterminated raw quoted string"))?;
            Ok((Kind::String(rest[1..=end].to_owned()), end + 2))
        }
        '\'' => character(rest, at),
        '.' if second.is_some_and(|c| c.is_ascii_digit()) => number(rest, at),
        '.' => match word_length(&rest[1..]) {
            0 => single(Kind::Dot),
            length => Ok((Kind::Field(rest[1..=length].to_owned()), length + 1)),
        },
        '$' => {
            let length = word_length(&rest[1..]);
            Ok((Kind::Variable(rest[1..=length].to_owned()), length + 1))
        }
        '+' | '-' if second.is_some_and(|c| c.is_ascii_digit() || c == '.') => number(rest, at),
        _ if first.is_ascii_digit() => number(rest, at),
        _ => match word_length(rest) {
            0 => Err(Fault::new(at, format!("unexpected {first:?} in command"))),
            length => Ok((Kind::Word(rest[..length].to_owned()), length)),
        },
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn number(rest: &str, at: usize) -> Result<(Kind, usize), Fault> {
    let is_part = |(index, c): &(usize, char)| {
        c.is_ascii_alphanumeric()
            || matches!(c, '.' | '_')
            || (matches!(c, '+' | '-')
                && (*index == 0 || matches!(rest.as_bytes()[index - 1], b'e' | b'E') && !rest.contains("0x")))
    };
    let length: usize = rest.char_indices().take_while(is_part).map(|(_, c)| c.len_utf8()).sum();
    let text = &rest[..length];
    let bad = || Fault::new(at, format!("bad number syntax: {text:?}"));
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let radix = |prefix: &str, radix| digits.strip_prefix(prefix).map(|digits| i64::from_str_radix(digits, radix));
    let integer = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2));
    let kind = match integer.unwrap_or_else(|| digits.parse::<i64>()) {
        Ok(integer) if !digits.starts_with(['+', '-']) => Kind::Integer(sign * integer),
        Ok(_) => return Err(bad()),
        Err(_) => Kind::Float(plain.parse::<f64>().map_err(|_| bad())?),
    };
    Ok((kind, length))
}

fn character(rest: &str, at: usize) -> Result<(Kind, usize), Fault> {
    let bad = || Fault::new(at, "unterminated character constant");
    let mut characters = rest.char_indices().skip(1);
    let (_, first) = characters.next().ok_or_else(bad)?;
    let value = if first == '\\' { escape(&mut characters).ok_or_else(bad)? } else { first };
    match characters.next() {
        Some((end, '\'')) => Ok((Kind::Integer(i64::from(u32::from(value))), end + 1)),
        _ => Err(bad()),
    }
}

/// A string with Go's escapes (Go specification, "String literals").
fn quoted(rest: &str, at: usize) -> Result<(Kind, usize), Fault> {
    let bad = || Fault::new(at, "unterminated quoted string");
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    loop {
        let (index, character) = characters.next().ok_or_else(bad)?;
        match character {
            '"' => return Ok((Kind::String(text), index + 1)),
            '\n' => return Err(bad()),
            '\\' => text.push(escape(&mut characters).ok_or_else(|| Fault::new(at, "invalid syntax in string"))?),
            other => text.push(other),
        }
    }
}

fn escape(characters: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let (_, letter) = characters.next()?;
    let mut code = |digits: usize, radix: u32, first: u32| {
        (0..digits).try_fold(first, |code, _| Some(code * radix + characters.next()?.1.to_digit(radix)?))
    };
    match letter {
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        '\\' | '"' | '\'' => Some(letter),
        'x' => code(2, 16, 0).and_then(char::from_u32),
        'u' => code(4, 16, 0).and_then(char::from_u32),
        // Eight digits overflow only when they are no character anyway.
        'U' => code(2, 16, 0).filter(|high| *high == 0).and_then(|_| code(6, 16, 0)).and_then(char::from_u32),
        digit @ '0'..='7' => code(2, 8, digit.to_digit(8)?).and_then(char::from_u32),
        _ => None,
    }
}
