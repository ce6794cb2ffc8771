//! What an ADD fetches: a URL, a repository, or what lies in the context (docs.docker.com/reference/dockerfile, "ADD";
//! docs.docker.com/build/concepts/context, "Git repositories"). It is seen once variables are known.

/// A source of ADD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// A path in the context.
    None,
    /// A file by HTTP.
    Http,
    /// A repository, or a part of one: `URL[#REF[:DIRECTORY]]`.
    Git,
}

impl Remote {
    /// What an expanded source of ADD is.
    pub fn of(source: &str) -> Self {
        let lower = source.to_ascii_lowercase();
        let is_http = lower.starts_with("http://") || lower.starts_with("https://");
        // What stands behind '#' or '?' says which part of it.
        let path = lower.split(['#', '?']).next().unwrap_or_default();
        if ["git://", "ssh://"].iter().any(|scheme| lower.starts_with(scheme)) {
            Self::Git
        } else if is_http {
            if path.ends_with(".git") { Self::Git } else { Self::Http }
        } else if is_scp(source) {
            Self::Git
        } else {
            Self::None
        }
    }
}

/// `user@host:path`, as scp(1) and git(1) take it.
fn is_scp(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    is_name(user) && is_name(host) && !path.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        for (source, remote) in [
            ("https://example.org/a.tar.gz", Remote::Http),
            ("HTTP://example.org/a?b=.git", Remote::Http),
            ("https://github.com/a/b.git", Remote::Git),
            ("https://github.com/a/b.git#v1:sub", Remote::Git),
            ("https://github.com/a/b.git?tag=v1", Remote::Git),
            ("git://host/a", Remote::Git),
            ("ssh://git@host/a", Remote::Git),
            ("git@github.com:a/b.git", Remote::Git),
            // A path like any other, where Go keeps its modules.
            ("github.com/a/b", Remote::None),
            ("a/b", Remote::None),
            ("a@b", Remote::None),
            ("a/b@c:d", Remote::None),
            ("ftp://host/a", Remote::None),
        ] {
            assert_eq!(Remote::of(source), remote, "{source}");
        }
    }
}
