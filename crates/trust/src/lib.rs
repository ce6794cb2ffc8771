//! Signatures of images: who has to have signed what ([`Policy`], after containers-policy.json(5)), whether somebody has
//! ([`Rule::judge`]), and how one signs ([`PrivateKey`]). Keys alone count: certificates, transparency logs and GPG are
//! refused by name.
//!
//! All of it is pure: who calls has fetched the signatures, and sends them. What is signed is sigstore's simple signing
//! payload, which names an image's digest and the name that it was given (containers-signature(5); cosign's
//! specs/SIGNATURE_SPEC.md), or, in what cosign 3 writes, a statement that has the digest alone ([`bundle`]). What came from a
//! registry is looked into only once a key has vouched for it.

mod attachment;
mod bundle;
mod bundle_artifact;
mod encrypted;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
mod judge;
mod payload;
mod pem;
mod policy;
mod private_key;
mod public_key;
mod scope;
mod secret_box;

pub use attachment::{Attachment, Listed, MANIFEST_TYPE, NotAttached, PAYLOAD_BYTES, attach, listed, signature_tag};
pub use bundle::{BUNDLE_BYTES, BUNDLE_TYPE};
pub use bundle_artifact::{
    BUNDLE_MANIFEST_BYTES, BundleBlob, MOST_BUNDLES, PREDICATE_ANNOTATION, bundle_of, may_be_signature,
};
pub use judge::{Attached, Found, Rejected};
pub use payload::payload;
pub use policy::{Needs, Policy, PolicyError, Rule};
pub use private_key::{KeyError, PrivateKey};
pub use public_key::PublicKey;
