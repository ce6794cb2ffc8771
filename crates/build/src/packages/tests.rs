use super::*;
use crate::tree::{Node, PlainTree};

fn all(notes: Notes, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    notes.read(bytes, "x", &mut |Package { name, version, architecture, source, license, .. }| {
        let source = source.map(|(name, version)| format!(" of {name} {}", version.unwrap_or_default()));
        let others = [architecture, license].into_iter().flatten().map(|other| format!(" {other}"));
        found.push(
            format!("{name} {version}{}{}", others.collect::<String>(), source.unwrap_or_default()).trim().to_owned(),
        );
    });
    found
}

#[test]
fn dpkgs_database() {
    let status = b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\nVersion: 2.36-9+deb12u4\n\
        Description: GNU C Library\n Version: of the description\n .\n more\n\nPackage: gone\nStatus: deinstall ok config-files\n\
        Version: 1\n\nPackage: libgcc-s1\nStatus: install ok installed\nSource: gcc-12 (12.2.0-14)\nVersion: 12.2.0-14\n\n\
        Package: half\n\nVersion: 1\n\nPACKAGE: loud\nversion:9\n";
    let expected = ["libc6 2.36-9+deb12u4 amd64 of glibc", "libgcc-s1 12.2.0-14 of gcc-12 12.2.0-14", "loud 9"];
    assert_eq!(all(Notes::Debian, status), expected);
    assert_eq!(all(Notes::Debian, b"Package: tzdata\nVersion: 1\n"), ["tzdata 1"]);
    let crlf = b"Package: a\r\nVersion: 1\r\n\r\nPackage: b\r\nVersion: 2\r\n";
    assert_eq!(all(Notes::Debian, crlf), ["a 1", "b 2"]);
}

#[test]
fn apks_database() {
    let installed = b"C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\np:so:libc\no:musl\na:0:0:755\nF:lib\nR:ld-musl-x86_64.so.1\n\n\
        P:musl-utils\nV:1.2.4-r2\nA:x86_64\nL:MIT AND BSD-2-Clause\no:musl\n\nV:1\n";
    let expected = ["musl 1.2.4-r2 x86_64 MIT", "musl-utils 1.2.4-r2 x86_64 MIT AND BSD-2-Clause of musl"];
    assert_eq!(all(Notes::Alpine, installed), expected);
}

#[test]
fn pythons_and_nodes_packages() {
    let metadata =
        b"Metadata-Version: 2.1\nName: Flask_Login\nVersion: 0.6.3\nLicense: MIT\n\nName: other\nVersion: 1\n";
    assert_eq!(all(Notes::Python, metadata), ["Flask_Login 0.6.3 MIT"]);
    assert_eq!(all(Notes::Python, b"Name: a\r\n\r\nVersion: 1\r\n"), [""; 0]);
    for (json, expected) in [
        (
            r#"{"name":"@babel/core","version":"7.1.0","license":"MIT","dependencies":{"a":"1"}}"#,
            "@babel/core 7.1.0 MIT",
        ),
        (r#"{"name":"old","version":"1","license":{"type":"BSD"}}"#, "old 1 BSD"),
        (r#"{"name":"odd","version":"1","license":7}"#, "odd 1"),
        (r#"{"name":"part","private":true}"#, ""),
        (r#"{"name":"a","version":1}"#, ""),
        ("[]", ""),
        ("", ""),
    ] {
        assert_eq!(all(Notes::Node, json.as_bytes()).concat(), expected, "{json}");
    }
}

#[test]
fn what_is_no_word_is_no_package() {
    let long = format!("Package: {}\nVersion: 1\n", "a".repeat(WORD_LIMIT_BYTES + 1));
    for text in [&b"Package: a\x1b[2J\nVersion: 1\n"[..], b"Package: \xff\nVersion: 1\n", b"Package:\nVersion: 1\n"] {
        assert_eq!(all(Notes::Debian, text), [""; 0]);
    }
    assert_eq!(all(Notes::Debian, long.as_bytes()), [""; 0]);
    assert_eq!(all(Notes::Node, br#"{"name":"a\nb","version":"1"}"#), [""; 0]);
}

struct Made(PlainTree);

impl Root for Made {
    fn tree(&self) -> &dyn Tree {
        &self.0
    }

    fn beginning(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError> {
        use std::io::Read;
        let Some(Node { kind: crate::tree::NodeKind::File { content, .. }, .. }) = self.0.node(path.as_bytes())? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        content.open().unwrap().take(limit_bytes).read_to_end(&mut bytes).unwrap();
        Ok(Some(bytes))
    }
}

fn root(files: &[(&str, &str)]) -> Made {
    let node = |text: &str| Node::text(text.as_bytes(), (0, 0));
    Made(files.iter().fold(PlainTree::empty(), |tree, (path, text)| tree.with(path.as_bytes(), node(text))))
}

#[test]
fn they_are_found_wherever_their_managers_put_them() {
    let python = "Name: flask\nVersion: 3.0\n\n";
    let node = r#"{"name":"left-pad","version":"1.0.0"}"#;
    let files = [
        ("etc/os-release", "NAME=x\nID=debian\nVERSION_ID=\"12\"\n"),
        ("var/lib/dpkg/status", "Package: a\nVersion: 1\n"),
        ("var/lib/dpkg/status.d/b", "Package: b\nVersion: 2\n"),
        ("var/lib/dpkg/status.d/b.md5sums", "Package: c\nVersion: 2\n"),
        ("srv/var/lib/dpkg/status", "Package: d\nVersion: 1\n"),
        ("lib/apk/db/installed", "P:e\nV:1\n"),
        ("opt/venv/lib/python3.11/site-packages/flask-3.0.dist-info/METADATA", python),
        ("usr/lib/python3/dist-packages/old.egg-info/PKG-INFO", "Name: old\nVersion: 1\n"),
        ("usr/lib/python3/dist-packages/older.egg-info", "Name: older\nVersion: 1\n"),
        ("srv/METADATA", "Name: none\nVersion: 1\n"),
        ("srv/node_modules/left-pad/package.json", node),
        ("srv/node_modules/left-pad/test/package.json", r#"{"name":"none","version":"1"}"#),
        ("srv/node_modules/@x/y/package.json", r#"{"name":"@x/y","version":"1"}"#),
        ("srv/package.json", r#"{"name":"none","version":"1"}"#),
    ];
    let found = find(&root(&files)).unwrap();
    assert_eq!(found.release, Release { id: "debian".into(), version: "12".into() });
    let names: Vec<&str> = found.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "e", "flask", "old", "older", "@x/y", "left-pad"]);
    assert_eq!(found.packages[1].found_in, "/var/lib/dpkg/status.d/b");
}

#[test]
fn too_much_is_refused_and_not_cut_short() {
    let deep = "d/".repeat(PATH_LIMIT_BYTES) + "f";
    let said = find(&root(&[(&deep, "")])).unwrap_err().to_string();
    assert!(said.contains("4095 bytes in a path"), "{said}");
    let many: String = (0..=MOST_PACKAGES).map(|number| format!("P:{number}\nV:1\n\n")).collect();
    let said = find(&root(&[("lib/apk/db/installed", &many)])).unwrap_err().to_string();
    assert!(said.contains("200000 packages"), "{said}");
}
