use std::io::Read;

use dozen_dockerfile::FileMode;
use proptest::prelude::*;

use super::*;
use crate::operation::{Add, Origin, Source};
use crate::tree::{NodeKind, PlainTree};

mod destinations;
mod matching;
mod properties;
mod unpacking;

pub(crate) use unpacking::compressed;

/// A tree of lines: `path/`, `path=content`, `path->target`, `path|` for a pipe; then a mode and `uid:gid`, if they are
/// not what root has.
fn tree(lines: &[&str]) -> PlainTree {
    lines.iter().fold(PlainTree::empty(), |tree, line| {
        let mut words = line.split(' ');
        let what = words.next().unwrap();
        let (path, kind, mode) = if let Some(path) = what.strip_suffix('/') {
            (path, NodeKind::Directory, 0o755)
        } else if let Some((path, target)) = what.split_once("->") {
            (path, NodeKind::Link(target.into()), 0o777)
        } else if let Some(path) = what.strip_suffix('|') {
            (path, NodeKind::Pipe, 0o600)
        } else {
            let (path, content) = what.split_once('=').unwrap();
            (path, NodeKind::file(content.as_bytes()), 0o644)
        };
        let mut node = Node { kind, mode, ..Node::directory((7, 0)) };
        for word in words {
            match word.split_once(':') {
                Some((uid, gid)) => (node.uid, node.gid) = (uid.parse().unwrap(), gid.parse().unwrap()),
                None => node.mode = u32::from_str_radix(word, 8).unwrap(),
            }
        }
        tree.with(path.as_bytes(), node)
    })
}

/// The same lines again; a hard link is `path=>first`.
fn lines(entries: &[Entry]) -> Vec<String> {
    let line = |Entry { path, node, hard_link }: &Entry| {
        let path = String::from_utf8_lossy(path);
        if let Some(first) = hard_link {
            return format!("{path}=>{}", String::from_utf8_lossy(first));
        }
        let (what, mode) = match &node.kind {
            NodeKind::Directory => ("/".to_owned(), 0o755),
            NodeKind::File { content, .. } => {
                let mut text = String::new();
                content.open().unwrap().read_to_string(&mut text).unwrap();
                (format!("={text}"), 0o644)
            }
            NodeKind::Link(target) => (format!("->{}", String::from_utf8_lossy(target)), node.mode),
            NodeKind::Pipe => ("|".to_owned(), 0o600),
            device => (format!("{device:?}"), 0o600),
        };
        let mode = if node.mode == mode { String::new() } else { format!(" {:o}", node.mode) };
        let owner = if (node.uid, node.gid) == (0, 0) { String::new() } else { format!(" {}:{}", node.uid, node.gid) };
        format!("{path}{what}{mode}{owner}")
    };
    entries.iter().map(line).collect()
}

/// `COPY SOURCES DESTINATION`.
fn copy(sources: &[&str], destination: &str) -> Copy {
    Copy {
        origin: Origin::Context,
        sources: sources.iter().map(|source| Source::Path((*source).to_owned())).collect(),
        destination: destination.to_owned(),
        owner: None,
        mode: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        add: None,
    }
}

fn parents(sources: &[&str], destination: &str) -> Copy {
    Copy { parents: true, ..copy(sources, destination) }
}

fn excluding(patterns: &[&str], operation: Copy) -> Copy {
    Copy { exclude: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(), ..operation }
}

fn done(operation: &Copy, origin: &dyn Tree, destination: &dyn Tree) -> Result<Copied, CopyError> {
    let owner = operation.owner.as_ref().map(|owner| super::owner::resolve(owner, b"web:x:33:34::/:", b"").unwrap());
    let spool = || tempfile::tempfile();
    let placing = Placing { destination, owner, made_at: (1000, 0), spool: &spool };
    plan(operation, &Sources { origin, fetched: &[] }, &placing)
}

#[track_caller]
fn check(operation: &Copy, origin: &[&str], destination: &[&str], expected: &[&str]) {
    match done(operation, &tree(origin), &tree(destination)) {
        Ok(copied) => assert_eq!(lines(&copied.entries), expected, "{operation:?}"),
        Err(error) => panic!("{operation:?}: {error}"),
    }
}

#[track_caller]
fn check_error(operation: &Copy, origin: &[&str], destination: &[&str], expected: &str) {
    match done(operation, &tree(origin), &tree(destination)) {
        Ok(copied) => panic!("{operation:?}: {:?}", lines(&copied.entries)),
        Err(error) => assert_eq!(error.to_string(), expected, "{operation:?}"),
    }
}
