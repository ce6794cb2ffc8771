//! What holds whatever is copied where.

use std::collections::BTreeMap;

use super::*;
use crate::tree::{Kind, above, join};

/// Lines of a tree in which few names come again and again, at any place.
fn any_tree() -> impl Strategy<Value = Vec<String>> {
    let path = prop::collection::vec("[abc]", 1..4).prop_map(|names| names.join("/"));
    let what = prop_oneof![
        3 => "=[12]".prop_map(|what| what),
        2 => Just("/".to_owned()),
        1 => "->(/|\\.\\./)?[abc](/[abc])?".prop_map(|what| what),
    ];
    prop::collection::vec((path, what), 0..8).prop_map(|all| {
        let mut lines: Vec<String> = Vec::new();
        let mut files: Vec<String> = Vec::new();
        for (path, what) in all {
            // Nothing is in what is no directory, and nothing is there twice.
            let is_free = !files.iter().any(|file| path == *file || path.starts_with(&format!("{file}/")))
                && !lines.iter().any(|line| line.starts_with(&format!("{path}/")));
            if is_free {
                lines.push(format!("{path}{what}"));
                if what != "/" {
                    files.push(path);
                }
            }
        }
        lines
    })
}

fn any_path() -> impl Strategy<Value = String> {
    "(/|[abc]|[abc]/[abc]|\\*|[abc]/\\*|\\?/[abc]|\\[\\^a\\]|\\.|\\.\\./[abc])"
}

fn any_destination() -> impl Strategy<Value = String> {
    "(/|/[abc]|/[abc]/|/[abc]/[abc]|/[abc]/[abc]/)"
}

/// What an image shows after a layer has come on it.
fn applied(image: &PlainTree, entries: &[Entry]) -> BTreeMap<Vec<u8>, String> {
    let mut shown = BTreeMap::new();
    let mut stack = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        for name in image.names(&path).unwrap() {
            let below = join(&path, &name);
            let node = image.node(&below).unwrap().unwrap();
            shown.insert(below.clone(), lines(&[Entry { path: Vec::new(), node, hard_link: None }]).remove(0));
            stack.push(below);
        }
    }
    for entry in entries {
        let is_directory = entry.node.short() == Kind::Directory;
        let stands_directory = shown.get(&entry.path).is_some_and(|line| line.starts_with('/'));
        if !(is_directory && stands_directory) {
            let prefix = [entry.path.as_slice(), b"/"].concat();
            shown.retain(|path, _| !path.starts_with(&prefix));
        }
        let line = lines(&[Entry { path: Vec::new(), ..entry.clone() }]).remove(0);
        shown.insert(entry.path.clone(), line);
    }
    shown
}

proptest! {
    #[test]
    fn a_layer_can_be_packed(
        origin in any_tree(),
        image in any_tree(),
        sources in prop::collection::vec(any_path(), 1..3),
        destination in any_destination(),
        is_linked in any::<bool>(),
        keeps_parents in any::<bool>(),
        exclude in prop::option::of("(\\*\\*/)?[abc*](/[abc])?"),
    ) {
        let tree_of = |lines: &[String]| tree(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let (origin, image) = (tree_of(&origin), tree_of(&image));
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        let exclude = exclude.into_iter().collect();
        let operation =
            Copy { link: is_linked, parents: keeps_parents, exclude, ..copy(&sources, &destination) };
        let selected = select(&operation, &Sources { origin: &origin, fetched: &[] });
        let Ok(copied) = done(&operation, &origin, &image) else { return Ok(()) };
        let selected = selected.unwrap();
        prop_assert_eq!(&copied.digest, selected.digest());
        let mut seen: Vec<&[u8]> = Vec::new();
        for entry in &copied.entries {
            // Clean, once, and behind what it is in.
            prop_assert!(!entry.path.split(|byte| *byte == b'/').any(|name| name == b"" || name == b"." || name == b".."));
            prop_assert!(!seen.contains(&entry.path.as_slice()));
            for directory in above(&entry.path).filter(|path| !path.is_empty()) {
                let is_directory = |other: &&Entry| other.path == directory && other.node.short() == Kind::Directory;
                prop_assert!(seen.contains(&directory), "{:?}", lines(&copied.entries));
                prop_assert!(copied.entries.iter().any(|other| is_directory(&other)));
            }
            seen.push(&entry.path);
        }
        // Copied again, nothing changes.
        if !is_linked {
            let first = applied(&image, &copied.entries);
            let mut after = PlainTree::empty();
            for (path, line) in &first {
                let path = String::from_utf8(path.clone()).unwrap();
                let one = tree(&[&format!("{path}{line}")]);
                after = after.with(path.as_bytes(), one.node(path.as_bytes()).unwrap().unwrap());
            }
            if let Ok(again) = done(&operation, &origin, &after) {
                prop_assert_eq!(applied(&after, &again.entries), first);
            }
        }
    }

    #[test]
    fn patterns_match_as_they_are_defined(pattern in "[ab*?]{0,6}", name in "[ab]{1,6}") {
        fn matches(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern.split_first(), name.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), _) => matches(rest, name) || (!name.is_empty() && matches(pattern, &name[1..])),
                (Some((b'?', rest)), Some((_, more))) => matches(rest, more),
                (Some((one, rest)), Some((other, more))) => one == other && matches(rest, more),
                _ => false,
            }
        }
        let tree = tree(&[&format!("{name}=1")]);
        if super::super::glob::has_wildcard(&pattern) {
            let found = super::super::glob::find(&tree, &pattern).unwrap();
            prop_assert_eq!(!found.is_empty(), matches(pattern.as_bytes(), name.as_bytes()));
        }
    }

    #[test]
    fn nothing_panics(source in "[ab*?!/.\\[\\]^\\\\ é-]{0,12}", exclude in "[ab*?!/.\\[\\]^\\\\#-]{0,8}", parents: bool, destination in "/[ab./]{0,8}") {
        let operation = Copy { parents, ..excluding(&[&exclude], copy(&[&source], &destination)) };
        let _ = done(&operation, &tree(&["a/b=1", "b->a", "é=2"]), &tree(&["a->b"]));
    }
}
