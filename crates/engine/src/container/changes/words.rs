//! Words of a Dockerfile instruction: parted at spaces, then freed of their quotes and filled with variables. By the
//! Dockerfile reference, "Environment replacement"; where it is silent, by what BuildKit's shell lexer does.

use std::iter::Peekable;
use std::str::Chars;

/// No word grows longer: variables that hold variables double with each change.
const MAX_WORD_BYTES: usize = 1 << 20;
/// `${A:-${B:-…}}` nests no deeper.
const MAX_DEPTH: usize = 32;

/// What names stand for; the last of two of a name counts.
pub(super) struct Variables(Vec<(String, String)>);

impl Variables {
    pub(super) fn of(environment: &[(String, String)]) -> Self {
        Self(environment.to_vec())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Parts at spaces outside of quotes. The words keep their quotes and backslashes: they are for [`expand`].
pub(super) fn split(text: &str) -> Result<Vec<&str>, String> {
    let mut words = Vec::new();
    let mut begin = None;
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            words.extend(begin.take().map(|begin| &text[begin..at]));
            continue;
        }
        begin.get_or_insert(at);
        match (character, quote) {
            ('\\', quoted) if quoted != Some('\'') => {
                characters.next().ok_or("it ends with a backslash")?;
            }
            ('"' | '\'', None) => quote = Some(character),
            (_, Some(open)) if open == character => quote = None,
            _ => {}
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(begin.map(|begin| &text[begin..]));
    Ok(words)
}

/// The word without its quotes, with values for `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}`. `\$` and
/// what is in single quotes stay as they are.
pub(super) fn expand(word: &str, variables: &Variables) -> Result<String, String> {
    let mut expansion = Expansion { rest: word.chars().peekable(), variables, depth: 0 };
    expansion.until(None)
}

struct Expansion<'a> {
    rest: Peekable<Chars<'a>>,
    variables: &'a Variables,
    depth: usize,
}

impl Expansion<'_> {
    /// Up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<String, String> {
        let mut text = String::new();
        while let Some(character) = self.rest.next() {
            match character {
                _ if Some(character) == stop => return Ok(text),
                '\'' => self.single_quoted(&mut text)?,
                '"' => self.double_quoted(&mut text)?,
                '$' => text.push_str(&self.dollar()?),
                '\\' => text.extend(self.rest.next()),
                _ => text.push(character),
            }
            check_length(&text)?;
        }
        if stop.is_some() { Err("a variable's } is missing".into()) } else { Ok(text) }
    }

    fn single_quoted(&mut self, text: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next().ok_or("a quote is not closed")? {
                '\'' => return Ok(()),
                character => text.push(character),
            }
        }
    }

    /// A backslash stays, unless it stands before what it takes the meaning from.
    fn double_quoted(&mut self, text: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next().ok_or("a quote is not closed")? {
                '"' => return Ok(()),
                '$' => text.push_str(&self.dollar()?),
                '\\' => match self.rest.next_if(|next| matches!(next, '"' | '$' | '\\')) {
                    Some(next) => text.push(next),
                    None => text.push('\\'),
                },
                character => text.push(character),
            }
            check_length(text)?;
        }
    }

    /// Behind a `$`.
    fn dollar(&mut self) -> Result<String, String> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() });
        }
        let name = self.name();
        if name.is_empty() {
            return Err("a variable's name is missing after ${".into());
        }
        let value = self.value(&name);
        let missing = || format!("the }} of ${{{name} is missing");
        match self.rest.next().ok_or_else(missing)? {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let modifier = self.rest.next().ok_or_else(missing)?;
                self.modified(&name, value.filter(|value| !value.is_empty()), ":", modifier)
            }
            modifier => self.modified(&name, value, "", modifier),
        }
    }

    /// `value` is `None` where the modifier takes the variable for one that is not set.
    fn modified(&mut self, name: &str, value: Option<String>, colon: &str, modifier: char) -> Result<String, String> {
        if !matches!(modifier, '-' | '+') {
            return Err(format!("${{{name}{colon}{modifier}…}} is not built yet: {colon}- and {colon}+ are"));
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("variables are nested too deeply".into());
        }
        let word = self.until(Some('}'))?;
        self.depth -= 1;
        Ok(match (modifier, value) {
            ('-', Some(value)) => value,
            ('-', None) | ('+', Some(_)) => word,
            _ => String::new(),
        })
    }

    /// Letters, digits and `_`; one that begins with a digit is only digits. The shell's own (`$$`, `$?`, `$@`…) are
    /// names too, and never set.
    fn name(&mut self) -> String {
        if let Some(special) = self.rest.next_if(|c| matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!')) {
            return special.to_string();
        }
        let is_number = self.rest.peek().is_some_and(char::is_ascii_digit);
        let fits = |c: &char| if is_number { c.is_ascii_digit() } else { c.is_alphanumeric() || *c == '_' };
        std::iter::from_fn(|| self.rest.next_if(fits)).collect()
    }

    fn value(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(str::to_owned)
    }
}

fn check_length(text: &str) -> Result<(), String> {
    if text.len() > MAX_WORD_BYTES { Err("a word is too long".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variables() -> Variables {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Variables::of(&[("A", "old"), ("A", "one"), ("EMPTY", ""), ("TWO", "a b")].map(pair))
    }

    #[test]
    fn words_expand_as_in_a_dockerfile() {
        for (word, expanded) in [
            ("plain", "plain"),
            ("$A", "one"),
            ("x${A}y", "xoney"),
            ("$A_B|${A}_B", "|one_B"),
            ("/bin:$A:$NONE", "/bin:one:"),
            ("\\$A", "$A"),
            ("'$A'", "$A"),
            ("\"$A\"", "one"),
            ("\"\\$A \\\" \\n\"", "$A \" \\n"),
            ("a\\ b", "a b"),
            ("it''s", "its"),
            ("$TWO", "a b"),
            ("${NONE:-x}${EMPTY:-y}${EMPTY-z}${A:-w}", "xyone"),
            ("${NONE:+x}${EMPTY:+y}${EMPTY+z}${A:+w}", "zw"),
            ("${NONE:-${A}}", "one"),
            ("${NONE:-\"a}b\"}", "a}b"),
            ("100$", "100$"),
            ("$/x", "$/x"),
            ("$1x$$", "x"),
            ("\\", ""),
        ] {
            assert_eq!(expand(word, &variables()).as_deref(), Ok(expanded), "{word}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_refused() {
        for (word, words) in [
            ("${A", "the } of ${A is missing"),
            ("${A:", "the } of ${A is missing"),
            ("${A:-x", "a variable's } is missing"),
            ("${}", "a variable's name is missing after ${"),
            ("${A:?x}", "${A:?…} is not built yet: :- and :+ are"),
            ("${A%x}", "${A%…} is not built yet: - and + are"),
            ("${A/x/y}", "${A/…} is not built yet: - and + are"),
            ("'a", "a quote is not closed"),
            ("\"a", "a quote is not closed"),
        ] {
            assert_eq!(expand(word, &variables()).unwrap_err(), words, "{word}");
        }
        assert!(expand(&"${N:-".repeat(100), &variables()).unwrap_err().contains("nested too deeply"));
        let long = Variables(vec![("L".to_owned(), "x".repeat(1000))]);
        assert_eq!(expand(&"$L".repeat(2000), &long).unwrap_err(), "a word is too long");
    }

    #[test]
    fn spaces_part_words_outside_of_quotes() {
        for (text, words) in
            [("a  b", &["a", "b"][..]), (" A=\"x y\" B='p q' C=r\\ s", &["A=\"x y\"", "B='p q'", "C=r\\ s"]), ("", &[])]
        {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert!(split("a\\").is_err() && split("\"a").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a$A{}:+\\-'\"\\\\ ]{0,40}") {
            let _ = split(&text);
            let _ = expand(&text, &variables());
        }
    }
}
