//! What is said of an image, with the image that it is said of (in-toto attestation, "Statement"), as BuildKit writes it.

use dozen_model::Digest;
use serde_json::{Value, json};

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v0.1";
/// Of an image without a name.
const NAMELESS: &str = "_";

/// The document. `names` are those of the image, as addresses, and `manifest` is its manifest's digest.
pub fn statement(predicate_type: &str, predicate: &Value, names: &[String], manifest: &Digest) -> Vec<u8> {
    let subject = |name: &str| json!({ "name": name, "digest": { manifest.algorithm(): manifest.hex() } });
    let subjects: Vec<Value> = match names {
        [] => vec![subject(NAMELESS)],
        names => names.iter().map(|name| subject(name)).collect(),
    };
    let whole = json!({
        "_type": STATEMENT_TYPE,
        "predicateType": predicate_type,
        "subject": subjects,
        "predicate": predicate,
    });
    serde_json::to_vec(&whole).expect("a JSON value serializes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_about_every_name() {
        let said = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let bytes = statement("type", &json!({ "a": 1 }), &names, &Digest::from_sha256([7; 32]));
            serde_json::from_slice::<Value>(&bytes).unwrap()
        };
        let of_two = said(&["a", "b"]);
        assert_eq!(of_two["subject"][1], json!({ "name": "b", "digest": { "sha256": "07".repeat(32) } }));
        assert_eq!((&of_two["predicateType"], &of_two["predicate"]["a"]), (&json!("type"), &json!(1)));
        assert_eq!(said(&[])["subject"][0]["name"], "_");
    }
}
