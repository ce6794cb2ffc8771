//! A policy, as containers-policy.json(5) has it: for each scope of registries what has to be so before an image comes from
//! there. What the format knows and is not built is refused by name; so is what it does not know, for a rule that is not
//! understood protects nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use dozen_model::{Reference, base64};
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::PublicKey;
use crate::identity::{Identity, SignedName, is_prefix};
use crate::scope;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Vec<Requirement>,
    /// Of registries. The empty one is for all of them.
    scopes: BTreeMap<String, Vec<Requirement>>,
}

/// What holds for an image: all of its requirements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule<'p> {
    scope: &'p str,
    requirements: &'p [Requirement],
}

/// What there has to be beside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Needs {
    Nothing,
    Signatures,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Requirement {
    Anything,
    Reject,
    Signed(Signed),
}

/// By one of these keys, with a name that this accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) keys: Vec<PublicKey>,
    pub(crate) identity: Identity,
    pub(crate) bundles: Bundles,
}

/// Whether bundles as cosign 3 makes them are signatures, though no name is signed in them, so that `signedIdentity` cannot
/// be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bundles {
    No,
    WithoutIdentity,
}

/// What is wrong with a policy, by the line or the scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(String);

impl Policy {
    /// Reads one, with `key` to read the files that it names.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn read(text: &str, key: &dyn Fn(&Path) -> Result<String, String>) -> Result<Self, PolicyError> {
        let written: WrittenPolicy = serde_json::from_str(text).map_err(|error| PolicyError(error.to_string()))?;
        let requirements = |scope: &str, written: Requirements| {
            let read = written.0.into_iter().map(|requirement| requirement.read(key));
            read.collect::<Result<_, _>>().map_err(|why| PolicyError(format!("the rule for {scope}: {why}")))
        };
        let mut scopes = BTreeMap::new();
        for (scope, written) in written.transports.registries {
            let shown = if scope.is_empty() { "all registries (\"\")" } else { &scope };
            scopes.insert(scope.clone(), requirements(shown, written)?);
        }
        Ok(Self { default: requirements("default", written.default)?, scopes })
    }

    /// What holds for an image of this name.
    pub fn rule_for(&self, name: &Reference) -> Rule<'_> {
        let of = |scope: &str| self.scopes.get_key_value(scope);
        let found = scope::scopes(name).iter().find_map(|scope| of(scope)).or_else(|| of(""));
        match found {
            Some((scope, requirements)) if scope.is_empty() => Rule { scope: "all registries", requirements },
            Some((scope, requirements)) => Rule { scope, requirements },
            None => Rule { scope: "default", requirements: &self.default },
        }
    }
}

impl Rule<'_> {
    /// As the policy has it.
    pub fn scope(&self) -> &str {
        self.scope
    }

    /// What has to be fetched before it can be judged.
    pub fn needs(&self) -> Needs {
        match self.requirements.iter().all(|it| *it == Requirement::Anything) {
            true => Needs::Nothing,
            false => Needs::Signatures,
        }
    }

    /// Whether bundles have to be fetched as well.
    pub fn accepts_bundles(&self) -> bool {
        let accepts =
            |it: &Requirement| matches!(it, Requirement::Signed(it) if it.bundles == Bundles::WithoutIdentity);
        self.requirements.iter().any(accepts)
    }

    pub(crate) fn requirements(&self) -> &[Requirement] {
        self.requirements
    }
}

impl Requirement {
    /// The format's word for it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Anything => ANYTHING,
            Self::Reject => REJECT,
            Self::Signed(_) => SIGNED,
        }
    }
}

const ANYTHING: &str = "insecureAcceptAnything";
const REJECT: &str = "reject";
const SIGNED: &str = "sigstoreSigned";

/// Ours: containers/image refuses a file with a key that it does not know, so that no such file is looser there.
const BUNDLES: &str = "sigstoreBundles";
const WITHOUT_IDENTITY: &str = "acceptWithoutIdentity";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPolicy {
    default: Requirements,
    #[serde(default)]
    transports: Transports,
}

/// One at least: a list without any would let everything in, or nothing.
struct Requirements(Vec<WrittenRequirement>);

#[derive(Default)]
struct Transports {
    registries: BTreeMap<String, Requirements>,
}

/// Whose images an engine of ours never takes: what is said of them cannot matter.
const ABSENT: [&str; 6] = ["atomic", "containers-storage", "docker-daemon", "ostree", "sif", "tarball"];
/// What `load` reads. It is who holds the engine that loads; nothing is looked at.
const FILES: [&str; 4] = ["dir", "docker-archive", "oci", "oci-archive"];

enum WrittenRequirement {
    Anything,
    Reject,
    Signed { keys: WrittenKeys, identity: Identity, bundles: Bundles },
}

enum WrittenKeys {
    Files(Vec<PathBuf>),
    /// PEM.
    Texts(Vec<String>),
}

/// All that any kind has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenFields {
    #[serde(rename = "type")]
    kind: String,
    key_path: Option<String>,
    key_paths: Option<Vec<String>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    signed_identity: Option<WrittenIdentity>,
    sigstore_bundles: Option<String>,
    key_type: Option<IgnoredAny>,
    fulcio: Option<IgnoredAny>,
    pki: Option<IgnoredAny>,
    rekor_public_key_path: Option<IgnoredAny>,
    rekor_public_key_paths: Option<IgnoredAny>,
    rekor_public_key_data: Option<IgnoredAny>,
    rekor_public_key_datas: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenIdentity {
    #[serde(rename = "type")]
    kind: String,
    docker_reference: Option<String>,
    docker_repository: Option<String>,
    prefix: Option<String>,
    signed_prefix: Option<String>,
}

impl<'de> Deserialize<'de> for Requirements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<WrittenRequirement>::deserialize(deserializer)?;
        match list.is_empty() {
            true => Err(de::Error::custom("a list of requirements must not be empty")),
            false => Ok(Self(list)),
        }
    }
}

/// An object whose names are anything, each of them once: of two, readers would take one or the other.
struct Once<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Once<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Once<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once<V>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if entries.contains_key(&key) {
                        return Err(de::Error::custom(format!("{key:?} is there twice")));
                    }
                    entries.insert(key, map.next_value()?);
                }
                Ok(Once(entries.into_iter().collect()))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Transports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut read = Self::default();
        for (transport, scopes) in Once::<Once<Requirements>>::deserialize(deserializer)?.0 {
            match transport.as_str() {
                "docker" => {
                    for (scope, requirements) in scopes.0 {
                        let wrong = |why| de::Error::custom(format!("no image is of the scope {scope:?}: {why}"));
                        scope::check(&scope).map_err(wrong)?;
                        read.registries.insert(scope, requirements);
                    }
                }
                known if ABSENT.contains(&known) => {}
                known if FILES.contains(&known) => {
                    let is_open = |it: &WrittenRequirement| matches!(it, WrittenRequirement::Anything);
                    if !scopes.0.iter().all(|(_, list)| list.0.iter().all(is_open)) {
                        return Err(de::Error::custom(format!(
                            "rules for the transport {known} are not built: what is loaded from files is not looked at"
                        )));
                    }
                }
                unknown => return Err(de::Error::custom(format!("there is no transport {unknown:?}"))),
            }
        }
        Ok(read)
    }
}

/// Inside the object, so that what is wrong with it has its line.
impl<'de> Deserialize<'de> for WrittenRequirement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = WrittenRequirement;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a requirement: {\"type\": \"reject\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenRequirement, A::Error> {
                let fields = WrittenFields::deserialize(de::value::MapAccessDeserializer::new(map))?;
                WrittenRequirement::try_from(fields).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl TryFrom<WrittenFields> for WrittenRequirement {
    type Error = String;

    fn try_from(written: WrittenFields) -> Result<Self, String> {
        let WrittenFields { kind, key_path, key_paths, key_data, key_datas, signed_identity, key_type, .. } = &written;
        let has_keys = [key_path.is_some(), key_paths.is_some(), key_data.is_some(), key_datas.is_some()];
        let keys = has_keys.into_iter().filter(|has| *has).count();
        match kind.as_str() {
            ANYTHING | REJECT => {
                let is_bare = keys == 0
                    && signed_identity.is_none()
                    && written.sigstore_bundles.is_none()
                    && key_type.is_none()
                    && written.foreign().is_none();
                match is_bare {
                    true if kind == ANYTHING => Ok(Self::Anything),
                    true => Ok(Self::Reject),
                    false => Err(format!("{kind} has nothing but its type")),
                }
            }
            "signedBy" => Err(format!("signedBy is not built: signatures by GPG are not looked at; {SIGNED} is")),
            SIGNED => {
                if let Some(foreign) = written.foreign() {
                    return Err(format!(
                        "{foreign} is not built: {SIGNED} by keys is (keyPath, keyPaths, keyData, keyDatas)"
                    ));
                }
                if key_type.is_some() {
                    return Err(format!("keyType is signedBy's, not {SIGNED}'s"));
                }
                if keys != 1 {
                    return Err(format!("{SIGNED} has one of keyPath, keyPaths, keyData and keyDatas"));
                }
                Self::signed(written)
            }
            unknown => Err(format!("there is no type {unknown:?} of requirements: {ANYTHING}, {REJECT}, {SIGNED}")),
        }
    }
}

impl WrittenRequirement {
    fn signed(written: WrittenFields) -> Result<Self, String> {
        let WrittenFields { key_path, key_paths, key_data, key_datas, signed_identity, sigstore_bundles, .. } = written;
        let paths: Vec<String> = key_path.into_iter().chain(key_paths.unwrap_or_default()).collect();
        let datas: Vec<String> = key_data.into_iter().chain(key_datas.unwrap_or_default()).collect();
        if let Some(relative) = paths.iter().find(|path| !Path::new(path).is_absolute()) {
            return Err(format!("the path of a key has to be absolute: {relative:?}"));
        }
        let text = |data: &String| base64::decode(data).and_then(|bytes| String::from_utf8(bytes).ok());
        let keys = match (paths.is_empty(), datas.is_empty()) {
            (false, _) => WrittenKeys::Files(paths.into_iter().map(PathBuf::from).collect()),
            (true, false) => {
                let texts = datas.iter().map(text).collect::<Option<_>>();
                WrittenKeys::Texts(texts.ok_or("keyData is PEM as base 64, and this is not")?)
            }
            (true, true) => return Err("a list of keys must not be empty".to_owned()),
        };
        let identity = signed_identity.map_or(Ok(Identity::RepositoryDigestOrExact), WrittenIdentity::read)?;
        let bundles = match sigstore_bundles.as_deref() {
            None => Bundles::No,
            Some(WITHOUT_IDENTITY) => Bundles::WithoutIdentity,
            Some(other) => {
                return Err(format!("{BUNDLES} is {WITHOUT_IDENTITY:?}, or is not there: {other:?} is unknown"));
            }
        };
        Ok(Self::Signed { keys, identity, bundles })
    }

    fn read(self, file: &dyn Fn(&Path) -> Result<String, String>) -> Result<Requirement, String> {
        let (keys, identity, bundles) = match self {
            Self::Anything => return Ok(Requirement::Anything),
            Self::Reject => return Ok(Requirement::Reject),
            Self::Signed { keys, identity, bundles } => (keys, identity, bundles),
        };
        let of_file = |path: &PathBuf| {
            let text = file(path).map_err(|why| format!("the key {}: {why}", path.display()))?;
            PublicKey::read(&text).map_err(|why| format!("the key {}: {why}", path.display()))
        };
        let of_text = |text: &String| PublicKey::read(text).map_err(|why| format!("a key's keyData: {why}"));
        let keys = match &keys {
            WrittenKeys::Files(paths) => paths.iter().map(of_file).collect::<Result<_, _>>()?,
            WrittenKeys::Texts(texts) => texts.iter().map(of_text).collect::<Result<_, _>>()?,
        };
        Ok(Requirement::Signed(Signed { keys, identity, bundles }))
    }
}

impl WrittenFields {
    /// What it has of what is not built.
    fn foreign(&self) -> Option<&'static str> {
        let foreign = [
            ("fulcio", self.fulcio.is_some()),
            ("pki", self.pki.is_some()),
            ("rekorPublicKeyPath", self.rekor_public_key_path.is_some()),
            ("rekorPublicKeyPaths", self.rekor_public_key_paths.is_some()),
            ("rekorPublicKeyData", self.rekor_public_key_data.is_some()),
            ("rekorPublicKeyDatas", self.rekor_public_key_datas.is_some()),
        ];
        foreign.into_iter().find(|(_, is_there)| *is_there).map(|(name, _)| name)
    }
}

impl WrittenIdentity {
    fn read(self) -> Result<Identity, String> {
        let Self { kind, docker_reference, docker_repository, prefix, signed_prefix } = self;
        let name = |text: String| SignedName::read(&text).ok_or_else(|| format!("{kind}: {text:?} is no image's name"));
        match (kind.as_str(), docker_reference, docker_repository, prefix, signed_prefix) {
            ("matchExact", None, None, None, None) => Ok(Identity::Exact),
            ("matchRepoDigestOrExact", None, None, None, None) => Ok(Identity::RepositoryDigestOrExact),
            ("matchRepository", None, None, None, None) => Ok(Identity::Repository),
            ("exactReference", Some(text), None, None, None) => match name(text)? {
                bare if bare.is_bare() => Err(format!("{kind}: {bare} has neither tag nor digest")),
                whole => Ok(Identity::ExactReference(whole)),
            },
            ("exactRepository", None, Some(text), None, None) => Ok(Identity::ExactRepository(name(text)?)),
            ("remapIdentity", None, None, Some(prefix), Some(signed_prefix)) => {
                if let Some(wrong) = [&prefix, &signed_prefix].into_iter().find(|text| !is_prefix(text)) {
                    return Err(format!("{kind}: {wrong:?} is neither a host nor a host with a path"));
                }
                Ok(Identity::Remapped { prefix, signed_prefix })
            }
            ("matchExact" | "matchRepoDigestOrExact" | "matchRepository", ..) => {
                Err(format!("{kind} has nothing but its type"))
            }
            ("exactReference", ..) => Err(format!("{kind} has a dockerReference, and nothing else")),
            ("exactRepository", ..) => Err(format!("{kind} has a dockerRepository, and nothing else")),
            ("remapIdentity", ..) => Err(format!("{kind} has prefix and signedPrefix, and nothing else")),
            _ => Err(format!("there is no type {kind:?} of signedIdentity")),
        }
    }
}

#[cfg(test)]
mod tests;
