use super::listing::{Chosen, choose, patterns};
use super::submodules::submodules;
use super::*;

/// Scheme, host and path again, and what of it is wanted: `#ref:directory @commit`.
fn shown(text: &str) -> Result<String, String> {
    let read = Repository::parse(text).map_err(|error| error.to_string())?;
    let Repository { location, reference, directory, commit, keep_git_directory, submodules } = read;
    let mut all = format!("{location}#{}:{directory}", reference.unwrap_or_default());
    if let Some(commit) = commit {
        all.push_str(&format!(" @{commit}"));
    }
    if let Some(is_kept) = keep_git_directory {
        all.push_str(if is_kept { " kept" } else { " not kept" });
    }
    if !submodules {
        all.push_str(" alone");
    }
    Ok(all)
}

#[test]
fn repositories_are_read() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for (text, want) in [
        ("https://example.org/a.git", "https://example.org/a.git#:"),
        ("HTTPS://Example.org:8443/a/b.git#v1.2", "https://example.org:8443/a/b.git#v1.2:"),
        ("http://[FD00::1]:80/a.git#release/1:deploy/web", "http://[fd00::1]:80/a.git#release/1:deploy/web"),
        ("https://h/a.git#:/b/../c/./d/", "https://h/a.git#:c/d"),
        ("https://h/a.git#:../../b", "https://h/a.git#:b"),
        ("https://h/a.git#main%2Fx:with%20blank", "https://h/a.git#main/x:with blank"),
        ("git://h/a", "git://h/a#:"),
        ("github.com/moby/buildkit#v1", "https://github.com/moby/buildkit#v1:"),
        ("https://me:pass%40word@h/a.git", "https://xxxxx@h/a.git#:"),
        ("https://h/a.git?tag=v1", "https://h/a.git#refs/tags/v1:"),
        ("https://h/a.git?branch=main&subdir=x&keep-git-dir=1", "https://h/a.git#refs/heads/main:x kept"),
        ("https://h/a.git?ref=pull/42/head&submodules=false", "https://h/a.git#pull/42/head: alone"),
        ("https://h/a.git?keep-git-dir=0#v1", "https://h/a.git#v1: not kept"),
        (&format!("https://h/a.git?checksum={commit}"), &format!("https://h/a.git#{commit}: @{commit}")),
        ("https://h/a.git?tag=v1&commit=ABCDEF0", "https://h/a.git#refs/tags/v1: @abcdef0"),
        ("https://h/a.git?ref=a#a", "https://h/a.git#a:"),
        ("https://h/a.git##a", "https://h/a.git##a:"),
        ("https://h/a.git?&tag=v1&", "https://h/a.git#refs/tags/v1:"),
    ] {
        assert_eq!(shown(text).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn what_is_no_repository_is_refused() {
    for (text, words) in [
        ("git@github.com:a/b.git", "by ssh are not built yet"),
        ("ssh://git@h/a.git", "by ssh are not built yet"),
        ("file:///etc/a.git", "none of https, http and git"),
        ("ext::sh -c id", "a blank"),
        ("ext::sh", "by ssh are not built yet"),
        ("/srv/a.git", "none of https, http and git"),
        ("ftp://h/a.git", "none of https, http and git"),
        ("https:///a.git", "no host"),
        ("https://-oProxyCommand=x/a.git", "no host"),
        ("https://h%00/a.git", "no host"),
        ("https://[::1/a.git", "no host"),
        ("https://[x]/a.git", "no host"),
        ("https://h:0/a.git", "port"),
        ("https://h:99999/a.git", "port"),
        ("https://h:-1/a.git", "port"),
        ("git://h", "no path"),
        ("git://h/", "no path"),
        ("git://h/a\nhost=b", "control character"),
        ("git://h/a%0ahost=b", "control character"),
        ("https://h\\@i/a.git", "backslash"),
        ("https://h/a b.git", "blank"),
        ("https://h/a.git#--upload-pack=x", "invalid reference"),
        ("https://h/a.git#a..b", "invalid reference"),
        ("https://h/a.git#HEAD~1", "invalid reference"),
        ("https://h/a.git#*", "invalid reference"),
        ("https://h/a.git#a%0Ab", "invalid reference"),
        ("https://h/a.git#:a%00b", "control character"),
        ("https://h/a.git?checksum=xyz", "invalid commit"),
        ("https://h/a.git?tag=a&branch=b", "branch conflicts with tag"),
        ("https://h/a.git?tag=a#b", "ref conflicts: \"b\" vs \"refs/tags/a\""),
        ("https://h/a.git?subdir=a#:b", "subdir conflicts: \"b\" vs \"a\""),
        ("https://h/a.git?depth=1", "unexpected query \"depth\""),
        ("https://h/a.git?tag=", "query \"tag\" has no value"),
        ("https://h/a.git?tag=a&tag=a", "query \"tag\" has multiple values"),
        ("https://h/a.git?submodules=maybe", "invalid submodules value: \"maybe\""),
        (&format!("https://h/{}.git", "a".repeat(5000)), "longer than"),
    ] {
        let error = shown(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
        assert!(!error.contains("pass"), "{error}");
    }
}

#[test]
fn the_reference_that_is_meant_is_found() {
    let (a, b, c, d) = ("a".repeat(40), "b".repeat(40), "c".repeat(40), "d".repeat(40));
    let listing = format!(
        "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/main\n{b}\trefs/heads/both\n{c}\trefs/tags/both\n\
         {c}\trefs/tags/v1\n{d}\trefs/tags/v1^{{}}\n{b}\trefs/pull/1/head\n{b}\trefs/heads/x/refs/heads/main\nnoise\n\
         short\trefs/heads/short\n"
    );
    let chosen = |name: &str, object: &str, commit: &str| {
        let name = (!name.is_empty()).then(|| name.to_owned());
        Some(Chosen { name, object: object.to_owned(), commit: commit.to_owned() })
    };
    for (wanted, want) in [
        (None, chosen("refs/heads/main", &a, &a)),
        (Some("HEAD"), chosen("", &a, &a)),
        (Some("main"), chosen("refs/heads/main", &a, &a)),
        (Some("refs/heads/main"), chosen("refs/heads/main", &a, &a)),
        (Some("heads/main"), chosen("refs/heads/main", &a, &a)),
        (Some("both"), chosen("refs/heads/both", &b, &b)),
        (Some("refs/tags/both"), chosen("refs/tags/both", &c, &c)),
        (Some("v1"), chosen("refs/tags/v1", &c, &d)),
        (Some("pull/1/head"), chosen("refs/pull/1/head", &b, &b)),
        (Some("short"), None),
        (Some("mai"), None),
        (Some("head"), None),
    ] {
        assert_eq!(choose(&listing, wanted), want, "{wanted:?}");
    }
    assert_eq!(choose(&format!("{a}\tHEAD\n"), None), chosen("", &a, &a));
    assert_eq!(choose(&format!("ref: --evil\tHEAD\n{a}\tHEAD\n"), None), chosen("", &a, &a));
    assert_eq!(choose(&format!("ref: main\tHEAD\n{a}\tHEAD\n"), None), chosen("", &a, &a));
    assert_eq!(choose("", None), None);
    assert_eq!(Chosen::by_number(&"A".repeat(40)), chosen("", &a, &a));
    assert_eq!(Chosen::by_number(&a[..39]), None);
    assert_eq!(patterns(Some("v1")), ["v1", "v1^{}"]);
}

#[test]
fn submodules_are_where_the_file_says() {
    let a = "a".repeat(40);
    let parent = Location::parse("https://me:pw@h:8443/group/app.git").unwrap();
    let of = |configuration: &str, tree: &str| {
        let found = submodules(configuration.as_bytes(), tree.as_bytes(), &parent);
        found.map_err(|error| dozen_model::error_chain(&error)).map(|all| {
            let shown = |it: &super::submodules::Submodule| {
                format!("{} {} {}", String::from_utf8_lossy(&it.path), it.location, &it.commit[..3])
            };
            all.iter().map(shown).collect::<Vec<_>>().join(", ")
        })
    };
    let tree = format!("100644 blob {a}\t.gitmodules\0\u{31}60000 commit {a}\tlib/x\0");
    for (configuration, want) in [
        ("submodule.x.path\nlib/x\0submodule.x.url\nhttps://o/x.git\0", Ok("lib/x https://o/x.git aaa")),
        ("submodule.a.b.path\nlib/x/\0submodule.a.b.url\n../x.git\0", Ok("lib/x https://xxxxx@h:8443/group/x.git aaa")),
        ("submodule.x.path\nlib/x\0submodule.x.url\n./x\0", Ok("lib/x https://xxxxx@h:8443/group/app.git/x aaa")),
        ("submodule.x.path\nlib/x\0submodule.x.url\n../../x/\0", Ok("lib/x https://xxxxx@h:8443/x aaa")),
        ("submodule.x.path\nlib/x\0submodule.x.url\n../../../x\0", Err("submodule \"lib/x\": it has no path")),
        ("submodule.x.path\nlib/x\0submodule.x.update\nnone\0", Ok("")),
        (
            "submodule.x.path\nlib/x\0submodule.x.url\nfile:///etc\0",
            Err("submodule \"lib/x\": it is reached by none of https, http and git"),
        ),
        (
            "submodule.x.path\nlib/x\0submodule.x.url\n-u./x\0",
            Err("submodule \"lib/x\": it is reached by none of https, http and git"),
        ),
        (
            "submodule.x.path\nlib/x\0submodule.x.url\n../x\ny\0",
            Err("submodule \"lib/x\": it has a blank, a backslash or a control character in it"),
        ),
        ("submodule.x.path\nlib/x\0", Err("No url found for submodule path \"lib/x\" in .gitmodules")),
        (
            "submodule.x.path\nlib\0submodule.x.url\nhttps://o/x\0",
            Err("No url found for submodule path \"lib/x\" in .gitmodules"),
        ),
        ("", Err("No url found for submodule path \"lib/x\" in .gitmodules")),
    ] {
        assert_eq!(of(configuration, &tree), want.map(str::to_owned).map_err(str::to_owned), "{configuration}");
    }
    assert_eq!(of("", &format!("100644 blob {a}\tf\0")), Ok(String::new()));
    assert_eq!(of("", "160000 commit abc\tf\0"), Err("submodule \"f\": its commit cannot be read".to_owned()));
}
