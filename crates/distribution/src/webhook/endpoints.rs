//! A file of endpoints (TOML): where events go, with which fields of HTTP, and which events.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Spanned;

use super::event::Happened;
use crate::pattern::Pattern;

const ACTIONS: [&str; 4] = ["push", "pull", "mount", "delete"];
const MOST_MILLISECONDS: u64 = 60_000;

/// Who is told, and of what.
#[derive(Clone)]
pub struct Endpoint {
    /// By which the log calls it.
    pub name: String,
    /// Where.
    pub url: String,
    /// Sent with each event; secrets are among them.
    pub headers: HeaderMap,
    /// How long an answer is waited for.
    pub timeout: Duration,
    actions: Vec<String>,
    repositories: Vec<Pattern>,
    ignored: Vec<String>,
}

impl std::fmt::Debug for Endpoint {
    /// Says no field's value, and no password of the address.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Endpoint").field(&self.name).finish()
    }
}

impl Endpoint {
    pub(super) fn wants(&self, happened: &Happened) -> bool {
        let is_meant =
            |pattern: &Pattern| happened.repository.parse().is_ok_and(|repository| pattern.matches(&repository, None));
        self.actions.iter().any(|action| action == happened.action)
            && self.repositories.iter().any(is_meant)
            && !self.ignored.iter().any(|kind| kind == happened.media_type())
    }
}

/// What is wrong with such a file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum WebhooksError {
    #[error("cannot read the webhooks in {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}, line {line}: {why}")]
    Line { path: String, line: usize, why: String },
    #[error("{path} has no [[endpoint]] in it")]
    Empty { path: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    endpoint: Vec<EndpointText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct EndpointText {
    name: Option<String>,
    url: Spanned<String>,
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<String>>,
    timeout_ms: Option<Spanned<u64>>,
    actions: Option<Vec<Spanned<String>>>,
    repositories: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    ignore_media_types: Vec<String>,
}

/// All of a file's.
///
/// # Errors
/// It cannot be read, or something in it is not understood.
pub fn read_endpoints(path: &Path) -> Result<Vec<Endpoint>, WebhooksError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| WebhooksError::Read { path: shown.clone(), source })?;
    parse(&text, &shown)
}

fn parse(text: &str, path: &str) -> Result<Vec<Endpoint>, WebhooksError> {
    let at = |place: usize, why: String| {
        let line = text.get(..place).unwrap_or(text).matches('\n').count() + 1;
        WebhooksError::Line { path: path.to_owned(), line, why }
    };
    let file: FileText = toml::from_str(text)
        .map_err(|error| at(error.span().map_or(0, |span| span.start), error.message().trim().replace('\n', " ")))?;
    let mut all: Vec<Endpoint> = Vec::new();
    for (number, endpoint) in file.endpoint.into_iter().enumerate() {
        let (place, url) = (endpoint.url.span().start, endpoint.url.into_inner());
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(at(place, format!("{url:?} is no URL: write https://…")));
        }
        let name = endpoint.name.unwrap_or_else(|| format!("endpoint-{}", number + 1));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(at(place, format!("{name:?} is no name: letters, digits, '.', '_' and '-'")));
        }
        if all.iter().any(|known| known.name == name) {
            return Err(at(place, format!("two endpoints are called {name:?}")));
        }
        let mut headers = HeaderMap::new();
        for (field, value) in &endpoint.headers {
            let refused =
                |_| at(value.span().start, format!("{:?} is no field of HTTP with this value", field.get_ref()));
            let name: HeaderName = field.get_ref().parse().map_err(|_| refused(()))?;
            let mut value: HeaderValue = value.get_ref().parse().map_err(|_| refused(()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let milliseconds = endpoint.timeout_ms.as_ref().map_or(5000, |it| *it.get_ref());
        if !(1..=MOST_MILLISECONDS).contains(&milliseconds) {
            let place = endpoint.timeout_ms.as_ref().map_or(place, |it| it.span().start);
            return Err(at(place, format!("timeout-ms is from 1 to {MOST_MILLISECONDS}")));
        }
        let mut actions = Vec::new();
        for action in endpoint.actions.iter().flatten() {
            if !ACTIONS.contains(&action.get_ref().as_str()) {
                let why = format!("{:?} is no action: {}", action.get_ref(), ACTIONS.join(", "));
                return Err(at(action.span().start, why));
            }
            actions.push(action.get_ref().clone());
        }
        if endpoint.actions.is_none() {
            actions = ACTIONS.map(str::to_owned).to_vec();
        }
        let mut repositories = Vec::new();
        for name in endpoint.repositories.iter().flatten() {
            let pattern = Pattern::parse(name.get_ref());
            repositories.push(pattern.map_err(|why| at(name.span().start, format!("{:?}: {why}", name.get_ref())))?);
        }
        if endpoint.repositories.is_none() {
            repositories.extend(Pattern::parse("**"));
        }
        let (timeout, ignored) = (Duration::from_millis(milliseconds), endpoint.ignore_media_types);
        all.push(Endpoint { name, url, headers, timeout, actions, repositories, ignored });
    }
    if all.is_empty() { Err(WebhooksError::Empty { path: path.to_owned() }) } else { Ok(all) }
}

#[cfg(test)]
impl Endpoint {
    pub(super) fn of(text: &str) -> Self {
        parse(&format!("[[endpoint]]\n{text}"), "f").unwrap().remove(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::Event;

    #[test]
    fn an_endpoint_is_told_what_it_wants() {
        let wants = |text: &str, action, repository| {
            Endpoint::of(&format!("url = \"https://a/\"\n{text}")).wants(&Event::of(action, repository).happened)
        };
        assert!(wants("", "pull", "a/b") && wants("", "delete", "a"));
        assert!(wants("actions = [\"push\"]", "push", "a") && !wants("actions = [\"push\"]", "pull", "a"));
        assert!(wants("repositories = [\"team/**\"]", "push", "team/a"));
        assert!(!wants("repositories = [\"team/**\"]", "push", "other/a"));
        assert!(!wants("ignore-media-types = [\"application/octet-stream\"]", "push", "a"));
        let secret = Endpoint::of("url = \"https://me:word@a/\"\nheaders = { Authorization = \"Bearer secret\" }");
        assert_eq!((secret.headers.len(), format!("{secret:?}").contains("secret")), (1, false));
        assert!(!format!("{secret:?}{:?}", secret.headers).contains("secret"));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (text, words) in [
            ("", "has no [[endpoint]]"),
            ("[[endpoint]]\nname = \"a\"", "missing field `url`"),
            ("[[endpoint]]\nurl = \"a\"", "line 2: \"a\" is no URL"),
            ("[[endpoint]]\nurl = \"http://a\"\nactions = [\"fly\"]", "line 3: \"fly\" is no action"),
            ("[[endpoint]]\nurl = \"http://a\"\nrepositories = [\"A\"]", "line 3: \"A\""),
            ("[[endpoint]]\nurl = \"http://a\"\ntimeout-ms = 0", "line 3: timeout-ms is from 1"),
            ("[[endpoint]]\nurl = \"http://a\"\nheaders = { X = \"a\\nb\" }", "line 3: \"X\" is no field"),
            ("[[endpoint]]\nurl = \"http://a\"\nname = \"a b\"", "is no name"),
            (
                "[[endpoint]]\nurl = \"http://a\"\nname = \"x\"\n[[endpoint]]\nurl = \"http://b\"\nname = \"x\"",
                "line 5: two",
            ),
            ("[[endpoint]]\nurl = \"http://a\"\nbackoff = 3", "unknown field `backoff`"),
        ] {
            let error = parse(text, "f").unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
