//! What git is told: its configuration, and the scripts that it runs in. Nothing that a repository or a server says is in
//! either; what varies comes in variables and in quotes.

use std::fmt::Write;

use dozen_build::repository::{Location, Scheme};
use dozen_model::base64;

use super::sandbox::AUTHORITIES;

/// Lists references: `$1` and so on are patterns.
pub(super) const LIST: &str = r#"exec git ls-remote --symref "$LOCATION" "$@""#;

/// Fetches one commit and makes `archive.tar` of it; for submodules, `modules` and `tree` beside it. Nothing is checked
/// out: no link is followed, no file of a repository's is opened by its name, no filter and no hook is run. What
/// `.gitattributes` says for archives alone is passed over, and what it says of ends of lines is heeded, as in a checkout.
pub(super) const FETCH: &str = r#"
set -eu
git init --quiet --template= ${FORMAT:+"--object-format=$FORMAT"} .
mkdir -p .git/info
echo '* -export-ignore -export-subst' >.git/info/attributes
fetch() { git fetch --progress --no-tags --no-recurse-submodules "$@"; }
if [ -z "$WHOLE" ]; then
    fetch --depth=1 "$LOCATION" "$OBJECT"
elif [ -n "$NAME" ]; then
    fetch "$LOCATION" "$NAME"
else
    fetch "$LOCATION" '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*'
fi
commit=$(git rev-parse --quiet --verify "$COMMIT^{commit}") || { echo "fatal: there is no commit $COMMIT" >&2; exit 1; }
if [ -n "$SUBMODULES" ] && git cat-file -e "$commit:.gitmodules" 2>/dev/null; then
    git config -z --list --blob "$commit:.gitmodules" >modules
    git ls-tree -r -z --full-tree "$commit" >tree
fi
git archive --format=tar --output=archive.tar "$commit"
rm -f .git/FETCH_HEAD .git/info/attributes
if [ -n "$KEEP" ]; then
    git remote add origin "$ORIGIN"
    if [ -n "$NAME" ]; then git update-ref "$NAME" "$OBJECT"; fi
    git update-ref --no-deref HEAD "$commit"
    git read-tree "$commit"
fi
"#;

/// What git may do, and with whose words.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    pub(super) location: &'a Location,
    /// It is known which commit has to come: whoever sends it, by whatever way, it is the right one.
    pub(super) is_pinned: bool,
    /// `Authorization`, for the server that the location names.
    pub(super) authorization: Option<String>,
    /// A file with certificate authorities is there.
    pub(super) has_authorities: bool,
}

impl Settings<'_> {
    /// As a file (git-config(1), "Syntax").
    pub(super) fn text(&self) -> String {
        let mut text = String::from(
            "[core]\n hooksPath = /dev/null\n fsmonitor = false\n logAllRefUpdates = false\n\
             [init]\n defaultBranch = master\n[gc]\n auto = 0\n[maintenance]\n auto = false\n\
             [fetch]\n unpackLimit = 1\n recurseSubmodules = false\n[tar]\n umask = 0022\n[protocol]\n allow = never\n",
        );
        for scheme in self.schemes() {
            let _ = writeln!(text, "[protocol \"{}\"]\n allow = always", scheme.word());
        }
        // Git sends the header to wherever the first answer redirects it, whoever that is.
        let redirections = if self.authorization.is_some() { "false" } else { "initial" };
        let _ = writeln!(text, "[http]\n lowSpeedLimit = 1\n lowSpeedTime = 60\n followRedirects = {redirections}");
        if self.has_authorities {
            let _ = writeln!(text, " sslCAInfo = {AUTHORITIES}");
        }
        if let Some(authorization) = &self.authorization {
            let field = quoted(&format!("Authorization: {authorization}"));
            let _ =
                writeln!(text, "[http {}]\n extraHeader = {field}", quoted(&format!("{}/", self.location.origin())));
        }
        text
    }

    /// Those that are spoken, redirections included: never one that anybody on the way could change, unless it is known
    /// what has to come.
    fn schemes(&self) -> &'static [Scheme] {
        match (self.location.scheme, self.is_pinned) {
            (Scheme::Git, _) => &[Scheme::Git],
            (Scheme::Https, false) => &[Scheme::Https],
            (Scheme::Https, true) | (Scheme::Http, _) => &[Scheme::Https, Scheme::Http],
        }
    }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The field's value (RFC 7617), of what a URL has.
pub(super) fn basic(credentials: &str) -> String {
    let colon = if credentials.contains(':') { "" } else { ":" };
    format!("Basic {}", base64::encode(format!("{credentials}{colon}").as_bytes()))
}

/// A server, or the way to it, takes no part of a history, or no commit by its number: then all of it is fetched.
pub(super) fn wants_whole(errors: &str) -> bool {
    ["shallow", "--depth", "not our ref", "unadvertised object", "want-ref"].iter().any(|words| errors.contains(words))
}

/// Why git has failed, in a line: what it says is wrong, as far as a terminal can show it.
pub(super) fn reason(errors: &str) -> String {
    let lines: Vec<String> = errors
        .split(['\n', '\r'])
        .map(|line| line.chars().filter(|letter| !letter.is_control()).take(400).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let is_said =
        |line: &&String| ["fatal: ", "error: ", "remote: ERR", "remote: fatal"].iter().any(|it| line.starts_with(it));
    let mut said: Vec<&str> = lines.iter().filter(is_said).map(String::as_str).collect();
    if said.is_empty() {
        said.extend(lines.last().map(String::as_str));
    }
    let last = said.len().saturating_sub(3);
    if said.is_empty() { "it says nothing of why".to_owned() } else { said[last..].join("; ") }
}

/// What to do about it.
pub(super) fn hint(errors: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|words| errors.contains(words));
    if says(&[
        "could not read Username",
        "could not read Password",
        "Authentication failed",
        "error: 401",
        "error: 403",
    ]) {
        Some("a private repository wants a token: --secret id=GIT_AUTH_TOKEN,src=FILE")
    } else if says(&["redirect", "error: 301", "error: 302", "error: 307", "error: 308"]) {
        Some("name the repository by where it is now; with a token or a password no redirection is followed")
    } else if says(&["Could not resolve host", "unable to look up", "Failed to connect", "unable to connect"]) {
        Some("git reaches what a RUN reaches; servers on the engine's own machine with --allow network.host")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, is_pinned: bool, authorization: Option<&str>) -> String {
        let location = Location::parse(url).unwrap();
        let authorization = authorization.map(str::to_owned);
        Settings { location: &location, is_pinned, authorization, has_authorities: false }.text()
    }

    #[test]
    fn only_what_is_named_is_spoken() {
        for (url, is_pinned, allowed) in [
            ("https://h/a.git", false, &["https"][..]),
            ("https://h/a.git", true, &["https", "http"]),
            ("http://h/a.git", false, &["https", "http"]),
            ("git://h/a.git", true, &["git"]),
        ] {
            let text = settings(url, is_pinned, None);
            assert!(text.contains("[protocol]\n allow = never\n"), "{text}");
            let found: Vec<&str> =
                text.lines().filter_map(|line| line.strip_prefix("[protocol \"")?.strip_suffix("\"]")).collect();
            assert_eq!(found, allowed, "{url}");
        }
    }

    #[test]
    fn a_password_is_for_its_server_and_follows_no_redirection() {
        let text = settings("https://h:8443/a.git", false, Some("Basic \"x\\"));
        let want = "[http \"https://h:8443/\"]\n extraHeader = \"Authorization: Basic \\\"x\\\\\"\n";
        assert!(text.contains(want) && text.contains("followRedirects = false"), "{text}");
        assert!(settings("https://h/a.git", false, None).contains("followRedirects = initial"));
        assert_eq!((basic("me:pw"), basic("me")), ("Basic bWU6cHc=".into(), "Basic bWU6".into()));
    }

    #[test]
    fn a_failure_is_told_in_a_line() {
        for (errors, want) in [
            (
                "remote: Counting objects: 1% (1/9)\rremote: done\nfatal: early EOF\nfatal: bad\n",
                "fatal: early EOF; fatal: bad",
            ),
            ("error: a\x1b[31m\u{7}\nfatal: b", "error: a[31m; fatal: b"),
            ("sh: 1: git: not found\n", "sh: 1: git: not found"),
            ("", "it says nothing of why"),
        ] {
            assert_eq!(reason(errors), want, "{errors:?}");
        }
        assert!(reason(&"fatal: x".repeat(1000)).len() <= 400);
    }

    #[test]
    fn what_a_server_cannot_do_is_known() {
        for (errors, is_it) in [
            ("fatal: dumb http transport does not support shallow capabilities", true),
            ("error: Server does not allow request for unadvertised object 01", true),
            ("fatal: remote error: upload-pack: not our ref 01", true),
            ("fatal: repository 'https://h/a.git/' not found", false),
        ] {
            assert_eq!(wants_whole(errors), is_it, "{errors}");
        }
        for (errors, words) in [
            ("fatal: could not read Username for 'https://h': terminal prompts disabled", "GIT_AUTH_TOKEN"),
            ("fatal: unable to access 'http://h/': The requested URL returned error: 301", "where it is now"),
            ("fatal: unable to access 'http://h/': Failed to connect to h port 80", "--allow network.host"),
        ] {
            assert!(hint(errors).unwrap().contains(words), "{errors}");
        }
        assert_eq!(hint("fatal: bad object"), None);
    }
}
