//! Two images beside each other: pure. What an engine is free in is no difference: times of what a build makes itself, the
//! words of another engine's history, fields that say nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::image::{Image, Kind, Node};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of what: `config.Env`, `history`, a path and a word for what of it.
    pub aspect: String,
    pub theirs: String,
    pub ours: String,
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// The history too, word for word.
    pub with_history: bool,
    /// Files that are as young have the time of the build; seconds.
    pub began_s: u64,
}

/// All of them.
pub fn between(theirs: &Image, ours: &Image, measure: Measure) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut note = |aspect: &str, theirs: String, ours: String| {
        if theirs != ours {
            found.push(Difference { aspect: aspect.to_owned(), theirs, ours });
        }
    };
    let documents = [&theirs.configuration, &ours.configuration];
    for key in ["architecture", "os", "variant", "author"] {
        let [theirs, ours] = documents.map(|document| document[key].as_str().unwrap_or_default().to_owned());
        note(key, theirs, ours);
    }
    let [said, own] = documents.map(|document| meaning(&document["config"]));
    for key in said.keys().chain(own.keys()).collect::<BTreeSet<_>>() {
        let [theirs, ours] = [&said, &own].map(|fields| fields.get(key).map(ToString::to_string).unwrap_or_default());
        note(&format!("config.{key}"), theirs, ours);
    }
    if measure.with_history {
        let [said, own] = [theirs, ours].map(history);
        note("history", said.len().to_string(), own.len().to_string());
        for (number, (theirs, ours)) in said.into_iter().zip(own).enumerate() {
            note(&format!("history {number}"), theirs, ours);
        }
    }
    let [their_links, our_links] = [theirs, ours].map(|image| hard_links(&image.tree));
    for path in theirs.tree.keys().chain(ours.tree.keys()).collect::<BTreeSet<_>>() {
        if is_left_out(path, theirs.tree.get(path), ours.tree.get(path)) {
            continue;
        }
        match (theirs.tree.get(path), ours.tree.get(path)) {
            (Some(theirs), Some(ours)) => {
                let links = [&their_links, &our_links].map(|links| links.get(path).cloned().unwrap_or_default());
                let [their_links, our_links] = links;
                note(&format!("/{path}: hard links"), their_links, our_links);
                // Who puts something into a directory, or takes it out, touches it; layers of ours leave its time alone.
                let is_touched = theirs.kind == Kind::Directory && theirs.modified_s >= measure.began_s;
                for ((word, theirs), (_, ours)) in facts(theirs, measure).into_iter().zip(facts(ours, measure)) {
                    if word == "time" && is_touched {
                        continue;
                    }
                    note(&format!("/{path}: {word}"), theirs, ours);
                }
            }
            (theirs, ours) => {
                let [theirs, ours] = [theirs, ours].map(|node| node.map_or_else(|| "absent".to_owned(), kind));
                note(&format!("/{path}"), theirs, ours);
            }
        }
    }
    found
}

/// The root itself is in no layer of some engines. A RUN of docker's leaves /dev, where it has mounted something.
fn is_left_out(path: &str, theirs: Option<&Node>, ours: Option<&Node>) -> bool {
    path.is_empty() || path == "dev" && ours.is_none() && theirs.is_some_and(|node| node.kind == Kind::Directory)
}

/// Fields that say something. The list is longer than what images have: these are a container's, which BuildKit leaves out
/// and docker fills in.
fn meaning(config: &Value) -> Map<String, Value> {
    let is_said = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    };
    let fields = config.as_object().cloned().unwrap_or_default();
    fields.into_iter().filter(|(_, value)| is_said(value)).collect()
}

/// Its entries, and whether each has changed the files: an engine may leave out a layer without a change or keep it.
fn history(image: &Image) -> Vec<String> {
    let mut layers = image.layers.iter();
    let mut entry = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let has_changed = entry["empty_layer"] != true && layers.next().copied().unwrap_or_default();
        let changes = if has_changed { "files" } else { "no files" };
        format!("{} [{changes}; {}; {}]", words(text("created_by")), text("comment"), text("author"))
    };
    image.configuration["history"].as_array().into_iter().flatten().map(&mut entry).collect()
}

/// An ARG's value stands there with newer BuildKits only.
fn words(created_by: &str) -> String {
    match created_by.strip_prefix("ARG ") {
        Some(arguments) => {
            let names = arguments.split_whitespace().map(|word| word.split_once('=').map_or(word, |(name, _)| name));
            format!("ARG {}", names.collect::<Vec<_>>().join(" "))
        }
        None => created_by.to_owned(),
    }
}

/// Of each path that is not alone, the first of its file.
fn hard_links(tree: &BTreeMap<String, Node>) -> BTreeMap<String, String> {
    let mut paths: BTreeMap<usize, Vec<&String>> = BTreeMap::new();
    for (path, node) in tree {
        paths.entry(node.inode).or_default().push(path);
    }
    let groups = paths.into_values().filter(|paths| paths.len() > 1);
    groups.flat_map(|paths| paths.iter().map(|path| ((*path).clone(), paths[0].clone())).collect::<Vec<_>>()).collect()
}

fn kind(node: &Node) -> String {
    match &node.kind {
        Kind::File { size, .. } => format!("a file of {size} bytes"),
        Kind::Directory => "a directory".to_owned(),
        Kind::Link(target) => format!("a link to {target}"),
        Kind::Pipe => "a pipe".to_owned(),
        Kind::Device { is_block, number: (major, minor) } => {
            format!("a {} device {major}:{minor}", if *is_block { "block" } else { "character" })
        }
    }
}

fn facts(node: &Node, measure: Measure) -> [(&'static str, String); 6] {
    let content = if let Kind::File { content, .. } = &node.kind { format!("{content:?}") } else { String::new() };
    let time = if node.modified_s >= measure.began_s { "of the build".to_owned() } else { node.modified_s.to_string() };
    [
        ("kind", kind(node)),
        ("content", content),
        ("mode", format!("{:04o}", node.mode)),
        ("owner", format!("{}:{}", node.user, node.group)),
        ("capabilities", node.capabilities.clone()),
        ("time", time),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named() {
        let theirs = Image {
            configuration: json!({
                "architecture": "amd64",
                "config": { "Env": ["A=1"], "Cmd": null, "Labels": {}, "Tty": false },
                "history": [{ "created_by": "COPY a", "comment": "c" }, { "created_by": "ENV A=1", "empty_layer": true }],
            }),
            layers: vec![true],
            ..Image::default()
        };
        let ours = Image {
            configuration: json!({
                "architecture": "amd64",
                "config": { "Env": ["A=2"], "User": "1" },
                "history": [{ "created_by": "COPY a", "comment": "c" }],
            }),
            layers: vec![true],
            ..Image::default()
        };
        let measure = Measure { with_history: true, began_s: 100 };
        let found = between(&theirs, &ours, measure);
        let names: Vec<&str> = found.iter().map(|difference| difference.aspect.as_str()).collect();
        assert_eq!(names, ["config.Env", "config.User", "history"]);
        assert_eq!((found[0].theirs.as_str(), found[0].ours.as_str()), (r#"["A=1"]"#, r#"["A=2"]"#));
        assert_eq!(between(&theirs, &ours, Measure { with_history: false, ..measure }).len(), 2);
        assert_eq!(between(&theirs, &theirs, measure), []);
    }
}
