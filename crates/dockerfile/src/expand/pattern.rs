//! Patterns of the shell as they stand behind `#`, `%` and `/`: `*` is any text, `?` any character, and the escape
//! character takes their meaning away. There are no classes, as in BuildKit.

/// Work for one match at the most: characters of the value times those of the pattern.
const MOST_STEPS: usize = 1 << 24;

/// Which end of a value is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// `#`.
    Front,
    /// `%`.
    Back,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Character(char),
    Any,
    Star,
}

/// The value without the shortest or longest piece at one end that matches.
pub(super) fn cut(value: &str, pattern: &str, escape: char, end: End, longest: bool) -> Result<String, String> {
    let mut tokens = read(pattern, escape)?;
    let mut characters: Vec<char> = value.chars().collect();
    if end == End::Back {
        // A piece at the back is one at the front of it all, backwards.
        tokens.reverse();
        characters.reverse();
    }
    let length = ends(&tokens, &characters, longest)?.first().copied().flatten().unwrap_or(0);
    let mut rest = characters.split_off(length);
    if end == End::Back {
        rest.reverse();
    }
    Ok(rest.into_iter().collect())
}

/// The value with the first piece that matches replaced, or with all of them.
pub(super) fn replace(value: &str, pattern: &str, by: &str, escape: char, all: bool) -> Result<String, String> {
    let tokens = read(pattern, escape)?;
    let characters: Vec<char> = value.chars().collect();
    let ends = ends(&tokens, &characters, true)?;
    let mut text = String::new();
    let mut at = 0;
    let mut is_done = false;
    while at < characters.len() {
        match ends[at].filter(|end| *end > at && !is_done) {
            Some(end) => {
                if text.len() + by.len() > super::LONGEST_BYTES {
                    return Err(format!("it becomes longer than {} bytes", super::LONGEST_BYTES));
                }
                text.push_str(by);
                at = end;
                is_done = !all;
            }
            None => {
                text.push(characters[at]);
                at += 1;
            }
        }
    }
    Ok(text)
}

fn read(pattern: &str, escape: char) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Star,
            '?' => Token::Any,
            _ if character == escape => match characters.next() {
                Some(escaped @ ('*' | '?' | '}' | '/' | '"' | '$')) => Token::Character(escaped),
                Some(escaped) if escaped == escape => Token::Character(escaped),
                Some(other) => {
                    return Err(format!(
                        "invalid pattern ({pattern}) in substitution: invalid escape '{escape}{other}'"
                    ));
                }
                None => Token::Character(escape),
            },
            _ => Token::Character(character),
        });
    }
    tokens.dedup_by(|a, b| (*a, *b) == (Token::Star, Token::Star));
    Ok(tokens)
}

/// For each place of the value, where the longest or the shortest piece ends that begins there and matches.
///
/// From the last token to the first, one row each: no pattern takes more than the product of the lengths.
fn ends(tokens: &[Token], value: &[char], longest: bool) -> Result<Vec<Option<usize>>, String> {
    if tokens.len().saturating_mul(value.len()) > MOST_STEPS {
        return Err("the pattern is too long for so long a value".to_owned());
    }
    let mut row: Vec<Option<usize>> = (0..=value.len()).map(Some).collect();
    for token in tokens.iter().rev() {
        match token {
            Token::Star => {
                for at in (0..value.len()).rev() {
                    row[at] = match (row[at], row[at + 1]) {
                        (Some(here), Some(further)) => {
                            Some(if longest { here.max(further) } else { here.min(further) })
                        }
                        (here, further) => here.or(further),
                    };
                }
            }
            Token::Any | Token::Character(_) => {
                for at in 0..value.len() {
                    let fits = *token == Token::Any || *token == Token::Character(value[at]);
                    row[at] = row[at + 1].filter(|_| fits);
                }
                row[value.len()] = None;
            }
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_off() {
        for (value, pattern, shortest, longest) in [
            ("a/b/c", "*/", "b/c", "c"),
            ("a/b/c", "b", "a/b/c", "a/b/c"),
            ("aXbXc", "?X", "bXc", "bXc"),
            ("a*b", "a\\*", "b", "b"),
            ("éa", "?", "a", "a"),
            ("", "*", "", ""),
            ("abc", "*", "abc", ""),
            ("abc", "", "abc", "abc"),
        ] {
            let cut = |longest| cut(value, pattern, '\\', End::Front, longest).unwrap();
            assert_eq!((cut(false).as_str(), cut(true).as_str()), (shortest, longest), "{value} {pattern}");
        }
        for (value, pattern, shortest, longest) in [
            ("a.tar.gz", ".*", "a.tar", "a"),
            ("a/b/c", "/*", "a/b", "a"),
            ("abc", "c", "ab", "ab"),
            ("a\\b", "\\\\?", "a", "a"),
        ] {
            let cut = |longest| cut(value, pattern, '\\', End::Back, longest).unwrap();
            assert_eq!((cut(false).as_str(), cut(true).as_str()), (shortest, longest), "{value} {pattern}");
        }
        assert!(cut("a", "\\n", '\\', End::Front, true).unwrap_err().contains("invalid escape '\\n'"));
        assert_eq!(cut("a\\nb", "a\\n", '`', End::Front, true).unwrap(), "b");
    }

    #[test]
    fn pieces_are_replaced() {
        for (value, pattern, by, first, all) in [
            ("a-b-c", "-", "_", "a_b-c", "a_b_c"),
            ("a-b-c", "-*", "", "a", "a"),
            ("a/b", "\\/", "", "ab", "ab"),
            ("aaa", "a", "$0", "$0aa", "$0$0$0"),
            ("abc", "", "x", "abc", "abc"),
            ("abc", "?", "x", "xbc", "xxx"),
        ] {
            let replace = |all| replace(value, pattern, by, '\\', all).unwrap();
            assert_eq!((replace(false).as_str(), replace(true).as_str()), (first, all), "{value} {pattern}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let value = "a".repeat(1000);
        let pattern = "*a".repeat(500);
        assert_eq!(cut(&value, &pattern, '\\', End::Front, true), Ok(String::new()));
        assert!(cut(&value, &"*a".repeat(10_000), '\\', End::Front, true).is_err());
        assert_eq!(replace(&value, &format!("{}b", "*a".repeat(500)), "", '\\', true), Ok(value));
    }
}
