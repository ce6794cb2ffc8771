use dozen_model::Digest;

use super::*;
use crate::bundle::tests::{FOREIGN, signed as bundle_of, statement};
use crate::{Attached, Found, PrivateKey, payload};

const KEY: &str = include_str!("../../tests/keys/p256.pub");

fn read(text: &str) -> Result<Policy, String> {
    let key = |path: &Path| match path.to_str() {
        Some("/keys/good.pub") => Ok(KEY.to_owned()),
        Some("/keys/bad.pub") => Ok("no key".to_owned()),
        _ => Err("No such file or directory".to_owned()),
    };
    Policy::read(text, &key).map_err(|error| error.to_string())
}

fn rule(policy: &Policy, name: &str) -> (String, Needs) {
    let rule = policy.rule_for(&name.parse().unwrap());
    (rule.scope().to_owned(), rule.needs())
}

const EVERYTHING: &str = r#"{
    "default": [{"type": "reject"}],
    "transports": {
        "docker": {
            "": [{"type": "insecureAcceptAnything"}],
            "registry.example": [{"type": "sigstoreSigned", "keyPath": "/keys/good.pub"}],
            "registry.example/open": [{"type": "insecureAcceptAnything"}],
            "registry.example/open/closed:1": [{"type": "reject"}],
            "*.team.example": [{"type": "reject"}]
        },
        "docker-daemon": {"": [{"type": "insecureAcceptAnything"}]}
    }
}"#;

#[test]
fn the_most_specific_scope_wins() {
    use Needs::{Nothing, Signatures};
    let policy = read(EVERYTHING).unwrap();
    for (name, scope, needs) in [
        ("registry.example/a:1", "registry.example", Signatures),
        ("registry.example/open:1", "registry.example/open", Nothing),
        ("registry.example/open/b:1", "registry.example/open", Nothing),
        ("registry.example/opened:1", "registry.example", Signatures),
        ("registry.example/open/closed:1", "registry.example/open/closed:1", Signatures),
        ("registry.example/open/closed:2", "registry.example/open", Nothing),
        ("registry.example:5000/a:1", "all registries", Nothing),
        ("a.team.example:5000/a:1", "*.team.example", Signatures),
        ("team.example/a:1", "all registries", Nothing),
        ("debian:12", "all registries", Nothing),
    ] {
        assert_eq!(rule(&policy, name), (scope.to_owned(), needs), "{name}");
    }
    let closed = read(r#"{"default": [{"type": "reject"}]}"#).unwrap();
    assert_eq!(rule(&closed, "debian:12"), ("default".to_owned(), Signatures));
    // Debian's own /etc/containers/policy.json.
    let debian = r#"{"default":[{"type":"insecureAcceptAnything"}],
        "transports":{"docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}"#;
    assert_eq!(rule(&read(debian).unwrap(), "debian:12"), ("default".to_owned(), Nothing));
}

#[test]
fn what_is_wrong_is_named_by_its_line() {
    let of = |requirement: &str| {
        format!(
            "{{\n\"default\": [{{\"type\":\"reject\"}}],\n\"transports\": {{\"docker\": {{\"r.example\": [\n{requirement}\n]}}}}}}"
        )
    };
    let signed = |more: &str| of(&format!(r#"{{"type":"sigstoreSigned",{more}}}"#));
    let identity = |identity: &str| signed(&format!(r#""keyPath":"/keys/good.pub","signedIdentity":{identity}"#));
    for (text, words) in [
        ("[]".to_owned(), "invalid length 0"),
        ("{}".to_owned(), "missing field `default`"),
        (r#"{"default":[]}"#.to_owned(), "a list of requirements must not be empty at line 1"),
        (r#"{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}"#.to_owned(), "duplicate field"),
        (r#"{"default":[{"type":"reject"}],"more":1}"#.to_owned(), "unknown field `more`"),
        (
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.b":[{"type":"reject"}],"a.b":[{"type":"insecureAcceptAnything"}]}}}"#.to_owned(),
            "\"a.b\" is there twice",
        ),
        (
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"debian":[{"type":"reject"}]}}}"#.to_owned(),
            "no image is of the scope \"debian\": it begins with the registry's host",
        ),
        (
            r#"{"default":[{"type":"reject"}],"transports":{"oci":{"":[{"type":"reject"}]}}}"#.to_owned(),
            "rules for the transport oci are not built",
        ),
        (
            r#"{"default":[{"type":"reject"}],"transports":{"dokcer":{"":[{"type":"reject"}]}}}"#.to_owned(),
            "there is no transport \"dokcer\"",
        ),
        (of(r#"{"type":"rejcet"}"#), "there is no type \"rejcet\" of requirements: insecureAcceptAnything, reject, sigstoreSigned at line 4"),
        (of(r#"{"type":"reject","keyPath":"/a"}"#), "reject has nothing but its type at line 4"),
        (of(r#"{"type":"reject","type":"reject"}"#), "duplicate field `type` at line 4"),
        (of(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a"}"#), "signedBy is not built: signatures by GPG are not looked at"),
        (of(r#"{"type":"sigstoreSigned"}"#), "has one of keyPath, keyPaths, keyData and keyDatas"),
        (signed(r#""keyPath":"/a","keyData":"AA==""#), "has one of keyPath"),
        (signed(r#""keyPaths":[]"#), "a list of keys must not be empty"),
        (signed(r#""keyPath":"a.pub""#), "the path of a key has to be absolute: \"a.pub\""),
        (signed(r#""keyPath":"/nowhere""#), "the rule for r.example: the key /nowhere: No such file"),
        (signed(r#""keyPath":"/keys/bad.pub""#), "the rule for r.example: the key /keys/bad.pub: it is no PEM"),
        (signed(r#""keyData":"bm9uZQ==""#), "the rule for r.example: a key's keyData: it is no PEM"),
        (signed(r#""keyData":"-""#), "keyData is PEM as base 64, and this is not at line 4"),
        (signed(r#""keyPath":"/keys/good.pub","keyType":"x""#), "keyType is signedBy's"),
        (signed(r#""fulcio":{}"#), "fulcio is not built: sigstoreSigned by keys is"),
        (signed(r#""pki":{}"#), "pki is not built"),
        (signed(r#""keyPath":"/keys/good.pub","rekorPublicKeyPath":"/a""#), "rekorPublicKeyPath is not built"),
        (
            signed(r#""keyPath":"/keys/good.pub","sigstoreBundles":"yes""#),
            "sigstoreBundles is \"acceptWithoutIdentity\", or is not there: \"yes\" is unknown at line 4",
        ),
        (signed(r#""keyPath":"/keys/good.pub","sigstoreBundles":true"#), "invalid type: boolean `true`, expected a string"),
        (of(r#"{"type":"insecureAcceptAnything","sigstoreBundles":"acceptWithoutIdentity"}"#), "has nothing but its type"),
        (identity(r#"{"type":"matchAny"}"#), "there is no type \"matchAny\" of signedIdentity"),
        (identity(r#"{"type":"matchExact","prefix":"a"}"#), "matchExact has nothing but its type"),
        (identity(r#"{"type":"exactReference"}"#), "exactReference has a dockerReference"),
        (identity(r#"{"type":"exactReference","dockerReference":"r.example/a"}"#), "has neither tag nor digest"),
        (identity(r#"{"type":"exactRepository","dockerRepository":"A B"}"#), "\"A B\" is no image's name"),
        (identity(r#"{"type":"remapIdentity","prefix":"r.example/","signedPrefix":"s.example"}"#), "\"r.example/\" is neither a host"),
        (identity(r#"{"type":"matchExact","type":"matchExact"}"#), "duplicate field `type`"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

struct Case {
    policy: String,
    name: &'static str,
    attached: Vec<Attached>,
}

fn judged(case: &Case) -> String {
    let policy = read(&case.policy).unwrap();
    let name: Reference = case.name.parse().unwrap();
    match policy.rule_for(&name).judge(&name, &digest('a'), &case.attached) {
        Ok(()) => "comes".to_owned(),
        Err(rejected) => rejected.to_string(),
    }
}

fn digest(letter: char) -> Digest {
    format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
}

#[test]
fn one_good_signature_is_enough_and_nothing_less() {
    let own = PrivateKey::read(include_str!("../../tests/keys/p256.key"), b"").unwrap();
    let (stranger, _) = PrivateKey::generate(b"").unwrap();
    let signed = |key: &PrivateKey, name: &str, letter: char| {
        let payload = payload(&name.parse().unwrap(), &digest(letter));
        Attached::Signature { signature: key.sign(&payload).unwrap(), payload }
    };
    let (name, other) = ("r.example/a:1", "r.example/b:1");
    let garbage = Attached::Signature { payload: b"{}".to_vec(), signature: own.sign(b"{}").unwrap() };
    let of = |requirements: &str| format!(r#"{{"default":[{requirements}]}}"#);
    let key = r#"{"type":"sigstoreSigned","keyPaths":["/keys/good.pub"]}"#;
    let none = "A signature was required, but no signature exists";
    for (requirements, attached, words) in [
        (key.to_owned(), vec![], none),
        (key.to_owned(), vec![signed(&own, name, 'a')], "comes"),
        (key.to_owned(), vec![signed(&stranger, name, 'a')], "it is of none of the rule's keys"),
        (key.to_owned(), vec![signed(&own, name, 'b')], "another image"),
        (
            key.to_owned(),
            vec![signed(&own, other, 'a')],
            "Signature for identity r.example/b:1 is not accepted: wanted is r.example/a:1",
        ),
        (key.to_owned(), vec![garbage.clone()], "its payload is malformed"),
        (key.to_owned(), vec![Attached::Unusable("it is large".into())], "reasons: it is large"),
        (key.to_owned(), vec![garbage, signed(&stranger, name, 'a'), signed(&own, name, 'a')], "comes"),
        (format!(r#"{key},{{"type":"insecureAcceptAnything"}}"#), vec![signed(&own, name, 'a')], "comes"),
        // All requirements have to be met.
        (format!(r#"{{"type":"insecureAcceptAnything"}},{key}"#), vec![], none),
        (format!(r#"{key},{{"type":"reject"}}"#), vec![signed(&own, name, 'a')], "nothing may come from there"),
    ] {
        let said = judged(&Case { policy: of(&requirements), name, attached });
        assert!(said.contains(words), "{requirements}: {said}");
        let head = "Source image rejected: the rule for default of the signature policy (";
        assert!(said == "comes" || said.starts_with(head), "{said}");
    }
    let many = (0..9).map(|number| Attached::Unusable(format!("no {number}"))).collect();
    let said = judged(&Case { policy: of(key), name, attached: many });
    assert!(said.ends_with("reasons: no 0; no 1; no 2 (and 6 others)"), "{said}");
}

/// No name is in a bundle: it counts where the rule says so, beside a name, and nowhere else.
#[test]
fn a_bundle_counts_where_a_rule_takes_it() {
    let own = PrivateKey::read(include_str!("../../tests/keys/p256.key"), b"").unwrap();
    let (stranger, _) = PrivateKey::generate(b"").unwrap();
    let by = |key: &PrivateKey, letter: char| Attached::Bundle(bundle_of(key, &statement(&digest(letter))));
    let provenance = |letter: char| {
        let mut statement = statement(&digest(letter));
        statement["predicateType"] = "https://slsa.dev/provenance/v1".into();
        Attached::Bundle(bundle_of(&own, &statement))
    };
    let named = |name: &str| {
        let payload = payload(&name.parse().unwrap(), &digest('a'));
        Attached::Signature { signature: own.sign(&payload).unwrap(), payload }
    };
    let foreign = Attached::Bundle(FOREIGN.as_bytes().to_vec());
    let key = r#"{"type":"sigstoreSigned","keyPaths":["/keys/good.pub"]}"#;
    let open = r#"{"type":"sigstoreSigned","keyPaths":["/keys/good.pub"],"sigstoreBundles":"acceptWithoutIdentity"}"#;
    let anywhere = key.replace("]}", r#"],"signedIdentity":{"type":"matchRepository"}}"#);
    let closed = "a bundle names no repository, and the rule takes none";
    for (requirements, attached, words) in [
        (key.to_owned(), vec![by(&own, 'a')], closed),
        (anywhere, vec![by(&own, 'a')], closed),
        (open.to_owned(), vec![], "no signature exists"),
        (open.to_owned(), vec![by(&own, 'a')], "comes"),
        (open.to_owned(), vec![foreign.clone()], "comes"),
        (open.to_owned(), vec![by(&stranger, 'a')], "it is of none of the rule's keys"),
        (open.to_owned(), vec![by(&own, 'b')], "it is for sha256:bbb"),
        (open.to_owned(), vec![provenance('a')], "states \"https://slsa.dev/provenance/v1\", which is no signature"),
        (open.to_owned(), vec![provenance('a'), by(&stranger, 'a'), by(&own, 'a')], "comes"),
        // What has a name is judged by it, there too.
        (open.to_owned(), vec![named("r.example/b:1")], "Signature for identity r.example/b:1 is not accepted"),
        (open.to_owned(), vec![named("r.example/a:1")], "comes"),
        // All requirements have to be met, each by what it takes.
        (format!("{open},{key}"), vec![foreign.clone()], closed),
        (format!("{open},{key}"), vec![foreign, named("r.example/a:1")], "comes"),
    ] {
        let said =
            judged(&Case { policy: format!(r#"{{"default":[{requirements}]}}"#), name: "r.example/a:1", attached });
        assert!(said.contains(words), "{requirements}: {said}");
    }
    let policy = read(&format!(r#"{{"default":[{key}]}}"#)).unwrap();
    let name: Reference = "r.example/a:1".parse().unwrap();
    let rejected = policy.rule_for(&name).judge(&name, &digest('a'), &[]).unwrap_err();
    assert!(!policy.rule_for(&name).accepts_bundles() && rejected.found == Found::Nothing);
    let told = rejected.beside_bundles();
    assert_eq!(told.found, Found::Bundles);
    assert!(
        told.why.starts_with("A signature was required, but no signature exists; there is a bundle"),
        "{}",
        told.why
    );
}
