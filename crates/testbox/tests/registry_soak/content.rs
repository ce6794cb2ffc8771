//! What is pushed: blobs and manifests, the same for each seed, which everyone knows by their numbers.

use dozen_testbox::Random;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use crate::model::Shape;

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Two that every client pushes to; two with names of several parts; one of them has rules of retention.
pub const REPOSITORIES: [&str; 4] = ["one", "team/two", "team/deep/three", "passing/four"];
/// Rules count from this one on.
pub const FIRST_PASSING: usize = 3;
pub const TAGS: [&str; 5] = ["keep", "keep-2", "latest", "v1", "v2"];
/// Of those, they that rules keep.
pub const KEPT_TAGS: usize = 2;

/// The first blobs have one byte, and none.
const SHORTEST: [usize; 2] = [1, 0];
/// Lengths of the others: what goes out with its head, what needs several writes.
const SIZES: [usize; 8] = [300, 20_000, 60, 70_000, 5000, 300_000, 16_384, 1_500_000];
const BLOBS: usize = 48;
const IMAGES: usize = 32;
const ARTIFACTS: usize = 16;
const INDEXES: usize = 12;

#[derive(Debug)]
pub struct Blob {
    pub digest: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub struct Manifest {
    pub digest: String,
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
    pub shape: Shape,
    /// As a list of referrers has it.
    pub descriptor: Value,
}

impl Manifest {
    /// Tags lead to digests of SHA-256 alone.
    pub fn may_have_tag(&self) -> bool {
        self.digest.starts_with("sha256:")
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pool {
    pub blobs: Vec<Blob>,
    pub manifests: Vec<Manifest>,
}

impl Pool {
    pub fn new(seed: u64) -> Self {
        let mut chance = Random::new(seed);
        let blobs: Vec<_> = (0..BLOBS).map(|number| blob(&mut chance, number)).collect();
        let mut pool = Self { blobs, manifests: Vec::new() };
        for number in 0..IMAGES + ARTIFACTS + INDEXES {
            let manifest = match number {
                0..IMAGES => pool.image(&mut chance, number, None),
                number if number < IMAGES + ARTIFACTS => {
                    let subject = chance.index(IMAGES / 2);
                    pool.image(&mut chance, number, Some(subject))
                }
                _ => pool.index(&mut chance, number),
            };
            pool.manifests.push(manifest);
        }
        pool
    }

    fn image(&self, chance: &mut Random, number: usize, subject: Option<usize>) -> Manifest {
        let mut blobs: Vec<usize> = (0..=chance.index(3)).map(|_| chance.index(BLOBS)).collect();
        let media_type = if subject.is_none() && number % 4 == 1 { DOCKER_IMAGE } else { IMAGE };
        let named: Vec<Value> = blobs
            .iter()
            .map(|blob| {
                let Blob { digest, bytes } = &self.blobs[*blob];
                json!({ "mediaType": "application/vnd.soak", "digest": digest, "size": bytes.len() })
            })
            .collect();
        let mut document = json!({
            "schemaVersion": 2, "mediaType": media_type, "config": named[0], "layers": named[1..],
            "annotations": { "number": number.to_string() },
        });
        if let Some(subject) = subject {
            let about = &self.manifests[subject];
            document["subject"] =
                json!({ "mediaType": about.media_type, "digest": about.digest, "size": about.bytes.len() });
            document["artifactType"] = json!(format!("application/vnd.soak.{}", number % 2));
        }
        blobs.sort_unstable();
        blobs.dedup();
        manifest(number, media_type, &document, Shape { blobs, children: Vec::new(), subject })
    }

    fn index(&self, chance: &mut Random, number: usize) -> Manifest {
        let mut children: Vec<usize> = (0..=chance.index(3)).map(|_| chance.index(IMAGES)).collect();
        children.sort_unstable();
        children.dedup();
        let named: Vec<Value> = children
            .iter()
            .map(|child| {
                let child = &self.manifests[*child];
                json!({ "mediaType": child.media_type, "digest": child.digest, "size": child.bytes.len() })
            })
            .collect();
        let document = json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": named, "annotations": { "number": number.to_string() },
        });
        manifest(number, INDEX, &document, Shape { children, ..Shape::default() })
    }

    pub fn shapes(&self) -> Vec<Shape> {
        self.manifests.iter().map(|manifest| manifest.shape.clone()).collect()
    }

    pub fn manifest_of(&self, digest: &str) -> Option<usize> {
        self.manifests.iter().position(|manifest| manifest.digest == digest)
    }
}

fn blob(chance: &mut Random, number: usize) -> Blob {
    let length = SHORTEST.get(number).copied().unwrap_or(SIZES[number % SIZES.len()]);
    let bytes: Vec<u8> = (0..length).map(|_| chance.below(256).to_le_bytes()[0]).collect();
    Blob { digest: digest(&bytes, number % 5 == 3), bytes }
}

fn manifest(number: usize, media_type: &'static str, document: &Value, shape: Shape) -> Manifest {
    let bytes = document.to_string().into_bytes();
    let digest = digest(&bytes, number % 9 == 7);
    let mut descriptor = json!({
        "mediaType": media_type, "digest": digest, "size": bytes.len(), "annotations": document["annotations"],
    });
    if let Some(own) = document.get("artifactType") {
        descriptor["artifactType"] = own.clone();
    }
    Manifest { digest, media_type, bytes, shape, descriptor }
}

/// Of SHA-256, or of SHA-512.
pub fn digest(bytes: &[u8], is_long: bool) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match is_long {
        true => format!("sha512:{}", hex(&Sha512::digest(bytes))),
        false => format!("sha256:{}", hex(&Sha256::digest(bytes))),
    }
}
