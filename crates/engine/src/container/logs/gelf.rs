//! What Graylog is told of a container with every message: Docker's additional fields (its `daemon/logger/gelf`).

use std::collections::BTreeMap;

use dozen_model::{ContainerId, ContainerName, ContainerSpec};
use jiff::Timestamp;

/// By their names, each of which begins with `_`. What the user asked for goes before Docker's own of the same name, but for
/// `_id`, which is the server's.
pub(super) fn additional_fields(
    id: &ContainerId,
    name: &ContainerName,
    created: Timestamp,
    spec: &ContainerSpec,
    tag: &str,
    asked: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let command: Vec<&str> = spec.process.arguments().map(String::as_str).collect();
    let own = [
        ("container_id", id.to_string()),
        ("container_name", name.to_string()),
        ("image_id", spec.image.to_string()),
        ("image_name", spec.image_name.clone()),
        ("command", command.join(" ")),
        ("tag", tag.to_owned()),
        ("created", created.to_string()),
    ];
    let own = own.map(|(name, value)| (field_name(name), value));
    let asked = asked.iter().map(|(name, value)| (field_name(name), value.clone()));
    own.into_iter().chain(asked).filter(|(name, _)| name != "_id").collect()
}

/// `^[\w\.\-]*$` after the `_` (GELF 1.1): what is nothing of that is `_`.
fn field_name(name: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "_.-".contains(letter) { letter } else { '_' };
    let prefix = if name.starts_with('_') { "" } else { "_" };
    prefix.chars().chain(name.chars().map(plain)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_servers_take() {
        for (name, want) in [
            ("com.example.team-x", "_com.example.team-x"),
            ("_own", "_own"),
            ("a/b c", "_a_b_c"),
            ("ü", "__"),
            ("", "_"),
        ] {
            assert_eq!(field_name(name), want);
        }
    }
}
