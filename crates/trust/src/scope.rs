//! Scopes of a policy for registries (containers-policy.json(5), "docker:"): an image by tag or digest, its repository, what
//! the repository lies in, the registry's host, and `*.` with what a host ends in. The most specific one counts.

use dozen_model::{Reference, is_path_component, is_tag};

/// The scopes that an image is of, the most specific first. A tag beside a digest does not count, as in a pull; nor does it how
/// the host's letters are written, since it is the same host.
pub(crate) fn scopes(name: &Reference) -> Vec<String> {
    let mut within = format!("{}/{}", name.registry().to_ascii_lowercase(), name.path());
    let mut scopes = Vec::new();
    match (name.digest(), name.tag()) {
        (Some(digest), _) => scopes.push(format!("{within}@{digest}")),
        (None, Some(tag)) => scopes.push(format!("{within}:{tag}")),
        (None, None) => {}
    }
    while let Some(slash) = within.rfind('/') {
        scopes.push(within.clone());
        within.truncate(slash);
    }
    // The port is the host's, and there is none in what hosts end in.
    let host = match within.starts_with('[') {
        true => "",
        false => within.split(':').next().unwrap_or_default(),
    };
    let endings = host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]));
    let endings: Vec<String> = endings.collect();
    scopes.push(within);
    scopes.extend(endings);
    scopes
}

/// Why no image can be of this scope: a rule that nothing meets is a slip of the pen, and lets in what it was to keep out.
pub(crate) fn check(scope: &str) -> Result<(), &'static str> {
    if scope.is_empty() {
        return Ok(());
    }
    if scope.split('/').next().is_some_and(|host| host.bytes().any(|byte| byte.is_ascii_uppercase())) {
        return Err("hosts are written in small letters");
    }
    if let Some(ending) = scope.strip_prefix("*.") {
        return match is_host(&format!("a.{ending}")) && !ending.contains(':') {
            true => Ok(()),
            false => Err("behind *. stands what a host's name ends in, without a port"),
        };
    }
    if scope.contains("://") {
        return Err("it is written without a scheme");
    }
    let (host, rest) = scope.split_once('/').map_or((scope, None), |(host, rest)| (host, Some(rest)));
    if !is_host(host) {
        return Err("it begins with the registry's host, as docker.io/library/debian does");
    }
    if host == "index.docker.io" {
        return Err("Docker Hub is docker.io");
    }
    let Some(rest) = rest else { return Ok(()) };
    let (path, is_right) = match (rest.split_once('@'), rest.split_once(':')) {
        (Some((path, digest)), _) => (path, digest.parse::<dozen_model::Digest>().is_ok()),
        (None, Some((path, tag))) => (path, is_tag(tag)),
        (None, None) => (rest, true),
    };
    match is_right && path.split('/').all(is_path_component) {
        true => Ok(()),
        false => Err("it is no image, no repository and nothing in which repositories lie"),
    }
}

/// As an image's name has it.
fn is_host(host: &str) -> bool {
    let image: Result<Reference, _> = format!("{host}/a/b").parse();
    image.is_ok_and(|image| image.path() == "a/b" && (image.registry() == host || host == "index.docker.io"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_scope_is_the_first() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, want) in [
            (
                "registry.team.example:5000/a/b:1".to_owned(),
                vec![
                    "registry.team.example:5000/a/b:1",
                    "registry.team.example:5000/a/b",
                    "registry.team.example:5000/a",
                    "registry.team.example:5000",
                    "*.team.example",
                    "*.example",
                ],
            ),
            (
                "debian".to_owned(),
                vec![
                    "docker.io/library/debian:latest",
                    "docker.io/library/debian",
                    "docker.io/library",
                    "docker.io",
                    "*.io",
                ],
            ),
            ("Q.Example/a:B".to_owned(), vec!["q.example/a:B", "q.example/a", "q.example", "*.example"]),
            ("localhost:5000/a:1".to_owned(), vec!["localhost:5000/a:1", "localhost:5000/a", "localhost:5000"]),
            ("[::1]:5000/a:1".to_owned(), vec!["[::1]:5000/a:1", "[::1]:5000/a", "[::1]:5000"]),
        ] {
            assert_eq!(scopes(&name.parse().unwrap()), want, "{name}");
        }
        let by_digest = format!("q.example/a:1@{digest}");
        assert_eq!(scopes(&by_digest.parse().unwrap())[0], format!("q.example/a@{digest}"));
    }

    #[test]
    fn a_scope_that_nothing_meets_is_refused() {
        let digest = format!("registry.example/a@sha256:{}", "a".repeat(64));
        for scope in [
            "",
            "docker.io",
            "docker.io/library",
            "docker.io/library/debian:12",
            "localhost:5000/team",
            "*.example",
            "*.team.example",
            "[::1]:5000",
            &digest,
        ] {
            assert_eq!(check(scope), Ok(()), "{scope}");
        }
        for (scope, words) in [
            ("https://registry.example", "without a scheme"),
            ("Registry.example/a", "hosts are written in small letters"),
            ("*.Example", "hosts are written in small letters"),
            ("debian", "begins with the registry's host"),
            ("library/debian", "begins with the registry's host"),
            ("index.docker.io/library", "Docker Hub is docker.io"),
            ("registry.example/", "it is no image"),
            ("registry.example/Team", "it is no image"),
            ("registry.example/a:", "it is no image"),
            ("registry.example/a@sha256:1", "it is no image"),
            ("*", "begins with the registry's host"),
            ("*.", "what a host's name ends in"),
            ("*.example:5000", "without a port"),
            ("*.example/team", "what a host's name ends in"),
        ] {
            assert!(check(scope).is_err_and(|why| why.contains(words)), "{scope}: {:?}", check(scope));
        }
    }
}
