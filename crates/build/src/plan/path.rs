//! Paths in an image, looked at as words: what stands in the file system is not asked.

/// Absolute and clean: `path` as seen from `directory`, which is absolute or empty. `..` ends at the root.
pub(super) fn join(directory: &str, path: &str) -> String {
    let mut parts = Vec::new();
    let before = if path.starts_with('/') { "" } else { directory };
    for part in before.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Where a COPY goes: as [`join`], with a slash at the end if it can only be a directory.
pub(super) fn destination(directory: &str, path: &str) -> String {
    let mut joined = join(directory, path);
    let is_directory = matches!(path, "" | ".") || path.ends_with('/') || path.ends_with("/.");
    if is_directory && joined != "/" {
        joined.push('/');
    }
    joined
}

/// The name of a file whose text stands in the Dockerfile: one word of a path.
pub(super) fn file_name(name: &str) -> Option<&str> {
    let name = name.trim_start_matches('/');
    (!name.is_empty() && !name.contains('/') && !matches!(name, "." | "..")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_clean() {
        for (directory, path, joined, to) in [
            ("", "a", "/a", "/a"),
            ("/", "a/", "/a", "/a/"),
            ("/app", "b//c/", "/app/b/c", "/app/b/c/"),
            ("/app", "/b/../c", "/c", "/c"),
            ("/app", "../../..", "/", "/"),
            ("/app", "../x", "/x", "/x"),
            ("/app", "..", "/", "/"),
            ("/app", ".", "/app", "/app/"),
            ("/app", "", "/app", "/app/"),
            ("/app", "./", "/app", "/app/"),
            ("/app", "a/.", "/app/a", "/app/a/"),
            ("", ".", "/", "/"),
            ("/app", "/", "/", "/"),
        ] {
            assert_eq!((join(directory, path), destination(directory, path)), (joined.to_owned(), to.to_owned()));
        }
    }

    #[test]
    fn a_file_name_is_one_word() {
        assert_eq!([file_name("a.txt"), file_name("/EOF")], [Some("a.txt"), Some("EOF")]);
        for name in ["", "/", "a/b", "../a", "..", ".", "a/"] {
            assert_eq!(file_name(name), None, "{name}");
        }
    }
}
