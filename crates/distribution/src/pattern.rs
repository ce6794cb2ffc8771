//! Which repositories are meant: `team/web`, `team/*`, `mirror/**`, `{user}/**`.
//!
//! `*` stands for any letters within a component, also for none, `**` for one or more whole components, and `{user}` for a
//! component that is the name of who asks.

use crate::name::RepositoryName;

/// Longer ones match no name that there can be.
const LONGEST_BYTES: usize = 255;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Component>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    /// `**`
    Several,
    /// `{user}`
    User,
    /// With any number of `*` in it.
    Letters(Box<str>),
}

impl Pattern {
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > LONGEST_BYTES {
            return Err("no repository's name is as long");
        }
        text.split('/').map(component).collect::<Result<_, _>>().map(Self)
    }

    /// Whether it has `{user}` in it: for who has not logged in it stands for nothing.
    pub(crate) fn names_the_user(&self) -> bool {
        self.0.contains(&Component::User)
    }

    /// Whether no name is left out, whatever it is.
    pub(crate) fn means_all(&self) -> bool {
        self.0 == [Component::Several]
    }

    /// Whether this repository is meant. `user`: who asks.
    pub(crate) fn matches(&self, name: &RepositoryName, user: Option<&str>) -> bool {
        let words: Vec<&str> = name.as_str().split('/').collect();
        // Which of the first so many words the components until now can be: no pattern makes it slow.
        let mut reached = vec![false; words.len() + 1];
        reached[0] = true;
        for component in &self.0 {
            let mut next = vec![false; words.len() + 1];
            for (at, word) in words.iter().enumerate() {
                let fits = match component {
                    Component::Several => true,
                    Component::User => user == Some(*word),
                    Component::Letters(letters) => fits(letters.as_bytes(), word.as_bytes()),
                };
                let goes_on = *component == Component::Several && next[at];
                next[at + 1] = fits && (reached[at] || goes_on);
            }
            reached = next;
        }
        reached[words.len()]
    }
}

fn component(text: &str) -> Result<Component, &'static str> {
    let is_letter =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b'*');
    match text {
        "**" => Ok(Component::Several),
        "{user}" => Ok(Component::User),
        "" => Err("there is nothing before, behind or between its slashes"),
        _ if text.contains("**") => Err("** stands for whole components: write a/**/b"),
        _ if text.contains(['{', '}']) => Err("{user} stands for a whole component: write {user}/**"),
        _ if text.bytes().all(is_letter) => Ok(Component::Letters(text.into())),
        _ => Err("no repository can be called so: names have lower-case letters, digits, '.', '_', '-' and '/'"),
    }
}

/// Whether letters with `*` among them are this word; the time is at most the product of both lengths.
pub(crate) fn fits(pattern: &[u8], word: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    // The last star, and where the word goes on behind what it stands for.
    let mut star = None;
    while place < word.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, place));
            at += 1;
        } else if pattern.get(at) == Some(&word[place]) {
            at += 1;
            place += 1;
        } else if let Some((star_at, stands_until)) = star {
            star = Some((star_at, stands_until + 1));
            (at, place) = (star_at + 1, stands_until + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_means_what_it_says() {
        let matches =
            |pattern: &str, name: &str| Pattern::parse(pattern).unwrap().matches(&name.parse().unwrap(), Some("ann"));
        for (pattern, yes, no) in [
            ("web", &["web"][..], &["webs", "team/web", "web/a"][..]),
            ("team/*", &["team/web", "team/a.b"], &["team", "team/a/b", "teams/web"]),
            ("team/web-*", &["team/web-1", "team/web-a-b"], &["team/web", "team/web-1/x"]),
            ("*-*-x", &["a-b-x", "a-b-c-x", "a--x"], &["a-x", "a-b-xy"]),
            ("team/**", &["team/web", "team/a/b/c"], &["team", "steam/a"]),
            ("**", &["a", "a/b/c"], &[]),
            ("**/web", &["team/web", "a/b/web"], &["web", "a/web/b"]),
            ("a/**/b/**", &["a/x/b/y", "a/x/b/b/b"], &["a/b", "a/x/b", "b/x/b/y"]),
            ("{user}/**", &["ann/web", "ann/a/b"], &["bob/web", "ann", "x/ann/y"]),
            ("*", &["a"], &["a/b"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
        let home = Pattern::parse("{user}/**").unwrap();
        assert!(home.names_the_user() && !home.matches(&"ann/web".parse().unwrap(), None));
    }

    #[test]
    fn what_no_repository_can_be_called_is_refused() {
        for bad in ["", "/", "a/", "a//b", "A", "a:b", "a**", "a/**b", "x{user}", "{users}/a", "ä", &"a".repeat(256)] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_meant_by_itself_and_by_everything(name in "[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,4}") {
            let parsed: RepositoryName = name.parse().unwrap();
            prop_assert!(Pattern::parse(&name).unwrap().matches(&parsed, None));
            prop_assert!(Pattern::parse("**").unwrap().matches(&parsed, None));
        }

        /// Against the plain way, by recursion.
        #[test]
        fn stars_fit_as_they_do_by_hand(pattern in "[ab*]{0,8}", word in "[ab]{0,10}") {
            fn by_hand(pattern: &[u8], word: &[u8]) -> bool {
                match pattern.split_first() {
                    None => word.is_empty(),
                    Some((b'*', rest)) => (0..=word.len()).any(|at| by_hand(rest, &word[at..])),
                    Some((letter, rest)) => word.first() == Some(letter) && by_hand(rest, &word[1..]),
                }
            }
            prop_assert_eq!(fits(pattern.as_bytes(), word.as_bytes()), by_hand(pattern.as_bytes(), word.as_bytes()));
        }
    }
}
