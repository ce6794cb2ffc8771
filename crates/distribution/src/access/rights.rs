//! Who may pull, push and delete in which repositories: a file of rules (TOML), each of which allows something. What none of
//! them allows is not allowed.
//!
//! Who may push or delete may pull, too: clients look at what is there before they change it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use toml::Spanned;

use crate::access::Passwords;
use crate::name::RepositoryName;
use crate::pattern::Pattern;

/// Everyone, logged in or not.
const ANYONE: &str = "@anyone";
/// Everyone who has logged in.
const USERS: &str = "@users";

/// One thing that is done to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    Pull,
    Push,
    Delete,
}

impl Right {
    const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// As tokens' scopes have it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.word() == word)
    }
}

/// Several of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RightSet {
    pull: bool,
    push: bool,
    delete: bool,
}

impl RightSet {
    pub(crate) const ALL: Self = Self { pull: true, push: true, delete: true };

    pub(crate) fn has(self, right: Right) -> bool {
        match right {
            Right::Pull => self.pull,
            Right::Push => self.push,
            Right::Delete => self.delete,
        }
    }

    pub(crate) fn add(&mut self, right: Right) {
        match right {
            Right::Pull => self.pull = true,
            Right::Push => self.push = true,
            Right::Delete => self.delete = true,
        }
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Right::ALL.into_iter().filter(|right| self.has(*right) || other.has(*right)).collect()
    }

    pub(crate) fn intersection(self, other: Self) -> Self {
        self.iter().filter(|right| other.has(*right)).collect()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }
}

impl FromIterator<Right> for RightSet {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        let mut all = Self::default();
        rights.into_iter().for_each(|right| all.add(right));
        all
    }
}

/// What a file of rules says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
    users: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    repositories: Vec<Pattern>,
    pull: Vec<Who>,
    push: Vec<Who>,
    delete: Vec<Who>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Anyone,
    Users,
    User(String),
}

impl Who {
    fn is(&self, user: Option<&str>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Users => user.is_some(),
            Self::User(name) => user == Some(name),
        }
    }
}

impl Policy {
    /// What somebody may do there; `None` is who has not logged in.
    pub(crate) fn rights(&self, user: Option<&str>, repository: &RepositoryName) -> RightSet {
        let mut all = RightSet::default();
        for rule in &self.rules {
            let granted = rule.grants(user);
            let is_more = granted.iter().any(|right| !all.has(right));
            if is_more && rule.repositories.iter().any(|pattern| pattern.matches(repository, user)) {
                all = all.union(granted);
            }
        }
        all
    }

    /// Whether somebody may do this in all repositories that there are or could be.
    pub(crate) fn is_everywhere(&self, user: Option<&str>, right: Right) -> bool {
        let is_for_all = |rule: &Rule| rule.repositories.iter().any(Pattern::means_all);
        self.rules.iter().any(|rule| is_for_all(rule) && rule.grants(user).has(right))
    }

    /// Everyone who is named in it.
    pub(crate) fn users(&self) -> impl Iterator<Item = &str> {
        self.users.iter().map(String::as_str)
    }
}

impl Rule {
    fn grants(&self, user: Option<&str>) -> RightSet {
        let is_in = |all: &[Who]| all.iter().any(|who| who.is(user));
        let (push, delete) = (is_in(&self.push), is_in(&self.delete));
        RightSet { pull: push || delete || is_in(&self.pull), push, delete }
    }
}

/// What is wrong with a file of rules.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum RightsError {
    #[error("cannot read the rights in {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}, line {line}: {why}")]
    Line { path: String, line: usize, why: String },
    #[error("{path} has no [[rule]] in it: nobody could do anything")]
    Empty { path: String },
}

/// The rules of a file, which may be read again. Clones share it.
#[derive(Debug, Clone)]
pub struct Rights {
    path: PathBuf,
    policy: Arc<RwLock<Arc<Policy>>>,
}

impl Rights {
    /// Of this file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is not understood.
    pub fn read(path: &Path) -> Result<Self, RightsError> {
        Ok(Self { path: path.to_owned(), policy: Arc::new(RwLock::new(Arc::new(read(path)?))) })
    }

    /// From now on what the file says now.
    ///
    /// # Errors
    /// As [`Self::read`]; then nothing has changed.
    pub fn reload(&self) -> Result<(), RightsError> {
        let policy = read(&self.path)?;
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        Ok(())
    }

    /// Whom it names, and who has no password.
    pub fn strangers(&self, passwords: &Passwords) -> Vec<String> {
        self.policy().users().filter(|name| passwords.hash_of(name).is_none()).map(str::to_owned).collect()
    }

    /// What counts at this moment.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(path: &Path) -> Result<Policy, RightsError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| RightsError::Read { path: shown.clone(), source })?;
    parse(&text, &shown)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    groups: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    #[serde(default)]
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    repositories: Vec<Spanned<String>>,
    #[serde(default)]
    pull: Vec<Spanned<String>>,
    #[serde(default)]
    push: Vec<Spanned<String>>,
    #[serde(default)]
    delete: Vec<Spanned<String>>,
}

fn parse(text: &str, shown: &str) -> Result<Policy, RightsError> {
    let at = |place: usize, why: String| {
        let line = text.get(..place).unwrap_or(text).matches('\n').count() + 1;
        RightsError::Line { path: shown.to_owned(), line, why }
    };
    let file: FileText = toml::from_str(text)
        .map_err(|error| at(error.span().map_or(0, |span| span.start), error.message().trim().replace('\n', " ")))?;
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut users = BTreeSet::new();
    for (name, members) in &file.groups {
        let refused = |why: &str| Err(at(name.span().start, format!("{:?}: {why}", name.get_ref())));
        match name.get_ref().as_str() {
            "anyone" | "users" => return refused("a group of this name there is already"),
            word if word.is_empty() || word.starts_with('@') => return refused("write a group's name without @"),
            word => {
                for member in members {
                    check_user(member.get_ref()).map_err(|why| at(member.span().start, why))?;
                }
                groups.insert(word, members.iter().map(|member| member.get_ref().clone()).collect());
            }
        }
    }
    let mut rules = Vec::new();
    for rule in &file.rule {
        let mut who = |words: &[Spanned<String>]| {
            let mut all = Vec::new();
            for word in words {
                let refused = |why| at(word.span().start, why);
                match (word.get_ref().as_str(), word.get_ref().strip_prefix('@')) {
                    (ANYONE, _) => all.push(Who::Anyone),
                    (USERS, _) => all.push(Who::Users),
                    (_, Some(group)) => {
                        let why = || refused(format!("@{group} is no group: write it into [groups]"));
                        all.extend(groups.get(group).ok_or_else(why)?.iter().cloned().map(Who::User));
                    }
                    (user, None) => {
                        check_user(user).map_err(refused)?;
                        all.push(Who::User(user.to_owned()));
                    }
                }
            }
            users.extend(all.iter().filter_map(|who| match who {
                Who::User(name) => Some(name.clone()),
                Who::Anyone | Who::Users => None,
            }));
            Ok(all)
        };
        let (pull, push, delete) = (who(&rule.pull)?, who(&rule.push)?, who(&rule.delete)?);
        let mut repositories = Vec::new();
        for name in &rule.repositories {
            let refused = |why: &str| at(name.span().start, format!("{:?}: {why}", name.get_ref()));
            let pattern = Pattern::parse(name.get_ref()).map_err(refused)?;
            if pattern.names_the_user() && [&pull, &push, &delete].into_iter().flatten().all(|who| *who == Who::Anyone)
            {
                return Err(refused("{user} is nobody where only @anyone is meant: say @users"));
            }
            repositories.push(pattern);
        }
        let place = rule.repositories.first().map_or(0, |first| first.span().start);
        if repositories.is_empty() {
            return Err(at(place, "a rule is for no repositories: \"**\" is all".to_owned()));
        }
        if pull.is_empty() && push.is_empty() && delete.is_empty() {
            return Err(at(place, "the rule allows nobody anything: give it pull, push or delete".to_owned()));
        }
        rules.push(Rule { repositories, pull, push, delete });
    }
    if rules.is_empty() { Err(RightsError::Empty { path: shown.to_owned() }) } else { Ok(Policy { rules, users }) }
}

fn check_user(name: &str) -> Result<(), String> {
    // As a file of passwords can have it.
    let is_name = !name.is_empty() && !name.contains(':') && !name.starts_with('@') && name.trim() == name;
    if is_name { Ok(()) } else { Err(format!("{name:?} is nobody's name: write a user, {USERS} or {ANYONE}")) }
}

#[cfg(test)]
impl Policy {
    pub(crate) fn of(text: &str) -> Self {
        parse(text, "rights.toml").unwrap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: &str = r#"
        [groups]
        developers = ["ann", "bob"]

        [[rule]]
        repositories = ["public/**", "base"]
        pull = ["@anyone"]
        push = ["@developers"]

        [[rule]]
        repositories = ["{user}/**"]
        push = ["@users"]
        delete = ["@users"]

        [[rule]]
        repositories = ["**"]
        pull = ["robot"]
        delete = ["root"]
    "#;

    #[test]
    fn what_any_rule_allows_is_allowed_and_nothing_else() {
        let policy = Policy::of(RULES);
        for (user, repository, words) in [
            (None, "public/web", "pull"),
            (None, "base", "pull"),
            (None, "secret", ""),
            (Some("ann"), "public/web", "pull push"),
            (Some("eve"), "public/web", "pull"),
            (Some("ann"), "ann/web", "pull push delete"),
            (Some("ann"), "bob/web", ""),
            (None, "ann/web", ""),
            (Some("robot"), "bob/web", "pull"),
            (Some("root"), "public/web", "pull delete"),
            (Some("public"), "public/web", "pull push delete"),
        ] {
            let rights = policy.rights(user, &repository.parse().unwrap());
            let said = rights.iter().map(Right::word).collect::<Vec<_>>().join(" ");
            assert_eq!(said, words, "{user:?} {repository}");
        }
        assert_eq!(policy.users().collect::<Vec<_>>(), ["ann", "bob", "robot", "root"]);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (text, words) in [
            ("", "has no [[rule]]"),
            ("[[rule]\n", "line 1"),
            ("\n[[rule]]\nrepositories = [\"a\"]\nread = [\"ann\"]", "line 4: unknown field `read`"),
            ("[[rule]]\npull = [\"ann\"]", "missing field `repositories`"),
            (
                "[[rule]]\nrepositories = [\"a\",\n\"B\"]\npull = [\"ann\"]",
                "line 3: \"B\": no repository can be called so",
            ),
            ("[[rule]]\nrepositories = [\"a\"]\npull = [\"@devs\"]", "line 3: @devs is no group"),
            ("[[rule]]\nrepositories = [\"a\"]\npull = [\"a:b\"]", "line 3: \"a:b\" is nobody's name"),
            ("[[rule]]\nrepositories = [\"a\"]", "line 2: the rule allows nobody anything"),
            ("[[rule]]\nrepositories = []\npull = [\"ann\"]", "for no repositories"),
            ("[[rule]]\nrepositories = [\"{user}/a\"]\npull = [\"@anyone\"]", "say @users"),
            ("[groups]\nusers = [\"ann\"]", "line 2: \"users\": a group of this name there is already"),
            ("[groups]\nx = [\"@y\"]", "line 2: \"@y\" is nobody's name"),
            ("[[rules]]\nrepositories = [\"a\"]", "unknown field `rules`"),
        ] {
            let error = parse(text, "f").unwrap_err().to_string();
            assert!(error.contains(words) && error.starts_with('f'), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_wrong_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), RULES).unwrap();
        let rights = Rights::read(file.path()).unwrap();
        let before = rights.policy();
        std::fs::write(file.path(), "nonsense").unwrap();
        rights.reload().unwrap_err();
        assert_eq!(rights.policy(), before);
        std::fs::write(file.path(), "[[rule]]\nrepositories = [\"a\"]\npull = [\"@anyone\"]").unwrap();
        rights.reload().unwrap();
        assert_ne!(rights.policy(), before);
    }

    proptest! {
        /// Who logs in loses nothing that everyone may do, unless it is another's.
        #[test]
        fn who_logs_in_may_do_what_everyone_may(name in "[a-z]{1,3}(/[a-z]{1,3}){0,2}", user in "[a-z]{1,5}") {
            let (policy, name) = (Policy::of(RULES), name.parse().unwrap());
            let (nobody, somebody) = (policy.rights(None, &name), policy.rights(Some(&user), &name));
            prop_assert_eq!(nobody.union(somebody), somebody);
        }

        #[test]
        fn no_file_panics(text in "\\PC{0,200}") {
            let _ = parse(&text, "f");
        }
    }
}
