//! How registries are reached: `registry-mirrors`, `insecure-registries`, and what pulls may take of them.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::path::PathBuf;

use dozen_model::without_credentials;

use crate::settings::Reader;
use crate::{SettingsError, SignaturePolicy};

/// Ours, and Docker's.
const CERTS_DIRS: [&str; 2] = ["/etc/dozen/certs.d", "/etc/docker/certs.d"];
/// Docker's.
const DOWNLOADS: u8 = 3;
const UPLOADS: u8 = 5;
const ATTEMPTS: u8 = 5;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// `registry-mirrors`: asked one after the other, before Docker Hub itself. Of no other registry.
    pub mirrors: Vec<Mirror>,
    /// `insecure-registries`.
    pub insecure: Vec<InsecureRegistry>,
    /// `certs-dirs`: directories in which those of registries are searched, with their certificates and further servers. Of a
    /// registry that several have, the first one's counts.
    pub certs_dirs: Vec<PathBuf>,
    /// `max-concurrent-downloads`: layers of one pull that come at the same time.
    pub downloads: NonZeroU8,
    /// `max-concurrent-uploads`: layers of one push that go at the same time.
    pub uploads: NonZeroU8,
    /// `max-download-attempts`: how often a registry is asked, or sent something.
    pub attempts: NonZeroU8,
    /// `signature-policy`: whose images come only if somebody has signed them. `None`: nobody's.
    pub signature_policy: Option<SignaturePolicy>,
}

/// Another server with the same images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `https`.
    pub is_secure: bool,
    /// Host, and port if it is not the usual one.
    pub host: String,
    /// What stands before `/v2/`: empty, or begins with a slash.
    pub path: String,
}

/// A registry that may show any certificate, or none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InsecureRegistry {
    /// A host, with its port if one stands in images' names.
    Host(String),
    /// All that are named by an address in this network.
    Network {
        /// Its first address, or any.
        address: IpAddr,
        /// How many bits they have in common.
        bits: u8,
    },
}

impl Default for RegistrySettings {
    fn default() -> Self {
        let number = |number| NonZeroU8::new(number).expect("they are not 0");
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certs_dirs: CERTS_DIRS.map(PathBuf::from).into(),
            downloads: number(DOWNLOADS),
            uploads: number(UPLOADS),
            attempts: number(ATTEMPTS),
            signature_policy: None,
        }
    }
}

impl RegistrySettings {
    pub(crate) fn of(reader: &Reader<'_>) -> Result<Self, SettingsError> {
        let default = Self::default();
        let mirrors = reader.texts("registry-mirrors")?;
        let insecure = reader.texts("insecure-registries")?;
        Ok(Self {
            mirrors: mirrors.iter().map(|text| mirror(text)).collect::<Result<_, _>>()?,
            insecure: insecure.iter().map(|text| insecure_registry(text)).collect::<Result<_, _>>()?,
            certs_dirs: match reader.get("certs-dirs") {
                None => default.certs_dirs,
                Some(_) => reader.paths("certs-dirs")?,
            },
            downloads: count(reader, "max-concurrent-downloads")?.unwrap_or(default.downloads),
            uploads: count(reader, "max-concurrent-uploads")?.unwrap_or(default.uploads),
            attempts: count(reader, "max-download-attempts")?.unwrap_or(default.attempts),
            signature_policy: reader.path("signature-policy")?.map(SignaturePolicy::read).transpose()?,
        })
    }

    /// Whether this registry, host and port as an image's name has them, may be reached without TLS: Docker's rule has those
    /// on loopback among them. Names are not looked up: who answers for them could say anything.
    pub fn is_insecure(&self, registry: &str) -> bool {
        let host = host_of(registry);
        let address: Option<IpAddr> = host.parse().ok();
        let is_loopback = host == "localhost" || address.is_some_and(|it| it.to_canonical().is_loopback());
        let is_named = |insecure: &InsecureRegistry| match insecure {
            InsecureRegistry::Host(named) => named.eq_ignore_ascii_case(registry),
            InsecureRegistry::Network { address: network, bits } => {
                address.is_some_and(|it| is_within(it, *network, u32::from(*bits)))
            }
        };
        is_loopback || self.insecure.iter().any(is_named)
    }
}

/// Without port and brackets.
fn host_of(registry: &str) -> &str {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => registry,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (address, network, all) = match (address, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (u128::from(ip.to_bits()), u128::from(network.to_bits()), 32),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    bits <= all && (address ^ network).checked_shr(all - bits).unwrap_or(0) == 0
}

/// Docker's words for what is wrong.
fn mirror(text: &str) -> Result<Mirror, SettingsError> {
    let shown = without_credentials(text);
    let bad = |why: String| SettingsError::value("registry-mirrors", format!("invalid mirror: {why}"));
    let (is_secure, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        Some((scheme, _)) => return Err(bad(format!("unsupported scheme {scheme:?} in {shown:?}"))),
        None => return Err(bad(format!("{shown:?} is no URL: write https://HOST"))),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        // It may be a password.
        return Err(bad("username/password not allowed in URI".to_owned()));
    }
    if path.contains(['?', '#']) || host.contains(['?', '#']) {
        return Err(bad(format!("query or fragment at end of the URI {shown:?}")));
    }
    if !is_host(host) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad(format!("{shown:?} is not a valid URI")));
    }
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    Ok(Mirror { is_secure, host: host.to_ascii_lowercase(), path })
}

fn insecure_registry(text: &str) -> Result<InsecureRegistry, SettingsError> {
    let bad = |why: &str| SettingsError::value("insecure-registries", format!("{:?} {why}", without_credentials(text)));
    if let Some((address, bits)) = text.split_once('/')
        && let Ok(address) = address.parse::<IpAddr>()
    {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| bad("is no network"))?;
        return Ok(InsecureRegistry::Network { address, bits });
    }
    if text.contains("://") {
        return Err(bad("should not contain '://': write the host, and its port"));
    }
    match is_host(text) {
        true => Ok(InsecureRegistry::Host(text.to_owned())),
        false => Err(bad("is no host: write HOST, HOST:PORT, or a network as 192.0.2.0/24")),
    }
}

/// A name or an address in brackets, perhaps with a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, port),
        _ => (text, "1"),
    };
    let is_name = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && !host.starts_with('-')
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    is_name && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn count(reader: &Reader<'_>, key: &str) -> Result<Option<NonZeroU8>, SettingsError> {
    let Some(value) = reader.get(key) else { return Ok(None) };
    let number = value.as_u64().and_then(|number| u8::try_from(number).ok()).and_then(NonZeroU8::new);
    number.map(Some).ok_or_else(|| SettingsError::value(key, format!("{value} is no number from 1 to 255")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<RegistrySettings, String> {
        RegistrySettings::of(&Reader(value.as_object().unwrap())).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_holds() {
        assert_eq!(read(json!({})), Ok(RegistrySettings::default()));
        let said = read(json!({
            "registry-mirrors": ["https://Mirror.example/", "http://10.0.0.1:5000/hub/"],
            "insecure-registries": ["old.example:5000", "10.0.0.0/8", "[fd00::1]:5000"],
            "max-concurrent-downloads": 6, "max-concurrent-uploads": 9, "max-download-attempts": 1, "certs-dirs": ["/a"],
        }));
        let mirror =
            |is_secure, host: &str, path: &str| Mirror { is_secure, host: host.to_owned(), path: path.to_owned() };
        assert_eq!(
            said,
            Ok(RegistrySettings {
                mirrors: vec![mirror(true, "mirror.example", ""), mirror(false, "10.0.0.1:5000", "/hub")],
                insecure: vec![
                    InsecureRegistry::Host("old.example:5000".into()),
                    InsecureRegistry::Network { address: [10, 0, 0, 0].into(), bits: 8 },
                    InsecureRegistry::Host("[fd00::1]:5000".into()),
                ],
                certs_dirs: vec!["/a".into()],
                downloads: NonZeroU8::new(6).unwrap(),
                uploads: NonZeroU8::new(9).unwrap(),
                attempts: NonZeroU8::MIN,
                signature_policy: None,
            })
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (value, words) in [
            (json!({ "registry-mirrors": ["ftp://a"] }), "invalid mirror: unsupported scheme \"ftp\" in \"ftp://a\""),
            (json!({ "registry-mirrors": ["a.example"] }), "is no URL: write https://HOST"),
            (json!({ "registry-mirrors": ["https://me:secret@a"] }), "username/password not allowed in URI"),
            (json!({ "registry-mirrors": ["ftp://me:secret@a"] }), "unsupported scheme \"ftp\" in \"ftp://xxxxx@a\""),
            (json!({ "registry-mirrors": ["me:secret@a"] }), "\"xxxxx@a\" is no URL"),
            (json!({ "insecure-registries": ["https://me:secret@a"] }), "\"https://xxxxx@a\" should not contain"),
            (json!({ "insecure-registries": ["me:secret@a"] }), "\"xxxxx@a\" is no host"),
            (json!({ "registry-mirrors": ["https://a/?b"] }), "query or fragment at end of the URI"),
            (json!({ "registry-mirrors": ["https://"] }), "is not a valid URI"),
            (json!({ "registry-mirrors": ["https://a b"] }), "is not a valid URI"),
            (json!({ "insecure-registries": ["http://a"] }), "should not contain '://'"),
            (json!({ "insecure-registries": ["10.0.0.0/33"] }), "is no network"),
            (json!({ "insecure-registries": ["a/b"] }), "is no host"),
            (json!({ "insecure-registries": [""] }), "is no host"),
            (json!({ "certs-dirs": ["a"] }), "\"a\" is not an absolute path"),
            (json!({ "max-concurrent-downloads": 0 }), "0 is no number from 1 to 255"),
            (json!({ "max-download-attempts": "5" }), "\"5\" is no number from 1 to 255"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(words) && !error.contains("secret"), "{value}: {error}");
        }
    }

    #[test]
    fn who_needs_no_certificate_is_known() {
        let said = json!({ "insecure-registries": ["old.example", "named.example:5000", "10.0.0.0/8", "fd00::/8"] });
        let settings = read(said).unwrap();
        for (registry, is_insecure) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost.example", false),
            ("old.example", true),
            ("Old.Example", true),
            ("old.example:443", false),
            ("named.example", false),
            ("named.example:5000", true),
            ("10.2.3.4:80", true),
            ("11.2.3.4:80", false),
            ("[fd00::2]:80", true),
            ("[fe80::2]:80", false),
            ("docker.io", false),
        ] {
            assert_eq!(settings.is_insecure(registry), is_insecure, "{registry}");
        }
    }
}
