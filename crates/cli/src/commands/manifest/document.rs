//! How manifests and lists of them are written and shown, in docker's order and with its white space.

use dozen_model::{Reference, base64};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::list::Member;
use super::{Answer, Manifest};
use crate::output::json;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// As it is in the registry, but for its white space; a list in docker's own words.
pub(super) fn plain(answer: &Answer) -> Option<String> {
    let raw = text(&answer.raw)?;
    if !answer.is_index {
        return Some(json::indent_by(&raw, "\t"));
    }
    let document: Map<String, Value> = serde_json::from_str(&raw).ok()?;
    let entries: Vec<_> = document.get("manifests")?.as_array()?.iter().map(Value::as_object).collect::<Option<_>>()?;
    Some(list(&entries).1)
}

/// What is pushed of a list that was made here, and its media type: that of what stands first in it decides, as with docker
/// (distribution, manifestlist.FromDescriptors).
pub(super) fn list(entries: &[&Map<String, Value>]) -> (&'static str, String) {
    let is_oci = entries.first().is_some_and(|entry| entry.get("mediaType").is_some_and(|kind| kind == OCI_MANIFEST));
    let kind = if is_oci { OCI_INDEX } else { DOCKER_LIST };
    let entry = |entry: &&Map<String, Value>| {
        let fields = ordered(entry, &["mediaType", "size", "digest", "urls", "annotations"]);
        let platform =
            entry.get("platform").and_then(Value::as_object).map(platform_text).unwrap_or_else(|| "{}".into());
        format!("{{{fields},\"platform\":{platform}}}")
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    let list = format!("{{\"schemaVersion\":2,\"mediaType\":\"{kind}\",\"manifests\":[{}]}}", entries.join(","));
    (kind, json::indent_by(&list, "   "))
}

/// A list that was made here, with name, descriptor and bytes of each.
pub(super) fn verbose_list(members: &[Member]) -> Option<String> {
    let one = |member: &Member| image(&member.name.to_string(), &member.descriptor, &member.raw);
    let all: Vec<String> = members.iter().map(one).collect::<Option<_>>()?;
    Some(json::indent_by(&format!("[{}]", all.join(",")), "\t"))
}

/// One manifest of such a list.
pub(super) fn member(member: &Member, is_verbose: bool) -> Option<String> {
    let text = match is_verbose {
        true => image(&member.name.to_string(), &member.descriptor, &member.raw)?,
        false => text(&member.raw)?,
    };
    Some(json::indent_by(&text, "\t"))
}

/// With name, descriptor and bytes of each.
pub(super) fn verbose(reference: &Reference, answer: &Answer) -> Option<String> {
    let text = match answer.is_index {
        true => {
            let one = |manifest: &Manifest| {
                let digest = manifest.descriptor.get("digest")?.as_str()?;
                image(&format!("{reference}@{digest}"), &manifest.descriptor, &manifest.raw)
            };
            let all: Vec<String> = answer.manifests.iter().map(one).collect::<Option<_>>()?;
            format!("[{}]", all.join(","))
        }
        false => {
            let mut descriptor = answer.descriptor.clone();
            if let Some(platform) = answer.platforms.as_ref().and_then(|all| all.first()) {
                descriptor.insert("platform".to_owned(), platform.clone());
            }
            image(&reference.to_string(), &descriptor, &answer.raw)?
        }
    };
    Some(json::indent_by(&text, "\t"))
}

/// Docker's ImageManifest.
pub(super) fn image(name: &str, descriptor: &Map<String, Value>, raw: &str) -> Option<String> {
    let fields = ordered(descriptor, &["mediaType", "digest", "size"]);
    let platform = descriptor.get("platform").and_then(Value::as_object).map(platform_text);
    let platform = platform.map(|platform| format!(",\"platform\":{platform}")).unwrap_or_default();
    let kind = if descriptor.get("mediaType")? == OCI_MANIFEST { "OCIManifest" } else { "SchemaV2Manifest" };
    let (name, document) = (Value::from(name), text(raw)?);
    // It stands there as it came: only if it is one value.
    serde_json::from_str::<IgnoredAny>(&document).ok()?;
    Some(format!(
        "{{\"Ref\":{name},\"Descriptor\":{{{fields}{platform}}},\"Raw\":{},\"{kind}\":{document}}}",
        Value::from(raw)
    ))
}

/// In Go's order of an OCI platform.
fn platform_text(platform: &Map<String, Value>) -> String {
    format!("{{{}}}", ordered(platform, &["architecture", "os", "os.version", "os.features", "variant", "features"]))
}

/// Those of the fields that are there.
fn ordered(object: &Map<String, Value>, names: &[&str]) -> String {
    let fields = names.iter().filter_map(|name| Some(format!("{}:{}", Value::from(*name), object.get(*name)?)));
    fields.collect::<Vec<_>>().join(",")
}

fn text(raw: &str) -> Option<String> {
    String::from_utf8(base64::decode(raw)?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MANIFEST: &str = r#"{"schemaVersion": 2, "layers": [], "config": {"b": "x y", "a": 1}}"#;

    fn name() -> Reference {
        "a.example/b:1".parse().unwrap()
    }

    fn answer(value: Value) -> Answer {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_image_is_shown_as_it_is_written() {
        let answer = answer(json!({
            "Descriptor": { "mediaType": OCI_MANIFEST, "digest": "sha256:aa", "size": 70 },
            "Platforms": [{ "os": "linux", "architecture": "amd64" }],
            "Raw": base64::encode(MANIFEST.as_bytes()), "IsIndex": false, "Manifests": [],
        }));
        assert_eq!(
            plain(&answer).unwrap(),
            "{\n\t\"schemaVersion\": 2,\n\t\"layers\": [],\n\t\"config\": {\n\t\t\"b\": \"x y\",\n\t\t\"a\": 1\n\t}\n}"
        );
        let shown = verbose(&name(), &answer).unwrap();
        let read: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read["Ref"], "a.example/b:1");
        assert_eq!(read["OCIManifest"]["config"]["b"], "x y");
        assert!(shown.contains("\n\t\t\"platform\": {\n\t\t\t\"architecture\": \"amd64\",\n\t\t\t\"os\""), "{shown}");
    }

    #[test]
    fn a_list_is_shown_in_dockers_words() {
        let list = json!({ "schemaVersion": 2, "manifests": [
            { "mediaType": "m", "digest": "sha256:aa", "size": 7, "platform": { "os": "linux", "architecture": "arm", "variant": "v7" } },
        ] });
        let answer = answer(json!({
            "Descriptor": { "mediaType": DOCKER_LIST, "digest": "sha256:bb", "size": 70 }, "Platforms": null,
            "Raw": base64::encode(list.to_string().as_bytes()), "IsIndex": true,
            "Manifests": [{
                "Descriptor": { "mediaType": "m", "digest": "sha256:aa", "size": 7, "platform": { "os": "linux" } },
                "Raw": base64::encode(MANIFEST.as_bytes()),
            }],
        }));
        assert_eq!(
            plain(&answer).unwrap(),
            "{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.list.v2+json\",\n   \
             \"manifests\": [\n      {\n         \"mediaType\": \"m\",\n         \"size\": 7,\n         \"digest\": \"sha256:aa\",\n         \
             \"platform\": {\n            \"architecture\": \"arm\",\n            \"os\": \"linux\",\n            \"variant\": \"v7\"\n         \
             }\n      }\n   ]\n}"
        );
        let shown: Value = serde_json::from_str(&verbose(&name(), &answer).unwrap()).unwrap();
        assert_eq!(shown[0]["Ref"], "a.example/b:1@sha256:aa");
        assert_eq!(shown[0]["SchemaV2Manifest"]["schemaVersion"], 2);
    }

    #[test]
    fn what_is_no_document_is_not_shown_as_one() {
        let answer = answer(json!({
            "Descriptor": { "mediaType": "m" }, "Platforms": null, "Raw": base64::encode(b"{},\"x\":{}"), "IsIndex": false,
            "Manifests": [],
        }));
        assert_eq!(verbose(&name(), &answer), None);
    }
}
