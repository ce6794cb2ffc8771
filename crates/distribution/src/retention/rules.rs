//! A file of rules (TOML): what repositories keep. The first rule that names a repository is the one that counts for it; one
//! that no rule names keeps all it has.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use toml::Spanned;

use super::shown;
use crate::name::RepositoryName;
use crate::pattern::Pattern;

/// One rule. Times are seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    repositories: Vec<Pattern>,
    pub(crate) keep_newest: Option<usize>,
    /// With `*` in them.
    pub(crate) keep_tags: Vec<String>,
    pub(crate) keep_younger: Option<i64>,
    pub(crate) keep_pulled: Option<i64>,
    pub(crate) untagged_after: Option<i64>,
}

impl Rule {
    /// Whether any tag can go by it.
    pub(super) fn is_about_tags(&self) -> bool {
        let has_time = self.keep_younger.is_some() || self.keep_pulled.is_some();
        self.keep_newest.is_some() || !self.keep_tags.is_empty() || has_time
    }

    /// Why a tag that was pushed so long ago is kept by none of it.
    pub(super) fn why(&self, age: String) -> String {
        let mut why = vec![format!("pushed {age} ago")];
        why.extend(self.keep_newest.map(|count| format!("not among the newest {count}")));
        why.extend((!self.keep_tags.is_empty()).then(|| format!("not called {}", self.keep_tags.join(", "))));
        why.extend(self.keep_pulled.map(|time| format!("not pulled within {}", shown(time))));
        why.join(", ")
    }
}

/// What is wrong with such a file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum RetentionError {
    #[error("cannot read the rules of retention in {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}, line {line}: {why}")]
    Line { path: String, line: usize, why: String },
}

/// The rules of a file, which may be read again. Clones share it.
#[derive(Debug, Clone)]
pub struct Retention {
    path: PathBuf,
    rules: Arc<RwLock<Arc<[Rule]>>>,
}

impl Retention {
    /// Of this file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is not understood.
    pub fn read(path: &Path) -> Result<Self, RetentionError> {
        Ok(Self { path: path.to_owned(), rules: Arc::new(RwLock::new(read(path)?)) })
    }

    /// Of a text; `path` is only what it is called by.
    ///
    /// # Errors
    /// Something in it is not understood.
    pub fn parse(text: &str, path: &Path) -> Result<Self, RetentionError> {
        let rules = parse(text, &path.display().to_string())?;
        Ok(Self { path: path.to_owned(), rules: Arc::new(RwLock::new(rules)) })
    }

    /// From now on what the file says now.
    ///
    /// # Errors
    /// As [`Self::read`]; then nothing has changed.
    pub fn reload(&self) -> Result<(), RetentionError> {
        let rules = read(&self.path)?;
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }

    /// The one that counts for this repository.
    pub(crate) fn rule_for(&self, repository: &RepositoryName) -> Option<Rule> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner).clone();
        let is_for = |rule: &&Rule| rule.repositories.iter().any(|pattern| pattern.matches(repository, None));
        rules.iter().find(is_for).cloned()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleText {
    repositories: Vec<Spanned<String>>,
    keep_newest: Option<Spanned<usize>>,
    #[serde(default)]
    keep_tags: Vec<Spanned<String>>,
    keep_younger: Option<Spanned<String>>,
    keep_pulled: Option<Spanned<String>>,
    untagged_after: Option<Spanned<String>>,
}

fn read(path: &Path) -> Result<Arc<[Rule]>, RetentionError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| RetentionError::Read { path: shown.clone(), source })?;
    parse(&text, &shown)
}

fn parse(text: &str, path: &str) -> Result<Arc<[Rule]>, RetentionError> {
    let at = |place: usize, why: String| {
        let line = text.get(..place).unwrap_or(text).matches('\n').count() + 1;
        RetentionError::Line { path: path.to_owned(), line, why }
    };
    let file: FileText = toml::from_str(text)
        .map_err(|error| at(error.span().map_or(0, |span| span.start), error.message().trim().replace('\n', " ")))?;
    let mut rules = Vec::new();
    for rule in file.rule {
        let mut repositories = Vec::new();
        for name in &rule.repositories {
            let refused = |why: &str| at(name.span().start, format!("{:?}: {why}", name.get_ref()));
            let pattern = Pattern::parse(name.get_ref()).map_err(refused)?;
            if pattern.names_the_user() {
                return Err(refused("{user} is nobody here"));
            }
            repositories.push(pattern);
        }
        if repositories.is_empty() {
            return Err(at(0, "a rule is for no repositories: \"**\" is all".to_owned()));
        }
        if let Some(newest) = rule.keep_newest.as_ref().filter(|newest| *newest.get_ref() == 0) {
            return Err(at(newest.span().start, "keep-newest = 0 keeps nothing: leave it out".to_owned()));
        }
        for tag in &rule.keep_tags {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'*');
            if tag.get_ref().is_empty() || !tag.get_ref().bytes().all(is_letter) {
                return Err(at(tag.span().start, format!("{:?}: no tag can be called so", tag.get_ref())));
            }
        }
        let seconds = |text: &Option<Spanned<String>>| match text {
            None => Ok(None),
            Some(text) => {
                let why = || format!("{:?} is no time: write a number with s, m, h or d behind it", text.get_ref());
                seconds(text.get_ref()).map(Some).ok_or_else(|| at(text.span().start, why()))
            }
        };
        rules.push(Rule {
            repositories,
            keep_newest: rule.keep_newest.map(Spanned::into_inner),
            keep_younger: seconds(&rule.keep_younger)?,
            keep_pulled: seconds(&rule.keep_pulled)?,
            untagged_after: seconds(&rule.untagged_after)?,
            keep_tags: rule.keep_tags.into_iter().map(Spanned::into_inner).collect(),
        });
    }
    Ok(rules.into())
}

/// `90s`, `10m`, `24h`, `7d`.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let one = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        Some(i64::from(number.parse::<u32>().ok()?) * one)
    } else {
        None
    }
}

#[cfg(test)]
impl Rule {
    pub(crate) fn of(text: &str) -> Self {
        let text = format!("[[rule]]\nrepositories = [\"**\"]\n{text}");
        parse(&text, "f").unwrap()[0].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_names_a_repository_counts() {
        let text =
            "[[rule]]\nrepositories = [\"team/prod\"]\n\n[[rule]]\nrepositories = [\"team/*\"]\nkeep-newest = 3\n";
        let retention = Retention::parse(text, Path::new("f")).unwrap();
        let rule = |name: &str| retention.rule_for(&name.parse().unwrap());
        assert!(!rule("team/prod").unwrap().is_about_tags());
        assert_eq!(rule("team/web").unwrap().keep_newest, Some(3));
        assert_eq!(rule("other"), None);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let rule = "[[rule]]\nrepositories = [\"a\"]\n";
        for (text, words) in [
            (format!("{rule}keep-newest = 0"), "line 3: keep-newest = 0 keeps nothing"),
            (format!("{rule}keep-newest = -1"), "line 3"),
            (format!("{rule}keep-younger = \"soon\""), "line 3: \"soon\" is no time"),
            (format!("{rule}untagged-after = \"7\""), "is no time"),
            (format!("{rule}untagged-after = \"1w\""), "is no time"),
            (format!("{rule}keep-pulled = \"é\""), "is no time"),
            (format!("{rule}keep-tags = [\"a/b\"]"), "no tag can be called so"),
            (format!("{rule}keep-oldest = 3"), "line 3: unknown field `keep-oldest`"),
            ("[[rule]]\nrepositories = [\"{user}/a\"]".to_owned(), "{user} is nobody here"),
            ("[[rule]]\nrepositories = []".to_owned(), "for no repositories"),
        ] {
            let error = parse(&text, "f").unwrap_err().to_string();
            assert!(error.contains(words) && error.starts_with("f, line"), "{text}: {error}");
        }
        assert!(parse("", "f").unwrap().is_empty());
        assert_eq!(
            (seconds("90s"), seconds("2h"), seconds("7d"), seconds("")),
            (Some(90), Some(7200), Some(604_800), None)
        );
    }
}
