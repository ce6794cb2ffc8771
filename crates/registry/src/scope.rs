//! What a token is to allow: `repository:library/debian:pull`, several of them parted by blanks (the distribution project's
//! "Token Scope Documentation").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A server may ask for no more at once.
const MOST_RESOURCES: usize = 16;
/// Longer ones are nobody's.
const LONGEST_BYTES: usize = 4096;

/// Resources, each with what is done to it. Equal however it was written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(BTreeMap<String, BTreeSet<String>>);

impl Scope {
    /// To read a repository.
    pub fn pull(repository: &str) -> Self {
        Self::of(repository, &["pull"])
    }

    /// To write to it, too: whoever writes looks first at what is there.
    pub fn push(repository: &str) -> Self {
        Self::of(repository, &["pull", "push"])
    }

    fn of(repository: &str, actions: &[&str]) -> Self {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        Self([(format!("repository:{repository}"), actions)].into())
    }

    /// As a challenge has it. What is none is left out.
    pub fn parse(text: &str) -> Self {
        let text = if text.len() > LONGEST_BYTES { "" } else { text };
        let mut all = Self::default();
        // A repository's name may have a colon in it, in its host's port.
        for (resource, actions) in text.split(' ').filter_map(|word| word.rsplit_once(':')) {
            if !resource.contains(':') || (all.0.len() == MOST_RESOURCES && !all.0.contains_key(resource)) {
                continue;
            }
            let actions = actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned);
            all.0.entry(resource.to_owned()).or_default().extend(actions);
        }
        all
    }

    /// Both, as far as there is room.
    pub fn union(mut self, more: Self) -> Self {
        for (resource, actions) in more.0 {
            if self.0.len() == MOST_RESOURCES && !self.0.contains_key(&resource) {
                continue;
            }
            self.0.entry(resource).or_default().extend(actions);
        }
        self
    }

    /// Whether nothing more is needed for `wanted`.
    pub fn covers(&self, wanted: &Self) -> bool {
        wanted.0.iter().all(|(resource, actions)| self.0.get(resource).is_some_and(|own| own.is_superset(actions)))
    }

    /// One by one, as a token service is asked for them.
    pub fn each(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            format!("{resource}:{}", actions.iter().map(String::as_str).collect::<Vec<_>>().join(","))
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.each().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scopes_are_joined() {
        for (one, other, want) in [
            ("repository:a/b:pull", "repository:a/b:push", "repository:a/b:pull,push"),
            ("repository:a/b:pull", "", "repository:a/b:pull"),
            ("repository:b:pull", "repository:a:pull", "repository:a:pull repository:b:pull"),
            ("repository:host:5000/a:pull", "registry:catalog:*", "registry:catalog:* repository:host:5000/a:pull"),
            ("nothing", "a:b", ""),
            ("repository:a:push,pull,pull", "repository:a:", "repository:a:pull,push"),
        ] {
            assert_eq!(Scope::parse(one).union(Scope::parse(other)).to_string(), want, "{one} {other}");
        }
        let many: String = (0..1000).map(|number| format!("repository:{number}:pull ")).collect();
        assert_eq!(Scope::parse(&many[..4000]).0.len(), MOST_RESOURCES);
        assert_eq!(Scope::parse(&many), Scope::default());
    }

    #[test]
    fn what_covers_what() {
        let (pull, push) = (Scope::pull("a"), Scope::push("a"));
        assert!(push.covers(&pull) && !pull.covers(&push) && pull.covers(&Scope::default()));
        assert!(!push.covers(&Scope::pull("b")));
    }

    proptest! {
        #[test]
        fn a_union_covers_both(one in "[a-c]:[a-c]:[a-c](,[a-c])?( [a-c]:[a-c]:[a-c])?", other in "[a-c]:[a-c]:[a-c]( [a-c]:[a-c]:[a-c])?") {
            let (one, other) = (Scope::parse(&one), Scope::parse(&other));
            let both = one.clone().union(other.clone());
            prop_assert!(both.covers(&one) && both.covers(&other));
            prop_assert_eq!(Scope::parse(&both.to_string()), both);
        }
    }
}
