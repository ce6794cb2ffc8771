//! A build cache in a directory: an OCI layout with an artifact of our own ([`dozen_build::carried`]), which its index names.

use dozen_build::carried::{Manifest, Step};
use serde_json::{Value, json};

use super::super::layout::{Choice, Layout};

pub(super) use dozen_build::carried::{ARTIFACT, CONFIG, Cache, MANIFEST, config, manifest};

/// As the engine is told a step.
pub(super) fn described(step: &Step) -> Value {
    let Step { key, layer, created, description, is_of_image: _ } = step;
    json!({ "Key": key, "Layer": layer, "Created": created, "Description": description })
}

/// Reads what a directory says. No layer is looked at.
pub(super) fn read(layout: &Layout, choice: &Choice) -> Result<Cache, String> {
    let descriptor = layout.find(choice)?;
    let manifest = Manifest::read(&layout.document(&descriptor)?)
        .map_err(|why| format!("{}: {why}", layout.blob(&descriptor.digest).display()))?;
    let config = manifest.config.clone();
    let text = layout.document(&config)?;
    manifest.cache(&text).map_err(|why| format!("{}: {why}", layout.blob(&config.digest).display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dozen_build::carried::Descriptor;
    use dozen_model::Digest;
    use serde::Deserialize;

    use super::super::super::layout::tests::put;
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_sha256([byte; 32])
    }

    fn step(key: u8, layer: Option<u8>) -> Step {
        Step {
            key: digest(key),
            layer: layer.map(digest),
            created: "2023-11-14T22:13:20Z".parse().unwrap(),
            description: "RUN make".into(),
            is_of_image: false,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let steps = [step(1, Some(7)), step(2, None)];
        let (blob, stray) = (put(at, "tar", b"layer"), step(3, Some(9)));
        let all = [steps.as_slice(), &[stray]].concat();
        let config = put(at, CONFIG, &config(&all, &[digest(7)]));
        let written = put(at, MANIFEST, &manifest(&config, std::slice::from_ref(&blob)));
        let index = |descriptor: &Descriptor| {
            std::fs::write(at.join("index.json"), json!({ "manifests": [descriptor] }).to_string()).unwrap();
        };
        index(&written);
        let (layout, latest) = (Layout::new(at), Choice::Name("latest".into()));
        let found = read(&layout, &latest).unwrap();
        // One that says what is not there is not believed.
        assert_eq!((found.steps, found.layers), (steps.to_vec(), BTreeMap::from([(digest(7), blob)])));
        let refused = |document: &[u8], words: &str| {
            index(&put(at, MANIFEST, document));
            let said = read(&layout, &latest).unwrap_err();
            assert!(said.contains(words), "{said}\nnot\n{words}");
        };
        refused(&manifest(&config, &[]), "it has 0 layers, and names 1");
        refused(b"{}", "it is no build cache of dozen's");
        refused(b"[", "EOF");
        let large = Descriptor { size: 100 << 20, ..config.clone() };
        refused(&manifest(&large, &[]), "larger than 4 MiB");
        let other = Descriptor { digest: digest(1), ..config };
        refused(&manifest(&other, &[]), "no such file");
    }

    #[test]
    fn the_engines_words_are_read() {
        let said = json!({
            "Key": digest(1), "Layer": null, "Created": "2023-11-14T22:13:20Z", "Description": "RUN make", "IsOfImage": true,
        });
        let read = Step::deserialize(&said).unwrap();
        assert_eq!(read, Step { is_of_image: true, ..step(1, None) });
        let described = described(&read);
        assert_eq!((&described["Key"], described.get("IsOfImage")), (&said["Key"], None));
    }
}
