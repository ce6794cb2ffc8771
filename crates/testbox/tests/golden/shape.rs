//! The shape of a JSON document: a line for each path in it, with the types that were found there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::Answer;

/// Path → types, as `string` or `null|list`. The elements of a list are one path, `Mounts[]`; a field that not every
/// element has is `absent` too. What is keyed by ids has `<id>` in its path.
pub fn of(document: &Value) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    walk(&[document], "", &mut found);
    found.into_iter().map(|(path, types)| (path, types.into_iter().collect::<Vec<_>>().join("|"))).collect()
}

/// All values that were found at one path.
fn walk(values: &[&Value], path: &str, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let types = found.entry(path.to_owned()).or_default();
    types.extend(values.iter().map(|value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }));
    let elements: Vec<&Value> = values.iter().filter_map(|value| value.as_array()).flatten().collect();
    if !elements.is_empty() {
        walk(&elements, &format!("{path}[]"), found);
    }
    let objects: Vec<_> = values.iter().filter_map(|value| value.as_object()).collect();
    let mut fields: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for (name, value) in objects.iter().flat_map(|object| object.iter()) {
        fields.entry(without_ids(name)).or_default().push(value);
    }
    for (name, values) in fields {
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        walk(&values, &path, found);
        if values.len() < objects.len() {
            found.entry(path).or_default().insert("absent");
        }
    }
}

/// Ids and digests are of other containers each time.
pub fn without_ids(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for character in text.chars().chain([' ']) {
        if character.is_ascii_hexdigit() {
            word.push(character);
            continue;
        }
        let is_id = matches!(word.len(), 12 | 64) && word.bytes().any(|byte| byte.is_ascii_digit());
        out += if is_id { "<id>" } else { &word };
        word.clear();
        out.push(character);
    }
    out.pop();
    out
}

/// A line for each thing in which two answers differ.
pub fn differences(want: &Answer, got: &Answer) -> Vec<String> {
    let mut lines = Vec::new();
    for name in ["status", "type", "message"] {
        if want.get(name) != got.get(name) {
            let shown = |answer: &Answer| answer.get(name).unwrap_or(&Value::Null).to_string();
            lines.push(format!("{name}: Docker's is {}, ours {}", shown(want), shown(got)));
        }
    }
    let nothing = json!({});
    let fields = |answer: &'_ Answer| -> BTreeMap<String, String> {
        let shape = answer.get("shape").unwrap_or(&nothing).as_object().unwrap().clone();
        shape.into_iter().map(|(path, types)| (path, types.as_str().unwrap().to_owned())).collect()
    };
    let (want, got) = (fields(want), fields(got));
    for (path, types) in &want {
        match got.get(path) {
            None if is_below_another(path, &want, &got) => {}
            None => lines.push(format!("{path}: Docker's is {types}, ours absent")),
            Some(ours) if ours != types => lines.push(format!("{path}: Docker's is {types}, ours {ours}")),
            Some(_) => {}
        }
    }
    let new = got.iter().filter(|(path, _)| !want.contains_key(*path) && !is_below_another(path, &got, &want));
    lines.extend(new.map(|(path, types)| format!("{path}: Docker's is absent, ours {types}")));
    lines
}

/// What is below a path that the other has not at all is said once, of that path.
fn is_below_another(path: &str, here: &BTreeMap<String, String>, there: &BTreeMap<String, String>) -> bool {
    let ends = path.match_indices(['.', '[']).map(|(at, _)| &path[..at]);
    ends.into_iter().any(|parent| here.contains_key(parent) && !there.contains_key(parent))
}

#[test]
fn a_shape_is_paths_and_types() {
    let document = json!({
        "a": [{"x": 1, "y": null}, {"x": "s"}], "b": [], "c": {},
        "d": {"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef": true},
    });
    let want = [
        ("", "object"),
        ("a", "list"),
        ("a[]", "object"),
        ("a[].x", "number|string"),
        ("a[].y", "absent|null"),
        ("b", "list"),
        ("c", "object"),
        ("d", "object"),
        ("d.<id>", "bool"),
    ];
    assert_eq!(of(&document), want.map(|(path, types)| (path.to_owned(), types.to_owned())).into());
}

#[test]
fn differences_are_found_and_said_once() {
    let answer = |document: Value| -> Answer {
        let Value::Object(answer) = json!({"status": 200, "shape": of(&document)}) else { unreachable!() };
        answer
    };
    let want = answer(json!({"a": {"b": 1, "c": {"d": 2}}, "e": null, "f": [1]}));
    let got = answer(json!({"e": [], "f": ["1"], "g": {"h": 1}}));
    let lines = [
        "a: Docker's is object, ours absent",
        "e: Docker's is null, ours list",
        "f[]: Docker's is number, ours string",
        "g: Docker's is absent, ours object",
    ];
    assert_eq!(differences(&want, &got), lines);
    assert_eq!(differences(&want, &want), [""; 0]);
}
