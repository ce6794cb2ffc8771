//! What `manifest annotate` says of a manifest: for which platform it is. Pure.

use serde_json::{Map, Value, json};

use super::list::Member;

/// What is said; empty is what is not.
#[derive(Debug, Default)]
pub(super) struct Annotation<'a> {
    pub architecture: &'a str,
    pub os: &'a str,
    pub os_version: &'a str,
    pub variant: &'a str,
    /// Those are added.
    pub os_features: Vec<&'a str>,
}

/// Operating systems and the architectures that they are known for: docker's own (docker/cli, cli/command/manifest), and what
/// Go has had since (`go tool dist list`), in which images are made.
const KNOWN: [(&str, &[&str]); 11] = [
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le",
            "riscv64", "s390x",
        ],
    ),
    ("windows", &["386", "amd64", "arm", "arm64"]),
    ("darwin", &["386", "amd64", "arm", "arm64"]),
    ("freebsd", &["386", "amd64", "arm", "arm64", "riscv64"]),
    ("netbsd", &["386", "amd64", "arm", "arm64"]),
    ("openbsd", &["386", "amd64", "arm", "arm64", "ppc64", "riscv64"]),
    ("dragonfly", &["amd64"]),
    ("plan9", &["386", "amd64", "arm"]),
    ("solaris", &["amd64"]),
    ("aix", &["ppc64"]),
    ("wasip1", &["wasm"]),
];

impl Annotation<'_> {
    /// Puts it to a manifest; in docker's words why not.
    pub fn apply(&self, member: &mut Member) -> Result<(), String> {
        let mut platform = match member.descriptor.get("platform") {
            Some(Value::Object(platform)) => platform.clone(),
            _ => Map::new(),
        };
        let fields = [
            ("os", self.os),
            ("architecture", self.architecture),
            ("variant", self.variant),
            ("os.version", self.os_version),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            platform.insert(name.to_owned(), json!(value));
        }
        let mut features = platform.get("os.features").and_then(Value::as_array).cloned().unwrap_or_default();
        for feature in self.os_features.iter().map(|feature| json!(feature)) {
            if !features.contains(&feature) {
                features.push(feature);
            }
        }
        if !features.is_empty() {
            platform.insert("os.features".to_owned(), Value::Array(features));
        }
        member.descriptor.insert("platform".to_owned(), Value::Object(platform));
        let (os, architecture) = (member.platform("os"), member.platform("architecture"));
        match KNOWN.iter().any(|(known, all)| *known == os && all.contains(&architecture)) {
            true => Ok(()),
            false => Err(format!("manifest entry for image has unsupported os/arch combination: {os}/{architecture}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(platform: Value) -> Member {
        let reference = "a.example/b:1";
        serde_json::from_value(json!({ "Ref": reference, "Raw": "", "Descriptor": { "platform": platform } })).unwrap()
    }

    #[test]
    fn what_is_said_counts_and_the_rest_stays() {
        let mut one = member(json!({ "os": "linux", "architecture": "amd64", "os.features": ["a"] }));
        let says =
            Annotation { architecture: "arm64", variant: "v8", os_features: vec!["a", "b"], ..Annotation::default() };
        says.apply(&mut one).unwrap();
        let expected = json!({ "os": "linux", "architecture": "arm64", "variant": "v8", "os.features": ["a", "b"] });
        assert_eq!(one.descriptor["platform"], expected);
        let mut bare = member(Value::Null);
        Annotation { os: "windows", architecture: "amd64", os_version: "10.0.1", ..Annotation::default() }
            .apply(&mut bare)
            .unwrap();
        assert_eq!(bare.descriptor["platform"]["os.version"], "10.0.1");
    }

    #[test]
    fn platforms_that_nobody_has_are_refused() {
        for (os, architecture) in [("linux", "foo"), ("", "amd64"), ("linux", ""), ("plan10", "amd64")] {
            let mut one = member(json!({}));
            let said = Annotation { os, architecture, ..Annotation::default() }.apply(&mut one).unwrap_err();
            let words = "manifest entry for image has unsupported os/arch combination: ";
            assert_eq!(said, format!("{words}{os}/{architecture}"));
        }
    }
}
