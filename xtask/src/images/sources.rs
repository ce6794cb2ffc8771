//! Where Debian's packages come from: the host's own sources of this release, else Debian's.

use std::process::Command;

use crate::steps;

/// The release that the images are made of.
pub const SUITE: &str = "bookworm";

/// What mmdebstrap and the images' apt are told.
#[derive(Debug)]
pub struct Sources {
    /// Lines of sources.list(5).
    pub lines: Vec<String>,
    /// Lines of apt.conf(5) that the host needs to reach its mirror; used while building, never left in an image.
    pub apt_options: Vec<String>,
}

/// The host's own mirrors and proxies. A host of another release takes Debian's mirrors.
pub fn of_this_host() -> Sources {
    let files = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.insert(0, "/etc/apt/sources.list".into());
    let mut lines = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("sources") => lines.extend(deb822(&text)),
            Some("list") => lines.extend(one_line(&text)),
            _ => {}
        }
    }
    lines.dedup();
    if lines.is_empty() {
        lines = fallback();
    }
    let options = steps::capture(Command::new("apt-config").args(["dump", "Acquire"])).unwrap_or_default();
    Sources { lines, apt_options: needed_options(&options) }
}

fn fallback() -> Vec<String> {
    let at = |host: &str, suite: &str| format!("deb http://deb.debian.org/{host} {suite} main");
    vec![
        at("debian", SUITE),
        at("debian", &format!("{SUITE}-updates")),
        at("debian-security", &format!("{SUITE}-security")),
    ]
}

/// Whether a suite is this release's own, its updates' or its security's, from Debian (other vendors use the same
/// names, but not with the component `main` on a path that ends in debian or debian-security).
fn wanted(uri: &str, suite: &str, components: &[&str]) -> bool {
    let release =
        suite == SUITE || suite.strip_prefix(SUITE).is_some_and(|rest| ["-updates", "-security"].contains(&rest));
    let path = uri.trim_end_matches('/');
    release && components.contains(&"main") && (path.ends_with("/debian") || path.ends_with("/debian-security"))
}

/// sources.list(5), "DEB822-STYLE FORMAT".
fn deb822(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let mut rows = stanza.lines().filter(|line| !line.starts_with('#'));
            let first = rows.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let more = rows.take_while(|line| line.starts_with([' ', '\t']));
            Some(std::iter::once(first).chain(more).collect::<Vec<_>>().join(" "))
        };
        let words = |name: &str| -> Vec<String> {
            field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        if !words("Types").iter().any(|kind| kind == "deb") || words("Enabled").iter().any(|value| value == "no") {
            continue;
        }
        let components = words("Components");
        let components: Vec<&str> = components.iter().map(String::as_str).collect();
        // A key that is written out in the file cannot stand on a line; the archive's own keys are trusted anyway.
        let keyring = words("Signed-By").into_iter().find(|path| path.starts_with('/'));
        let options = keyring.map(|path| format!("[signed-by=\"{path}\"] ")).unwrap_or_default();
        for uri in words("URIs") {
            for suite in words("Suites") {
                if wanted(&uri, &suite, &components) {
                    lines.push(format!("deb {options}{uri} {suite} main"));
                }
            }
        }
    }
    lines
}

/// sources.list(5), "ONE-LINE-STYLE FORMAT".
fn one_line(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix("deb ") else { continue };
        let (options, rest) = match rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (format!("[{options}] "), rest),
            None => (String::new(), rest),
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        if let [uri, suite, components @ ..] = words.as_slice()
            && wanted(uri, suite, components)
        {
            lines.push(format!("deb {options}{uri} {suite} main"));
        }
    }
    lines
}

/// Of `apt-config dump Acquire`, what another apt needs to use the same mirrors: proxies, and how strictly the age of
/// the lists is taken.
fn needed_options(dump: &str) -> Vec<String> {
    let wanted = |key: &str| {
        let key = key.to_ascii_lowercase();
        key.contains("::proxy") || key.ends_with("::check-valid-until") || key.ends_with("::check-date")
    };
    let set = |line: &&str| line.split_once(' ').is_some_and(|(key, value)| wanted(key) && value != "\"\";");
    dump.lines().filter(set).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_release_of_debian_itself_is_taken() {
        let text = "Types: deb\nURIs: http://m/debian\nSuites: bookworm bookworm-updates trixie\nComponents: main contrib\n\
                    Signed-By: /k.gpg\n\nTypes: deb\nURIs: https://other/node\nSuites: bookworm\nComponents: main\n\n\
                    Types: deb-src\nURIs: http://m/debian\nSuites: bookworm\nComponents: main\n";
        let expected = [
            "deb [signed-by=\"/k.gpg\"] http://m/debian bookworm main",
            "deb [signed-by=\"/k.gpg\"] http://m/debian bookworm-updates main",
        ];
        assert_eq!(deb822(text), expected);
    }

    #[test]
    fn lines_of_the_old_form() {
        let text = "# deb http://m/debian bookworm main\ndeb [trusted=yes] http://m/debian bookworm main non-free\n\
                    deb http://m/debian-security bookworm-security main\ndeb-src http://m/debian bookworm main\n";
        let expected =
            ["deb [trusted=yes] http://m/debian bookworm main", "deb http://m/debian-security bookworm-security main"];
        assert_eq!(one_line(text), expected);
    }

    #[test]
    fn proxies_go_along() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://p:1\";\nAcquire::Check-Date \"false\";\nAcquire::Languages \"none\";\n\
                    Acquire::https::Proxy \"\";";
        assert_eq!(needed_options(dump), ["Acquire::http::Proxy \"http://p:1\";", "Acquire::Check-Date \"false\";"]);
    }
}
