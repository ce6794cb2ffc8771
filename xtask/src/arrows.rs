//! The direction of the arrows between crates: a crate may use only those that stand before it in [`ORDER`].

use std::path::Path;

use serde_json::Value;

use crate::failure::{Attempt, Failure};
use crate::steps;

/// From the bottom up. ARCHITECTURE.md says what each is for.
const ORDER: &[&str] = &[
    "dozen-failpoint",
    "dozen-accept",
    "dozen-gzip",
    "dozen-model",
    "dozen-dockerfile",
    "dozen-trust",
    "dozen-settings",
    "dozen-tls",
    "dozen-ledger",
    "dozen-distribution",
    "dozen-runtime",
    "dozen-monitor",
    "dozen-image",
    "dozen-build",
    "dozen-network",
    "dozen-names",
    "dozen-lookup",
    "dozen-fetch",
    "dozen-bucket",
    "dozen-registry",
    "dozen-keeper",
    "dozen-engine",
    "dozen-api",
    "dozen-cli",
    "dozen",
];

/// Arrows that point down and are unwanted all the same, with the reason.
const FORBIDDEN: [(&str, &str, &str); 4] = [
    ("dozen-runtime", "dozen-ledger", "the runtime is an OCI runtime: it knows no engine's state"),
    ("dozen-network", "dozen-ledger", "the network is told what to do; the engine remembers"),
    ("dozen-cli", "dozen-engine", "the CLI reaches the engine only through the API"),
    ("dozen-cli", "dozen-api", "the CLI speaks HTTP; it must work with an engine of another build"),
];

/// Stand outside the product: tools and tests. No crate of the product may use them.
const APART: [&str; 2] = ["xtask", "dozen-testbox"];

/// Looks at the workspace as cargo sees it.
pub fn check() -> Result<(), Failure> {
    let answer = steps::capture(steps::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&answer).attempting("read cargo's metadata")?;
    let mut problems = wrong_arrows(&metadata);
    for package in metadata["packages"].as_array().into_iter().flatten() {
        problems.extend(missing_paragraphs(package));
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::new(problems.join("\n    "))) }
}

fn wrong_arrows(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let ours: Vec<&str> = packages().filter_map(|package| package["name"].as_str()).collect();
    let place = |name: &str| ORDER.iter().position(|other| *other == name);
    for package in packages() {
        let name = package["name"].as_str().unwrap_or_default();
        if place(name).is_none() && !APART.contains(&name) {
            problems.push(format!("{name} has no place in the order of crates (xtask/src/arrows.rs, ARCHITECTURE.md)"));
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            if !ours.contains(&used) || used == name {
                continue;
            }
            if APART.contains(&used) && !for_tests && !APART.contains(&name) {
                problems.push(format!("{name} uses {used}, which is there for tests only"));
            }
            if let (Some(from), Some(to)) = (place(name), place(used))
                && to >= from
            {
                problems.push(format!("{name} uses {used}, which stands above it"));
            }
            let reason = FORBIDDEN.iter().find(|(from, to, _)| (*from, *to) == (name, used) && !for_tests);
            problems.extend(reason.map(|(_, _, why)| format!("{name} must not use {used}: {why}")));
        }
    }
    problems
}

/// The root files of a package's library and binaries that do not open with a paragraph.
fn missing_paragraphs(package: &Value) -> Vec<String> {
    let targets = package["targets"].as_array().into_iter().flatten();
    targets
        .filter(|target| {
            let kinds = target["kind"].as_array().into_iter().flatten();
            kinds.filter_map(Value::as_str).any(|kind| ["lib", "bin"].contains(&kind))
        })
        .filter_map(|target| target["src_path"].as_str())
        .filter(|path| !std::fs::read_to_string(path).is_ok_and(|text| opens_with_a_paragraph(&text)))
        .map(|path| {
            let shown = Path::new(path).strip_prefix(steps::workspace_root()).unwrap_or(Path::new(path));
            format!("{} does not open with a paragraph (//!) that says what the crate is for", shown.display())
        })
        .collect()
}

/// Whole sentences before anything else: at least forty characters, ending in a full stop or a colon.
fn opens_with_a_paragraph(text: &str) -> bool {
    let lines =
        text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).take_while(|line| !line.is_empty());
    let paragraph = lines.collect::<Vec<_>>().join(" ");
    paragraph.len() >= 40 && paragraph.ends_with(['.', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_workspace_keeps_its_arrows() {
        check().unwrap();
    }

    #[test]
    fn an_arrow_that_points_up_is_found() {
        let metadata = json!({ "packages": [
            { "name": "dozen-model", "dependencies": [{ "name": "dozen-engine", "kind": null }] },
            { "name": "dozen-engine", "dependencies": [
                { "name": "dozen-model", "kind": null }, { "name": "dozen-testbox", "kind": "dev" }] },
            { "name": "dozen-cli", "dependencies": [
                { "name": "dozen-engine", "kind": null }, { "name": "dozen-testbox", "kind": null }] },
            { "name": "dozen-testbox", "dependencies": [] },
            { "name": "dozen-new", "dependencies": [] },
        ] });
        let problems = wrong_arrows(&metadata).join("\n");
        let expected = [
            "dozen-model uses dozen-engine, which stands above it",
            "dozen-cli must not use dozen-engine: the CLI reaches",
            "dozen-cli uses dozen-testbox, which is there for tests only",
            "dozen-new has no place in the order",
        ];
        for words in expected {
            assert!(problems.contains(words), "{words}\nin\n{problems}");
        }
        assert_eq!(problems.lines().count(), expected.len(), "{problems}");
    }

    #[test]
    fn a_paragraph_is_more_than_a_word() {
        assert!(opens_with_a_paragraph("//! The nouns that every other crate speaks: ids,\n//! digests.\n"));
        assert!(!opens_with_a_paragraph("//! placeholder\n"));
        assert!(!opens_with_a_paragraph("fn main() {}\n"));
    }
}
