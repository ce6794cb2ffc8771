//! A file of upstreams (TOML): which repositories here are which there, and how they are asked for.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::name::RepositoryName;

/// How long a tag counts as fresh, if that is not said.
const FRESH: &str = "1m";

/// What a file says of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamPlan {
    here: Here,
    /// What stands before their names there, or all of the name.
    path: String,
    /// Host, and port if one is said.
    pub host: String,
    /// It is reached without TLS.
    pub is_plain: bool,
    pub(super) fresh: Duration,
    /// Who asks.
    pub user: Option<String>,
    /// Where his password is.
    pub password: Option<Secrets>,
    /// A directory with certificates of registries.
    pub certificates: Option<PathBuf>,
    /// Where it stands in the file, for what else may be wrong with it.
    pub line: usize,
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secrets {
    /// The first line of this file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Here {
    /// All that begins so, with the slash; all, if it is empty.
    Below(String),
    /// This one.
    Exactly(RepositoryName),
}

/// What is wrong with such a file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum UpstreamsError {
    #[error("cannot read the upstreams in {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}, line {line}: {why}")]
    Line { path: String, line: usize, why: String },
    #[error("{path} has no [[upstream]] in it")]
    Empty { path: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    upstream: Vec<UpstreamText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct UpstreamText {
    repositories: Spanned<String>,
    url: Spanned<String>,
    fresh: Option<Spanned<String>>,
    user: Option<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
    password_env: Option<Spanned<String>>,
    plain_http: Option<bool>,
    certificates: Option<PathBuf>,
}

impl UpstreamPlan {
    /// What a repository of here is called there, if it is this upstream's.
    pub(crate) fn there(&self, repository: &RepositoryName) -> Option<String> {
        match &self.here {
            Here::Exactly(name) => (name == repository).then(|| self.path.clone()),
            Here::Below(prefix) => {
                let rest = repository.as_str().strip_prefix(prefix.as_str())?;
                Some(if self.path.is_empty() { rest.to_owned() } else { format!("{}/{rest}", self.path) })
            }
        }
    }

    /// What a repository of a registry is called here, if it is this upstream's: [`Self::there`] the other way.
    pub(crate) fn here(&self, registry: &str, repository: &RepositoryName) -> Option<RepositoryName> {
        if !is_same_registry(&self.host, &registry.to_ascii_lowercase()) {
            return None;
        }
        match &self.here {
            Here::Exactly(name) => (self.path == repository.as_str()).then(|| name.clone()),
            Here::Below(prefix) => {
                let rest = match self.path.as_str() {
                    "" => repository.as_str(),
                    path => repository.as_str().strip_prefix(path)?.strip_prefix('/')?,
                };
                // Together they may be longer than a name can be.
                format!("{prefix}{rest}").parse().ok()
            }
        }
    }
}

/// Whether two names mean one registry: Docker Hub has several.
fn is_same_registry(one: &str, other: &str) -> bool {
    let is_hub = |name: &str| ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&name);
    one == other || is_hub(one) && is_hub(other)
}

/// All of a file's.
///
/// # Errors
/// It cannot be read, or something in it is not understood.
pub fn read_upstreams(path: &Path) -> Result<Vec<UpstreamPlan>, UpstreamsError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| UpstreamsError::Read { path: shown.clone(), source })?;
    parse(&text, &shown, path.parent().unwrap_or(Path::new("")))
}

/// `directory`: from which files are named.
fn parse(text: &str, path: &str, directory: &Path) -> Result<Vec<UpstreamPlan>, UpstreamsError> {
    let line = |place: usize| text.get(..place).unwrap_or(text).matches('\n').count() + 1;
    let at = |place: usize, why: String| UpstreamsError::Line { path: path.to_owned(), line: line(place), why };
    let file: FileText = toml::from_str(text)
        .map_err(|error| at(error.span().map_or(0, |span| span.start), error.message().trim().replace('\n', " ")))?;
    let (mut all, mut known) = (Vec::new(), HashSet::new());
    for upstream in file.upstream {
        let (name, url) = (upstream.repositories.get_ref(), upstream.url.get_ref());
        let name_place = upstream.repositories.span().start;
        let here = here(name).map_err(|why| at(name_place, format!("{name:?}: {why}")))?;
        if !known.insert(name.clone()) {
            return Err(at(name_place, format!("two upstreams have {name:?}")));
        }
        let url_place = upstream.url.span().start;
        let (is_plain, host, there) = address(url).map_err(|why| at(url_place, why))?;
        if matches!(here, Here::Exactly(_)) && there.is_empty() {
            return Err(at(url_place, format!("say what {name} is called there: {url}/NAME")));
        }
        if is_plain && !is_loopback(&host) && upstream.plain_http != Some(true) {
            let why = format!(
                "everyone on the way to {host} could read and change what comes: write https://, or say plain-http = true"
            );
            return Err(at(url_place, why));
        }
        let fresh = upstream.fresh.as_ref().map_or(FRESH, |text| text.get_ref());
        let seconds = crate::retention::seconds(fresh).and_then(|seconds| u64::try_from(seconds).ok());
        let seconds = seconds.ok_or_else(|| {
            let place = upstream.fresh.as_ref().map_or(0, |text| text.span().start);
            at(place, format!("{fresh:?} is no time: write a number with s, m, h or d behind it"))
        })?;
        let password = match (&upstream.password_file, &upstream.password_env) {
            (Some(_), Some(other)) => {
                return Err(at(other.span().start, "a password is in a file or in a variable".to_owned()));
            }
            (Some(file), None) => Some(Secrets::File(directory.join(file.get_ref()))),
            (None, Some(name)) => Some(Secrets::Variable(name.get_ref().clone())),
            (None, None) => None,
        };
        if upstream.user.is_some() != password.is_some() {
            let why = "user goes with password-file or password-env";
            return Err(at(url_place, why.to_owned()));
        }
        all.push(UpstreamPlan {
            here,
            path: there,
            host,
            is_plain,
            fresh: Duration::from_secs(seconds),
            user: upstream.user.map(Spanned::into_inner),
            password,
            certificates: upstream.certificates.map(|path| directory.join(path)),
            line: line(url_place),
        });
    }
    if all.is_empty() { Err(UpstreamsError::Empty { path: path.to_owned() }) } else { Ok(all) }
}

fn here(text: &str) -> Result<Here, &'static str> {
    if text == "**" {
        return Ok(Here::Below(String::new()));
    }
    let refused = "write the name of a repository, or NAME/** for all below it";
    match text.strip_suffix("/**") {
        Some(prefix) => {
            prefix.parse::<RepositoryName>().map_err(|()| refused)?;
            Ok(Here::Below(format!("{prefix}/")))
        }
        None => Ok(Here::Exactly(text.parse().map_err(|()| refused)?)),
    }
}

/// Whether it is without TLS, its host, and the path of names there.
fn address(url: &str) -> Result<(bool, String, String), String> {
    let (is_plain, rest) = match url.split_once("://") {
        Some(("https", rest)) => (false, rest),
        Some(("http", rest)) => (true, rest),
        _ => return Err("it is no URL: write https://HOST".to_owned()),
    };
    if rest.contains('@') {
        // What is before it may be a password: it is not shown.
        return Err("the URL has a name or password in it: say user and password-file".to_owned());
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_end_matches('/');
    if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)) {
        return Err(format!("{host:?} is no host"));
    }
    if !path.is_empty() && path.parse::<RepositoryName>().is_err() {
        return Err(format!(
            "no repository's name begins with {path:?}: behind the host stand names of repositories, without v2"
        ));
    }
    Ok((is_plain, host.to_ascii_lowercase(), path.to_owned()))
}

/// As Docker has it: names are not looked up.
fn is_loopback(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    let address = bare.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    bare == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<UpstreamPlan>, String> {
        parse(text, "up.toml", Path::new("/etc/registry")).map_err(|error| error.to_string())
    }

    #[test]
    fn names_here_are_names_there() {
        let there = |repositories: &str, url: &str, name: &str| {
            let plan =
                read(&format!("[[upstream]]\nrepositories = {repositories:?}\nurl = {url:?}")).unwrap().remove(0);
            plan.there(&name.parse().unwrap()).map(|there| format!("{} {there}", plan.host))
        };
        for (repositories, url, name, expected) in [
            (
                "hub/**",
                "https://registry-1.docker.io",
                "hub/library/debian",
                Some("registry-1.docker.io library/debian"),
            ),
            ("hub/**", "https://registry-1.docker.io/", "hub", None),
            ("hub/**", "https://registry-1.docker.io", "hubs/a", None),
            ("a/b/**", "https://R.example:5000/team", "a/b/c/d", Some("r.example:5000 team/c/d")),
            ("base", "https://r.example/library/debian", "base", Some("r.example library/debian")),
            ("base", "https://r.example/library/debian", "base/a", None),
            ("**", "http://127.0.0.1:5001", "any/thing", Some("127.0.0.1:5001 any/thing")),
        ] {
            assert_eq!(there(repositories, url, name).as_deref(), expected, "{repositories} {url} {name}");
        }
    }

    #[test]
    fn names_there_are_names_here() {
        let here = |repositories: &str, url: &str, registry: &str, name: &str| {
            let plan =
                read(&format!("[[upstream]]\nrepositories = {repositories:?}\nurl = {url:?}")).unwrap().remove(0);
            let here = plan.here(registry, &name.parse().unwrap())?;
            assert_eq!(plan.there(&here).as_deref(), Some(name));
            Some(here.to_string())
        };
        let hub = "https://registry-1.docker.io";
        let long = "a".repeat(254);
        for (repositories, url, registry, name, expected) in [
            ("hub/**", hub, "docker.io", "library/debian", Some("hub/library/debian")),
            ("hub/**", hub, "Index.Docker.io", "library/debian", Some("hub/library/debian")),
            ("hub/**", hub, "quay.io", "library/debian", None),
            ("hub/**", hub, "", "library/debian", None),
            ("hub/**", hub, "docker.io", &long, None),
            ("a/b/**", "https://R.example:5000/team", "r.example:5000", "team/c/d", Some("a/b/c/d")),
            ("a/b/**", "https://r.example:5000/team", "r.example", "team/c/d", None),
            ("a/b/**", "https://r.example:5000/team", "r.example:5000", "teams/c", None),
            ("a/b/**", "https://r.example:5000/team", "r.example:5000", "team", None),
            ("base", "https://r.example/library/debian", "r.example", "library/debian", Some("base")),
            ("base", "https://r.example/library/debian", "r.example", "library/other", None),
            ("**", "http://127.0.0.1:5001", "127.0.0.1:5001", "any/thing", Some("any/thing")),
        ] {
            assert_eq!(here(repositories, url, registry, name).as_deref(), expected, "{repositories} {url} {name}");
        }
    }

    #[test]
    fn what_is_said_is_read() {
        let text = "[[upstream]]\nrepositories = \"a/**\"\nurl = \"http://r.example\"\nplain-http = true\nfresh = \"2h\"\n\
                    user = \"ann\"\npassword-file = \"secret\"\ncertificates = \"/certs\"\n";
        let plan = read(text).unwrap().remove(0);
        assert!(plan.is_plain && plan.fresh == Duration::from_secs(7200) && plan.user.as_deref() == Some("ann"));
        assert_eq!(plan.password, Some(Secrets::File("/etc/registry/secret".into())));
        assert_eq!((plan.certificates, plan.line), (Some("/certs".into()), 3));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let with = |rest: &str| format!("[[upstream]]\nrepositories = \"a/**\"\nurl = \"https://r.example\"\n{rest}\n");
        for (text, words) in [
            (String::new(), "up.toml has no [[upstream]] in it"),
            (with("ttl = 3"), "line 4: unknown field"),
            (with("fresh = \"3\""), "line 4: \"3\" is no time"),
            (with("user = \"ann\""), "line 3: user goes with"),
            (with("user = \"a\"\npassword-file = \"f\"\npassword-env = \"E\""), "line 6: a password is in a file or"),
            (with("[[upstream]]\nrepositories = \"a/**\"\nurl = \"https://b\""), "line 5: two upstreams have"),
            (with("").replace("a/**", "a/*"), "line 2: \"a/*\": write the name"),
            (with("").replace("a/**", "A"), "line 2: \"A\": write the name"),
            (with("").replace("a/**", "a"), "line 3: say what a is called there"),
            (with("").replace("https", "http"), "line 3: everyone on the way to r.example"),
            (with("").replace("https", "ftp"), "line 3: it is no URL"),
            (with("").replace("r.example", "ann:secret@r"), "line 3: the URL has a name or password in it"),
            (with("").replace("r.example", "r.example/V2?x"), "line 3: no repository's name begins with"),
        ] {
            let refused = read(&text).unwrap_err();
            assert!(refused.contains(words) && !refused.contains("secret"), "{words}: {refused}");
        }
    }
}
