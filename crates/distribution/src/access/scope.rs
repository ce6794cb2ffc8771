//! What a token lets its bearer do: scopes as clients ask for them, and claims as tokens have them (the distribution
//! project's "Token Scope Documentation", "Resource Scope Grammar", and "Token Authentication Implementation", "Claim Set").

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::access::rights::{Right, RightSet};
use crate::name::RepositoryName;

/// No token is for more repositories: a push names a handful.
const MOST_REPOSITORIES: usize = 64;
/// Asks to see the list of repositories.
const CATALOG: &str = "registry:catalog:*";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Granted {
    repositories: BTreeMap<RepositoryName, RightSet>,
    catalog: bool,
}

impl Granted {
    /// What is asked for: scopes parted by blanks. What is not understood is left out: it is then not granted, which is no
    /// error ("Token Authentication Specification").
    pub(crate) fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for scope in text.split(' ') {
            if scope == CATALOG {
                all.catalog = true;
            }
            let Some((resource, actions)) = scope.rsplit_once(':') else { continue };
            let Some((kind, name)) = resource.split_once(':') else { continue };
            all.add(kind, name, actions.split(','));
        }
        all
    }

    /// Of a token's claims.
    pub(crate) fn of_claims(access: &Value) -> Self {
        let mut all = Self::default();
        for entry in access.as_array().into_iter().flatten() {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            let actions =
                || entry.get("actions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            if text("type") == "registry" && text("name") == "catalog" && actions().any(|action| action == "*") {
                all.catalog = true;
            }
            all.add(text("type"), text("name"), actions());
        }
        all
    }

    fn add<'a>(&mut self, kind: &str, name: &str, actions: impl Iterator<Item = &'a str>) {
        // A class in brackets is ignored ("Resource Class").
        let is_repository = kind == "repository" || (kind.starts_with("repository(") && kind.ends_with(')'));
        let Ok(name) = name.parse::<RepositoryName>() else { return };
        if !is_repository || (self.repositories.len() >= MOST_REPOSITORIES && !self.repositories.contains_key(&name)) {
            return;
        }
        let rights = self.repositories.entry(name).or_default();
        for action in actions {
            match action {
                // skopeo and podman ask so before they delete.
                "*" => *rights = RightSet::ALL,
                word => Right::parse(word).into_iter().for_each(|right| rights.add(right)),
            }
        }
    }

    /// What of it somebody may do. Of a repository of which he may do nothing it does not say the name: who asks for one by
    /// its name elsewhere would learn what it is called here.
    pub(crate) fn limited(self, may: impl Fn(&RepositoryName) -> RightSet) -> Self {
        let limit = |(name, rights): (RepositoryName, RightSet)| {
            let rights = rights.intersection(may(&name));
            (rights != RightSet::default()).then_some((name, rights))
        };
        Self { repositories: self.repositories.into_iter().filter_map(limit).collect(), catalog: self.catalog }
    }

    pub(crate) fn has(&self, repository: &RepositoryName, right: Right) -> bool {
        self.repositories.get(repository).is_some_and(|rights| rights.has(right))
    }

    pub(crate) fn has_catalog(&self) -> bool {
        self.catalog
    }

    /// For a token's claims.
    pub(crate) fn claims(&self) -> Value {
        let words = |rights: RightSet| rights.iter().map(Right::word).collect::<Vec<_>>();
        let mut all: Vec<Value> = self
            .repositories
            .iter()
            .map(|(name, rights)| json!({ "type": "repository", "name": name.as_str(), "actions": words(*rights) }))
            .collect();
        if self.catalog {
            all.push(json!({ "type": "registry", "name": "catalog", "actions": ["*"] }));
        }
        Value::Array(all)
    }

    /// As a client is told it.
    pub(crate) fn text(&self) -> String {
        let mut all: Vec<String> = self
            .repositories
            .iter()
            .filter(|(_, rights)| rights.iter().next().is_some())
            .map(|(name, rights)| scope_of(name, *rights))
            .collect();
        all.extend(self.catalog.then(|| CATALOG.to_owned()));
        all.join(" ")
    }
}

/// Scopes with other names for repositories; those that have none go.
pub(crate) fn renamed(text: &str, name: impl Fn(&RepositoryName) -> Option<RepositoryName>) -> String {
    let one = |scope: &str| {
        let (resource, actions) = scope.rsplit_once(':')?;
        let (kind, called) = resource.split_once(':')?;
        if !kind.starts_with("repository") {
            return Some(scope.to_owned());
        }
        Some(format!("{kind}:{}:{actions}", name(&called.parse().ok()?)?))
    };
    text.split(' ').filter_map(one).collect::<Vec<_>>().join(" ")
}

/// What somebody needs who wants to do this: a push looks first at what is there.
pub(crate) fn needed(repository: &RepositoryName, right: Right) -> String {
    let rights = match right {
        Right::Push => [Right::Pull, Right::Push].into_iter().collect(),
        right => [right].into_iter().collect(),
    };
    scope_of(repository, rights)
}

/// What somebody needs who wants to see the list of repositories.
pub(crate) fn needed_for_catalog() -> String {
    CATALOG.to_owned()
}

fn scope_of(repository: &RepositoryName, rights: RightSet) -> String {
    format!("repository:{repository}:{}", rights.iter().map(Right::word).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scopes_have_the_names_of_here() {
        let here = |name: &RepositoryName| match name.as_str() {
            "library/debian" => "hub/library/debian".parse().ok(),
            _ => None,
        };
        for (said, want) in [
            ("repository:library/debian:pull,push", "repository:hub/library/debian:pull,push"),
            ("repository(plugin):library/debian:*", "repository(plugin):hub/library/debian:*"),
            ("repository:other:pull registry:catalog:*", "registry:catalog:*"),
            ("repository:LIBRARY:pull x  repository:library/debian:pull", "repository:hub/library/debian:pull"),
            ("", ""),
        ] {
            assert_eq!(renamed(said, here), want, "{said}");
        }
    }

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        for (asked, granted) in [
            ("repository:a/b:pull,push", "repository:a/b:pull,push"),
            ("repository:a:push repository:a:pull", "repository:a:pull,push"),
            ("repository:a:* repository:b:pull", "repository:a:pull,push,delete repository:b:pull"),
            ("repository(plugin):a:pull", "repository:a:pull"),
            ("registry:catalog:*", "registry:catalog:*"),
            ("registry:catalog:read", ""),
            ("repository:a:fly", ""),
            ("repository:A:pull namespace:a:pull repository:a nothing : :: :::", ""),
            ("", ""),
        ] {
            let read = Granted::parse(asked);
            assert_eq!(read.text(), granted, "{asked}");
            assert_eq!(Granted::of_claims(&read.claims()), read, "{asked}");
        }
        let many: String = (0..1000).map(|number| format!("repository:r{number}:pull ")).collect();
        assert_eq!(Granted::parse(&many).repositories.len(), MOST_REPOSITORIES);
        let any = json!([{ "type": "repository", "name": "a", "actions": ["*", 7] }, 7, { "type": "repository" }]);
        assert!(Granted::of_claims(&any).has(&"a".parse().unwrap(), Right::Delete));
    }

    proptest! {
        #[test]
        fn nothing_that_is_asked_for_panics_or_gives_more(text in "\\PC{0,80}", name in "[a-z]{1,3}") {
            let asked = Granted::parse(&format!("{text} repository:{name}:pull"));
            let given = asked.limited(|_| RightSet::default());
            prop_assert!(!given.has(&name.parse().unwrap(), Right::Pull));
        }
    }
}
