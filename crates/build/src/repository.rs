//! Repositories of git, as ADD and a build's context name them: which, and what of it
//! (docs.docker.com/reference/dockerfile, "ADD"; docs.docker.com/build/concepts/context, "Git repositories", with "URL
//! fragments" and "URL queries"). What a server says of its references is read in [`listing`], what a repository says of
//! others that are part of it in [`submodules`]. Nothing here asks anybody.

pub mod listing;
pub mod submodules;

use std::fmt::{self, Display};
use std::net::Ipv6Addr;

/// A name that Docker takes for a repository on that server, with https.
const WITHOUT_SCHEME: &str = "github.com/";
/// No URL and no reference that anybody uses is longer.
const LONGEST_BYTES: usize = 4096;

/// A repository, and what of it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it is.
    pub location: Location,
    /// A branch, a tag, a reference in full, or a commit; `None`: what the server calls HEAD.
    pub reference: Option<String>,
    /// The part that is taken: clean, without a slash in front; empty for all of it.
    pub directory: String,
    /// The commit that it has to be, or the beginning of its number: hexadecimal digits in small letters.
    pub commit: Option<String>,
    /// `.git` comes too, or not, if that is said here.
    pub keep_git_directory: Option<bool>,
    /// Its submodules come too.
    pub submodules: bool,
}

/// Where a repository is. Shown without the password that it may have in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// How it is reached.
    pub scheme: Scheme,
    /// `name:password`, decoded.
    pub credentials: Option<String>,
    /// A name, or an address without brackets.
    pub host: String,
    /// If it is not the usual one.
    pub port: Option<u16>,
    /// Begins with a slash; as it was written.
    pub path: String,
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Scheme {
    Https,
    Http,
    Git,
}

/// What is wrong with the name of a repository; it is the caller's to say with which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum RepositoryError {
    #[error("repositories by ssh are not built yet")]
    Ssh,
    #[error("it is reached by none of https, http and git")]
    Scheme,
    #[error("it names no host")]
    Host,
    #[error("its port is none")]
    Port,
    #[error("it has a blank, a backslash or a control character in it")]
    Character,
    #[error("it has no path")]
    Path,
    #[error("it is longer than {LONGEST_BYTES} bytes")]
    TooLong,
    #[error("invalid reference {0:?}")]
    Reference(String),
    #[error("invalid commit {0:?}")]
    Commit(String),
    #[error("unexpected query {0:?}")]
    Query(String),
    #[error("query {0:?} has no value")]
    NoValue(String),
    #[error("query {0:?} has multiple values")]
    Twice(String),
    #[error("invalid {0} value: {1:?}")]
    NotBoolean(String, String),
    #[error("{0} conflicts: {1:?} vs {2:?}")]
    Conflict(&'static str, String, String),
    #[error("branch conflicts with tag")]
    BranchAndTag,
}

impl RepositoryError {
    /// What to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Ssh => Some("name it by https://; a private one with --secret id=GIT_AUTH_TOKEN,src=FILE"),
            Self::Commit(_) => Some("a commit is named by the 40 digits of its number, or by the first of them"),
            _ => None,
        }
    }
}

impl Repository {
    /// Reads what names a repository: `URL[?QUERY][#REF[:DIRECTORY]]`.
    ///
    /// # Errors
    /// See [`RepositoryError`].
    pub fn parse(text: &str) -> Result<Self, RepositoryError> {
        if text.len() > LONGEST_BYTES {
            return Err(RepositoryError::TooLong);
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (url, query) = rest.split_once('?').unwrap_or((rest, ""));
        let location = match url.strip_prefix(WITHOUT_SCHEME) {
            Some(_) => Location::parse(&format!("https://{url}"))?,
            None => Location::parse(url)?,
        };
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let (reference, directory) = (said(decoded(reference)), said(decoded(directory)));
        let mut wanted = Wanted { reference, directory, ..Wanted::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            wanted.take(pair)?;
        }
        wanted.finish(location)
    }
}

/// What stands behind a URL, while it is read.
#[derive(Default)]
struct Wanted {
    reference: Option<String>,
    directory: Option<String>,
    tag: Option<String>,
    branch: Option<String>,
    commit: Option<String>,
    keep_git_directory: Option<bool>,
    submodules: Option<bool>,
    seen: Vec<String>,
}

impl Wanted {
    /// One of a query's pairs.
    fn take(&mut self, pair: &str) -> Result<(), RepositoryError> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let of_form = |text: &str| decoded(&text.replace('+', " "));
        let (name, value) = (of_form(name), of_form(value));
        if self.seen.contains(&name) {
            return Err(RepositoryError::Twice(name));
        }
        self.seen.push(name.clone());
        if value.is_empty() && !matches!(name.as_str(), "keep-git-dir" | "submodules") {
            return Err(RepositoryError::NoValue(name));
        }
        match name.as_str() {
            "ref" => agree("ref", &mut self.reference, value)?,
            "subdir" => agree("subdir", &mut self.directory, value)?,
            "tag" => self.tag = Some(in_full("refs/tags/", value)),
            "branch" => self.branch = Some(in_full("refs/heads/", value)),
            "checksum" | "commit" => agree("commit", &mut self.commit, value)?,
            "keep-git-dir" => self.keep_git_directory = Some(boolean(&name, &value)?),
            "submodules" => self.submodules = Some(boolean(&name, &value)?),
            _ => return Err(RepositoryError::Query(name)),
        }
        Ok(())
    }

    fn finish(mut self, location: Location) -> Result<Repository, RepositoryError> {
        if self.tag.is_some() && self.branch.is_some() {
            return Err(RepositoryError::BranchAndTag);
        }
        if let Some(one) = self.tag.take().or(self.branch.take()) {
            agree("ref", &mut self.reference, one)?;
        }
        let commit = match self.commit {
            Some(text) if !is_beginning_of_commit(&text) => return Err(RepositoryError::Commit(text)),
            commit => commit.map(|text| text.to_ascii_lowercase()),
        };
        let reference = match self.reference.or_else(|| commit.clone()) {
            Some(text) if !is_reference(&text) => return Err(RepositoryError::Reference(text)),
            reference => reference,
        };
        let directory = crate::copy::clean(&self.directory.unwrap_or_default());
        if directory.contains('\0') {
            return Err(RepositoryError::Character);
        }
        let submodules = self.submodules.unwrap_or(true);
        Ok(Repository {
            location,
            reference,
            directory,
            commit,
            keep_git_directory: self.keep_git_directory,
            submodules,
        })
    }
}

impl Location {
    /// Reads a URL without query and fragment. `user@host:path` is one too (git(1), "GIT URLS").
    ///
    /// # Errors
    /// See [`RepositoryError`].
    pub fn parse(url: &str) -> Result<Self, RepositoryError> {
        if url.len() > LONGEST_BYTES {
            return Err(RepositoryError::TooLong);
        }
        if url.chars().any(|letter| letter.is_control() || letter.is_whitespace() || letter == '\\') {
            return Err(RepositoryError::Character);
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            let is_scp = url.split('/').next().is_some_and(|first| first.contains(':')) && !url.starts_with('.');
            return Err(if is_scp { RepositoryError::Ssh } else { RepositoryError::Scheme });
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "git" => Scheme::Git,
            "ssh" | "git+ssh" | "ssh+git" => return Err(RepositoryError::Ssh),
            _ => return Err(RepositoryError::Scheme),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((said, place)) => (Some(decoded(said)), place),
            None => (None, authority),
        };
        let credentials = credentials.filter(|said| !said.is_empty());
        if credentials.as_ref().is_some_and(|said| said.contains(char::is_control)) {
            return Err(RepositoryError::Character);
        }
        let (host, port) = place_of(place)?;
        // Git decodes some paths itself.
        if decoded(path).contains(char::is_control) {
            return Err(RepositoryError::Character);
        }
        if path.trim_end_matches('/').is_empty() {
            return Err(RepositoryError::Path);
        }
        Ok(Self { scheme, credentials, host, port, path: path.to_owned() })
    }

    /// As git is told, without the password.
    pub fn url(&self) -> String {
        format!("{}{}", self.origin(), self.path)
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port}", self.scheme.word())
    }
}

impl Scheme {
    /// As it stands in a URL, and as git's configuration knows it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Git => "git",
        }
    }
}

impl Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url();
        match (&self.credentials, url.split_once("://")) {
            (Some(_), Some((scheme, rest))) => write!(f, "{scheme}://xxxxx@{rest}"),
            _ => f.write_str(&url),
        }
    }
}

/// `host`, `host:port`, `[address]:port`. A host that begins with a dash would be an option to some program.
fn place_of(place: &str) -> Result<(String, Option<u16>), RepositoryError> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(RepositoryError::Host)?;
            host.parse::<Ipv6Addr>().map_err(|_| RepositoryError::Host)?;
            (host, if port.is_empty() { "" } else { port.strip_prefix(':').ok_or(RepositoryError::Port)? })
        }
        None => {
            let (host, port) = place.split_once(':').unwrap_or((place, ""));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if host.is_empty() || host.starts_with(['-', '.']) || !host.bytes().all(is_name) {
                return Err(RepositoryError::Host);
            }
            (host, port)
        }
    };
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port > 0).ok_or(RepositoryError::Port)?)
        }
        _ => return Err(RepositoryError::Port),
    };
    Ok((host.to_ascii_lowercase(), port))
}

fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn in_full(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) { name } else { format!("{prefix}{name}") }
}

/// What is said twice has to be the same.
fn agree(what: &'static str, known: &mut Option<String>, value: String) -> Result<(), RepositoryError> {
    match known {
        Some(other) if *other != value => Err(RepositoryError::Conflict(what, other.clone(), value)),
        _ => {
            *known = Some(value);
            Ok(())
        }
    }
}

/// As Go's strconv.ParseBool has it; without a value it is so.
fn boolean(name: &str, value: &str) -> Result<bool, RepositoryError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(RepositoryError::NotBoolean(name.to_owned(), value.to_owned())),
    }
}

/// A name that a reference can have (git-check-ref-format(1)), of one level too.
pub(crate) fn is_reference(text: &str) -> bool {
    let is_forbidden = |letter: char| letter.is_control() || " ~^:?*[\\".contains(letter);
    let is_component = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    text.len() <= LONGEST_BYTES
        && text != "@"
        && !text.starts_with('-')
        && !text.ends_with('.')
        && !text.contains("..")
        && !text.contains("@{")
        && !text.contains(is_forbidden)
        && text.split('/').all(is_component)
}

/// A commit's whole number: SHA-1 or SHA-256 (gitformat-hash(5) has both).
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_hexadecimal(text)
}

/// A commit's number, or the beginning of one (gitrevisions(7)).
pub(crate) fn is_beginning_of_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && is_hexadecimal(text)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `%XX` become bytes (RFC 3986, section 2.1); what is none stays, and what is no UTF-8 is replaced.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut all = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                all.push(u8::try_from(high << 4 | low).unwrap_or_default());
                at += 3;
            }
            _ => {
                all.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[cfg(test)]
mod tests;
