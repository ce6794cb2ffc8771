//! What a host's own directory says of a registry: further servers that have its images (`hosts.toml`, `file`) and certificates
//! (`certificates`). They are read anew for each repository that is asked, so that nothing has to be started again.
//!
//! A registry's directory has its name, with the port if the name has one (`registry.example:5000`, or containerd's
//! `registry.example_5000_`), in the first of the settings' directories that has it; without any, `_default/hosts.toml` counts.
//! A server that `hosts.toml` gives no certificates has those in the directory of its own name.

mod certificates;
mod file;

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use dozen_fetch::{Address, Authorities, ClientCertificate};
use dozen_settings::RegistrySettings;

pub use self::file::Capabilities;

use self::certificates::CertificateFiles;
use self::file::{Host, HostsFile, MOST_BYTES};
use crate::endpoint::{HUB, HUB_SERVER, Trust};
use crate::{Access, Endpoint, RegistryError, Security};

const HOSTS_FILE: &str = "hosts.toml";
/// Of registries that have none of their own.
const DEFAULT: &str = "_default";

/// Who is asked for what: the mirrors of the settings and the server, last, as `planned` has them, and what the registry's
/// directory says beside it. `access`: `None` is a login, which is the server's alone. Blocks.
///
/// # Errors
/// What is in the directory cannot be read, or is wrong.
pub(crate) fn refine(
    planned: Vec<Endpoint>,
    access: Option<Access>,
    settings: &RegistrySettings,
    authorities: &Authorities,
) -> Result<Vec<Endpoint>, RegistryError> {
    let directories = Directories(&settings.certs_dirs);
    let Some(own) = planned.last() else { return Ok(planned) };
    let registry = own.registry().to_owned();
    let directory = directories.of_registry(&registry)?;
    let file = match directory.as_deref() {
        Some(directory) => read_hosts(&directory.join(HOSTS_FILE))?,
        None => HostsFile::default(),
    };
    let mut all = Vec::new();
    for (mut endpoint, host) in decide(&registry, planned, file, access) {
        let said = host.as_ref().filter(|host| !host.authorities.is_empty() || !host.clients.is_empty());
        let files = match (said, &directory) {
            (Some(host), Some(directory)) => Files::said(host, directory),
            _ => directories.of_host(&endpoint)?.map(|directory| Files::lying_in(&directory)).transpose()?,
        };
        if let Some(files) = files {
            endpoint.trust = files.read(endpoint.security, authorities)?;
        }
        all.push(endpoint);
    }
    Ok(all)
}

/// Decides whom to ask, each with what `hosts.toml` says of it.
fn decide(
    registry: &str,
    mut planned: Vec<Endpoint>,
    file: HostsFile,
    access: Option<Access>,
) -> Vec<(Endpoint, Option<Host>)> {
    let Some(own) = planned.pop() else { return Vec::new() };
    let mut all = Vec::new();
    for host in file.hosts {
        let Some(endpoint) = endpoint(registry, &own, &host) else { continue };
        let may = endpoint.capabilities;
        let is_asked = match access {
            Some(Access::Pull) => may.resolve || may.pull,
            // Whoever is not said to take what is new keeps what is somebody else's.
            Some(Access::Push) => host.capabilities.is_some() && may.push,
            None => false,
        };
        if is_asked {
            all.push((endpoint, Some(host)));
        }
    }
    if access == Some(Access::Push) && !all.is_empty() {
        // Of an upload's parts all go to one.
        all.truncate(1);
        return all;
    }
    all.extend(planned.into_iter().map(|mirror| (mirror, None)));
    let server = match access {
        // Who has a password for the registry has it tried there, and not at another server in its place.
        None if endpoint(registry, &own, &file.server).is_some_and(|said| said.is_mirror) => {
            return vec![(own, None)];
        }
        _ => server(registry, own, &file.server),
    };
    all.push((server, Some(file.server)));
    all
}

/// A server of the file; `None` if nothing says where it is.
fn endpoint(registry: &str, own: &Endpoint, host: &Host) -> Option<Endpoint> {
    let mut place = host.place.clone()?;
    if matches!(place.host.as_str(), HUB | "index.docker.io") {
        // As people write it; nobody there speaks the protocol.
        HUB_SERVER.clone_into(&mut place.host);
    }
    let security = match (place.is_secure, host.skip_verify) {
        (false, _) => Security::Plain,
        (true, Some(true)) => Security::Unverified,
        (true, _) => Security::Verified,
    };
    let is_own = is_same_server(own, place.is_secure, &place.host);
    Some(Endpoint {
        security,
        host: place.host,
        path: place.path,
        // What proves who we are for one server is no other's.
        is_mirror: !is_own,
        is_path_whole: host.is_path_whole,
        namespace: (!is_own).then(|| registry.to_owned()),
        capabilities: host.capabilities.unwrap_or(Capabilities { resolve: true, pull: true, push: false }),
        headers: host.headers.clone(),
        trust: None,
        door: None,
    })
}

/// The registry's server, as what is said outside of tables has it.
fn server(registry: &str, own: Endpoint, host: &Host) -> Endpoint {
    let capabilities = host.capabilities.unwrap_or(own.capabilities);
    if let Some(said) = endpoint(registry, &own, host) {
        return Endpoint { capabilities, ..said };
    }
    let security = match host.skip_verify {
        Some(true) => Security::Unverified,
        Some(false) => Security::Verified,
        // Who names its authority means that it is looked at, also on this host's loopback.
        None if !host.authorities.is_empty() => Security::Verified,
        None => own.security,
    };
    Endpoint { security, capabilities, headers: host.headers.clone(), ..own }
}

/// With the usual port named or not.
fn is_same_server(own: &Endpoint, is_secure: bool, host: &str) -> bool {
    let scheme = if is_secure { "https" } else { "http" };
    let [own, other] =
        [format!("https://{}/", own.host), format!("{scheme}://{host}/")].map(|url| Address::parse(&url));
    matches!((own, other), (Ok(own), Ok(other)) if own.endpoint().eq_ignore_ascii_case(&other.endpoint()))
}

/// Where directories of registries are, the first one first.
struct Directories<'a>(&'a [PathBuf]);

impl Directories<'_> {
    fn of_registry(&self, registry: &str) -> Result<Option<PathBuf>, RegistryError> {
        let own = names(registry).map(Some).chain([None]);
        for name in own.map(|name| name.unwrap_or_else(|| DEFAULT.to_owned())) {
            if let Some(found) = self.find(&name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// For certificates, which no other host's directory has.
    fn of_host(&self, endpoint: &Endpoint) -> Result<Option<PathBuf>, RegistryError> {
        let registry = (endpoint.registry() != endpoint.host).then(|| endpoint.registry());
        for name in registry.into_iter().chain([endpoint.host.as_str()]).flat_map(names) {
            if let Some(found) = self.find(&name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn find(&self, name: &str) -> Result<Option<PathBuf>, RegistryError> {
        for directory in self.0 {
            let path = directory.join(name);
            match std::fs::metadata(&path) {
                Ok(found) if found.is_dir() => return Ok(Some(path)),
                Ok(_) => return Err(unusable(&path, "it is no directory")),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(unusable(&path, error)),
            }
        }
        Ok(None)
    }
}

/// The names that a host's directory may have. None that leads elsewhere.
fn names(host: &str) -> impl Iterator<Item = String> {
    let is_name = !host.starts_with(['.', '_']) && !host.contains('/') && !host.is_empty();
    let with_port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let with_port = with_port.map(|(host, port)| format!("{host}_{port}_"));
    [Some(host.to_owned()), with_port].into_iter().flatten().filter(move |_| is_name)
}

fn read_hosts(path: &Path) -> Result<HostsFile, RegistryError> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HostsFile::default()),
        Err(error) => return Err(unusable(path, error)),
        Ok(bytes) if bytes as u64 > MOST_BYTES => return Err(unusable(path, "it is larger than 1 MiB")),
        Ok(_) => {}
    }
    HostsFile::read(&text).map_err(|why| unusable(path, why))
}

/// Files of one server.
#[derive(Debug, Default)]
struct Files {
    authorities: Vec<PathBuf>,
    clients: Vec<(PathBuf, PathBuf)>,
}

impl Files {
    fn said(host: &Host, directory: &Path) -> Option<Self> {
        let path = |name: &String| directory.join(name);
        let pair = |(certificate, key): &(String, Option<String>)| {
            (path(certificate), path(key.as_ref().unwrap_or(certificate)))
        };
        Some(Self {
            authorities: host.authorities.iter().map(path).collect(),
            clients: host.clients.iter().map(pair).collect(),
        })
    }

    fn lying_in(directory: &Path) -> Result<Self, RegistryError> {
        let listed = || -> std::io::Result<Vec<String>> {
            let names = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
            Ok(names.collect::<std::io::Result<Vec<_>>>()?.into_iter().flatten().collect())
        };
        let names = listed().map_err(|error| unusable(directory, error))?;
        let found = CertificateFiles::of(names).map_err(|why| unusable(directory, why))?;
        let path = |name: &String| directory.join(name);
        Ok(Self {
            authorities: found.authorities.iter().map(path).collect(),
            clients: found.clients.iter().map(|(certificate, key)| (path(certificate), path(key))).collect(),
        })
    }

    /// `None`: there is none.
    fn read(&self, security: Security, known: &Authorities) -> Result<Option<Trust>, RegistryError> {
        if self.authorities.is_empty() && self.clients.is_empty() {
            return Ok(None);
        }
        let mut elsewhere = known.clone();
        for path in &self.authorities {
            elsewhere = elsewhere.and(&read_file(path)?).map_err(|error| unusable(path, error))?;
        }
        let mut shown = Vec::new();
        for (certificate, key) in &self.clients {
            let read = ClientCertificate::read(&read_file(certificate)?, &read_file(key)?);
            shown.push(read.map_err(|error| unusable(certificate, error))?);
        }
        let own = match security {
            Security::Verified | Security::Plain => elsewhere.clone(),
            Security::Any | Security::Unverified => Authorities::anybody(),
        };
        Ok(Some(Trust { own: own.showing(shown), elsewhere }))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> RegistryError {
    RegistryError::Hosts { path: path.to_owned(), why: why.to_string() }
}

impl Endpoint {
    /// As images' names have it.
    fn registry(&self) -> &str {
        if self.host == HUB_SERVER { HUB } else { &self.host }
    }
}

#[cfg(test)]
mod tests;
