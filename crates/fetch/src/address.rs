//! Addresses of files: `http` and `https` URLs (RFC 3986), as far as one can fetch them.

use std::fmt::{self, Display, Write};
use std::net::Ipv6Addr;

use http::Uri;
use http::uri::{Authority, Scheme};

/// Where a file is. Shown without the password that it may have in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub(crate) is_secure: bool,
    /// A name in ASCII, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `name:password`, as it is to be sent.
    pub(crate) credentials: Option<String>,
    /// Begins with a slash.
    pub(crate) path_and_query: String,
}

/// What is wrong with an address; it is the caller's to say with which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum AddressError {
    #[error("it is no URL")]
    Syntax,
    #[error("it is neither http nor https")]
    Scheme,
    #[error("it names no host")]
    NoHost,
    #[error("its port is none")]
    Port,
}

impl Address {
    /// Reads a URL with its scheme. What may not stand in one as it is (blanks, letters that are not ASCII) is encoded.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.split('#').next().unwrap_or_default();
        let uri: Uri = encoded(text).parse().map_err(|_| AddressError::Syntax)?;
        let is_secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(AddressError::Scheme),
        };
        let authority = uri.authority().ok_or(AddressError::NoHost)?;
        let host = match authority.host().strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            None if authority.host().contains(['[', ']', '%']) => return Err(AddressError::Syntax),
            None => authority.host(),
            Some(within) => within.filter(|host| host.parse::<Ipv6Addr>().is_ok()).ok_or(AddressError::Syntax)?,
        };
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        let path_and_query = uri.path_and_query().map_or("/", |it| it.as_str());
        let slash = if path_and_query.starts_with('/') { "" } else { "/" };
        Ok(Self {
            is_secure,
            host: host.to_ascii_lowercase(),
            port: port(authority)?.unwrap_or(if is_secure { 443 } else { 80 }),
            credentials: credentials(authority),
            path_and_query: format!("{slash}{path_and_query}"),
        })
    }

    /// What a reference means that is found here (RFC 3986, section 5.2): where a redirection leads. The password is for no
    /// other host.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn follow(&self, reference: &str) -> Result<Self, AddressError> {
        let reference = reference.split('#').next().unwrap_or_default();
        let begins_with_scheme = reference.split_once(':').is_some_and(|(scheme, _)| {
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        });
        let (path, query) = self.path_and_query.split_once('?').unwrap_or((&self.path_and_query, ""));
        let here = |path_and_query: String| {
            Self::parse(&format!("{}://{}{}", self.scheme(), self.host_and_port(), without_dots(&path_and_query)))
        };
        let mut next = if begins_with_scheme {
            Self::parse(reference)?
        } else if let Some(authority) = reference.strip_prefix("//") {
            Self::parse(&format!("{}://{authority}", self.scheme()))?
        } else if reference.is_empty() {
            here(format!("{path}{}{query}", if query.is_empty() { "" } else { "?" }))?
        } else if reference.starts_with('/') {
            here(reference.to_owned())?
        } else if reference.starts_with('?') {
            here(format!("{path}{reference}"))?
        } else {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            here(format!("{directory}/{reference}"))?
        };
        if next.credentials.is_none() && (&next.host, next.port) == (&self.host, self.port) {
            next.credentials.clone_from(&self.credentials);
        }
        Ok(next)
    }

    /// The same with more in its query.
    pub fn with_query(&self, query: &str) -> Self {
        let mark = if self.path_and_query.contains('?') { '&' } else { '?' };
        Self { path_and_query: format!("{}{mark}{query}", self.path_and_query), ..self.clone() }
    }

    /// With TLS.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Whether one server answers for both, over connections that are as safe.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (self.is_secure, &self.host, self.port) == (other.is_secure, &other.host, other.port)
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_secure { "https" } else { "http" }
    }

    /// As the Host field has it (RFC 9110, section 7.2): the usual port is not named.
    pub fn host_and_port(&self) -> String {
        let usual = if self.is_secure { 443 } else { 80 };
        let host = self.bracketed();
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// With its port in any case.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// What a file from here is called: the last name of the path, decoded. `None`: the path has none, or one that no file
    /// can have.
    pub fn file_name(&self) -> Option<String> {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        let decoded = String::from_utf8(decoded(path)).ok()?;
        let name = decoded.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        (!matches!(name, "" | "." | "..") && !name.contains('\0')).then(|| name.to_owned())
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = if self.credentials.is_some() { "xxxxx@" } else { "" };
        write!(f, "{}://{hidden}{}{}", self.scheme(), self.host_and_port(), self.path_and_query)
    }
}

fn port(authority: &Authority) -> Result<Option<u16>, AddressError> {
    let place = authority.as_str().rsplit('@').next().unwrap_or_default();
    match place.rsplit_once(':') {
        // Within the brackets of an address.
        Some((_, rest)) if rest.contains(']') => Ok(None),
        Some((_, "")) | None => Ok(None),
        Some((_, digits)) => digits.parse().ok().filter(|port| *port > 0).map(Some).ok_or(AddressError::Port),
    }
}

fn credentials(authority: &Authority) -> Option<String> {
    let (said, _) = authority.as_str().rsplit_once('@')?;
    let said = String::from_utf8_lossy(&decoded(said)).into_owned();
    Some(if said.contains(':') { said } else { format!("{said}:") })
}

/// What no URL has in it as it is becomes `%XX`.
fn encoded(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"<>\\^`{|}".contains(&byte) => all.push(char::from(byte)),
            _ => _ = write!(all, "%{byte:02X}"),
        }
    }
    all
}

/// `%XX` become bytes; what is none stays.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut all = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match digits.filter(|_| *byte == b'%').and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(value) => {
                all.push(value);
                at += 3;
            }
            None => {
                all.push(*byte);
                at += 1;
            }
        }
    }
    all
}

/// RFC 3986, section 5.2.4.
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/').skip(1) {
        match name {
            "." => {}
            ".." => _ = names.pop(),
            name => names.push(name),
        }
    }
    // What ends in a directory keeps its slash.
    if ["/.", "/.."].iter().any(|end| path.ends_with(end)) {
        names.push("");
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("/{}{query}", names.join("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, shown) in [
            ("http://host", "http://host/"),
            ("HTTP://Host:80/a?b#c", "http://host/a?b"),
            ("https://host:443/a", "https://host/a"),
            ("https://host:80/", "https://host:80/"),
            ("http://[::1]:8080/a", "http://[::1]:8080/a"),
            ("http://[::1]/", "http://[::1]/"),
            ("http://me:secret@host/a", "http://xxxxx@host/a"),
            ("http://host/a b/é", "http://host/a%20b/%C3%A9"),
            ("http://host?q=1", "http://host/?q=1"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for (text, error) in [
            ("ftp://host/", AddressError::Scheme),
            ("http:///a", AddressError::Syntax),
            ("http://host:0/", AddressError::Port),
            ("http://host:70000/", AddressError::Port),
            ("/a", AddressError::Scheme),
            ("", AddressError::Syntax),
            ("http://[%]", AddressError::Syntax),
            ("http://[h]/", AddressError::Syntax),
            ("http://h%2f/", AddressError::Syntax),
        ] {
            assert_eq!(Address::parse(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(Address::parse("http://me@h/").unwrap().credentials.unwrap(), "me:");
        assert_eq!(Address::parse("http://a:p%40%3a@h/").unwrap().credentials.unwrap(), "a:p@:");
    }

    #[test]
    fn redirections_are_followed_from_where_they_are() {
        let here = Address::parse("https://me:pw@host:444/a/b/c?d").unwrap();
        for (reference, want) in [
            ("http://other/x", "http://other/x"),
            ("//other/x", "https://other/x"),
            ("/x/../y?z", "https://xxxxx@host:444/y?z"),
            ("x", "https://xxxxx@host:444/a/b/x"),
            ("../x", "https://xxxxx@host:444/a/x"),
            ("../../../../x", "https://xxxxx@host:444/x"),
            (".", "https://xxxxx@host:444/a/b/"),
            ("..", "https://xxxxx@host:444/a/"),
            ("?q", "https://xxxxx@host:444/a/b/c?q"),
            ("", "https://xxxxx@host:444/a/b/c?d"),
            ("x:y/z", ""),
            ("./x:y", "https://xxxxx@host:444/a/b/x:y"),
        ] {
            let found = here.follow(reference).map_or_else(|_| String::new(), |address| address.to_string());
            assert_eq!(found, want, "{reference}");
        }
    }

    #[test]
    fn a_file_is_called_by_the_end_of_its_path() {
        for (text, name) in [
            ("http://h/a/b.tar?c=/d", Some("b.tar")),
            ("http://h/a/", Some("a")),
            ("http://h/", None),
            ("http://h", None),
            ("http://h/a%20b", Some("a b")),
            ("http://h/a%2fb", Some("b")),
            ("http://h/%2e%2e", None),
            ("http://h/a%00", None),
            ("http://h/%ff", None),
            ("http://h/100%", Some("100%")),
        ] {
            assert_eq!(Address::parse(text).unwrap().file_name().as_deref(), name, "{text}");
        }
    }
}
