//! What `cp` means by its two paths: Docker's rules, by text alone (docs.docker.com/reference/cli/docker/container/cp).

/// One of the two arguments.
#[derive(Debug, PartialEq, Eq)]
pub enum Side<'a> {
    /// A path on this host, or `-`.
    Host(&'a str),
    /// A container and a path in it.
    Container(&'a str, &'a str),
}

impl<'a> Side<'a> {
    /// A path that begins with a slash or a dot is this host's, whatever it holds.
    pub fn of(argument: &'a str) -> Self {
        match argument.split_once(':') {
            Some((container, path)) if !argument.starts_with('/') && !container.starts_with('.') => {
                Self::Container(container, path)
            }
            _ => Self::Host(argument),
        }
    }
}

/// What is copied.
#[derive(Debug)]
pub struct Source<'a> {
    pub path: &'a str,
    pub is_directory: bool,
    /// The name that was asked for, where a link led to another.
    pub rebase: Option<&'a str>,
}

/// Where it goes to.
#[derive(Debug)]
pub struct Destination {
    pub path: String,
    pub exists: bool,
    pub is_directory: bool,
}

/// Where an archive is unpacked, and what the first part of its names becomes: from, to.
#[derive(Debug, PartialEq, Eq)]
pub struct Placed {
    pub directory: String,
    pub renamed: Option<(String, String)>,
}

/// Into a directory that is there; over a file, or under a new name, otherwise.
pub fn place(source: &Source<'_>, destination: &Destination) -> Result<Placed, &'static str> {
    let (above, last) = split(&destination.path);
    let from = split(source.path).1;
    let asserts_directory = destination.path.ends_with('/') || base(&destination.path) == ".";
    if destination.exists && destination.is_directory {
        let renamed = source.rebase.map(|rebase| (from, rebase.to_owned()));
        return Ok(Placed { directory: destination.path.clone(), renamed });
    }
    if destination.exists && source.is_directory {
        return Err("cannot copy directory");
    }
    if !destination.exists && !source.is_directory && asserts_directory {
        return Err("no such directory");
    }
    Ok(Placed { directory: above, renamed: Some((from, last)) })
}

/// Directory and last part. A path that ends in `/.` is a directory's, and its last part is the dot.
pub fn split(path: &str) -> (String, String) {
    let cleaned = clean(path);
    if base(path) == "." {
        return (cleaned, ".".to_owned());
    }
    match cleaned.rsplit_once('/') {
        Some(("", "")) => ("/".to_owned(), "/".to_owned()),
        Some(("", last)) => ("/".to_owned(), last.to_owned()),
        Some((above, last)) => (above.to_owned(), last.to_owned()),
        None => (".".to_owned(), cleaned),
    }
}

/// The last part as it is written: `.` of `/a/.`, `a` of `/a/`.
pub fn base(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    match (trimmed.rsplit('/').next(), path.is_empty()) {
        (_, true) => ".".to_owned(),
        (Some("") | None, _) => "/".to_owned(),
        (Some(last), _) => last.to_owned(),
    }
}

/// Without `.`, `..` and double slashes, by the text.
pub fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

/// A cleaned path with the ending that the original had: `/` or `/.`.
pub fn keep_ending(cleaned: &str, original: &str) -> String {
    let mut path = cleaned.to_owned();
    if base(original) == "." && original.ends_with('.') && base(&path) != "." {
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push('.');
    } else if original.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// Where a link's text leads, seen from the link.
pub fn beside(link: &str, target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { clean(&format!("{}/{target}", split(link).0)) }
}

/// What a path was resolved to, with the ending of what was asked for, and the name that was asked for if it is another.
pub fn rebased(path: &str, resolved: &str) -> (String, Option<String>) {
    let resolved = keep_ending(resolved, path);
    let is_other = base(path) != base(&resolved);
    (resolved, is_other.then(|| base(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_by_their_beginning() {
        for (argument, side) in [
            ("web:/etc", Side::Container("web", "/etc")),
            ("web:etc:x", Side::Container("web", "etc:x")),
            ("web:", Side::Container("web", "")),
            ("/tmp/a:b", Side::Host("/tmp/a:b")),
            ("./a:b", Side::Host("./a:b")),
            ("../a:b", Side::Host("../a:b")),
            ("file", Side::Host("file")),
            ("-", Side::Host("-")),
        ] {
            assert_eq!(Side::of(argument), side, "{argument}");
        }
    }

    #[test]
    fn paths_are_taken_apart_as_go_does() {
        for (path, cleaned, base_of, parts) in [
            ("/a/b", "/a/b", "b", ("/a", "b")),
            ("/a/b/", "/a/b", "b", ("/a", "b")),
            ("/a/b/.", "/a/b", ".", ("/a/b", ".")),
            ("/a/../b", "/b", "b", ("/", "b")),
            ("/..", "/", "..", ("/", "/")),
            ("/", "/", "/", ("/", "/")),
            ("a", "a", "a", (".", "a")),
            ("a//b/./c", "a/b/c", "c", ("a/b", "c")),
            (".", ".", ".", (".", ".")),
            ("../x", "../x", "x", ("..", "x")),
        ] {
            assert_eq!((clean(path).as_str(), base(path).as_str()), (cleaned, base_of), "{path}");
            assert_eq!(split(path), (parts.0.to_owned(), parts.1.to_owned()), "{path}");
        }
    }

    #[test]
    fn endings_are_kept_and_links_followed() {
        for (cleaned, original, kept) in
            [("/a", "a/", "/a/"), ("/a", "a/.", "/a/."), ("/cwd", ".", "/cwd/."), ("/", "/", "/"), ("/a", "a", "/a")]
        {
            assert_eq!(keep_ending(cleaned, original), kept);
        }
        assert_eq!((beside("/a/link", "x/../y"), beside("/a/link", "/z")), ("/a/y".to_owned(), "/z".to_owned()));
        assert_eq!(rebased("/a/link", "/a/target"), ("/a/target".to_owned(), Some("link".to_owned())));
        assert_eq!(rebased("/a/link/.", "/a/target"), ("/a/target/.".to_owned(), None));
        assert_eq!(rebased("/a/x", "/b/x"), ("/b/x".to_owned(), None));
    }

    #[test]
    fn what_goes_where_is_dockers_table() {
        let check =
            |source: (&str, bool), destination: (&str, bool, bool), expected: Result<(&str, &str, &str), &str>| {
                let what = Source { path: source.0, is_directory: source.1, rebase: None };
                let (path, exists, is_directory) = destination;
                let placed = place(&what, &Destination { path: path.to_owned(), exists, is_directory });
                let expected = expected.map(|(directory, from, to)| Placed {
                    directory: directory.to_owned(),
                    renamed: (!from.is_empty()).then(|| (from.to_owned(), to.to_owned())),
                });
                assert_eq!(placed, expected, "{source:?} {destination:?}");
            };
        let (file, directory) = (("/s/f", false), ("/s/d", true));
        check(file, ("/t", true, true), Ok(("/t", "", "")));
        check(file, ("/t/g", true, false), Ok(("/t", "f", "g")));
        check(file, ("/t/g", false, false), Ok(("/t", "f", "g")));
        check(file, ("/t/g/", false, false), Err("no such directory"));
        check(directory, ("/t", true, true), Ok(("/t", "", "")));
        check(directory, ("/t", true, false), Err("cannot copy directory"));
        check(directory, ("/t/e", false, false), Ok(("/t", "d", "e")));
        check(directory, ("/t/e/", false, false), Ok(("/t", "d", "e")));
        check(("/s/d/.", true), ("/t", true, true), Ok(("/t", "", "")));
        check(("/s/d/.", true), ("/t/e", false, false), Ok(("/t", ".", "e")));
        check(("/", true), ("/t/e", false, false), Ok(("/t", "/", "e")));
    }
}
