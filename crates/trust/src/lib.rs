//! Signatures of images: who has to have signed what ([`Policy`], after containers-policy.json(5)), whether somebody has
//! ([`Rule::judge`]), and how one signs ([`PrivateKey`]). Keys alone count: certificates, transparency logs and GPG are
//! refused by name.
//!
//! All of it is pure: who calls has fetched the signatures, and sends them. What is signed is sigstore's simple signing
//! payload, which names an image's digest and the name that it was given (containers-signature(5); cosign's
//! specs/SIGNATURE_SPEC.md). What came from a registry is looked into only once a key has vouched for it.

mod attachment;
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
pub use judge::{Attached, Rejected};
pub use payload::payload;
pub use policy::{Needs, Policy, PolicyError, Rule};
pub use private_key::{KeyError, PrivateKey};
pub use public_key::PublicKey;
