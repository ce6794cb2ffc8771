//! Engines over TCP: with TLS, both sides' certificates looked at; without, for those who insist.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dozen_tls::{ClientFiles, Connection, TlsError};

use crate::failure::{ENGINE_FAILED, Failure};
use crate::output;

/// Docker's ports, without TLS and with it.
const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// An engine that listens on TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpEngine {
    host: String,
    port: u16,
    /// With TLS.
    files: Option<ClientFiles>,
}

impl TcpEngine {
    /// `host[:port]`, what follows `tcp://`. With certificates it speaks TLS.
    pub fn new(address: &str, files: Option<ClientFiles>) -> Result<Self, Failure> {
        let (host, port) = split(address).ok_or_else(|| {
            let words = format!("unable to parse docker host `tcp://{address}`");
            Failure { is_prefixed: true, ..Failure::new(words) }.with_exit_code(ENGINE_FAILED)
        })?;
        let port = port.unwrap_or(if files.is_some() { TLS_PORT } else { PORT });
        Ok(Self { host: host.to_owned(), port, files })
    }

    /// `host:port`, as a request names it.
    pub fn authority(&self) -> String {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Connects, and shows our certificate.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        let host = self.host.clone();
        let addresses =
            tokio::task::spawn_blocking(move || dozen_lookup::addresses_of(&host)).await.unwrap_or_default();
        let mut failure = None;
        for address in addresses {
            if self.files.is_none() && !address.is_loopback() {
                output::say(&format!(
                    "WARNING: tcp://{}:{} without TLS: whoever is on the way reads all of it, and can change it",
                    self.host, self.port
                ));
            }
            match dozen_tls::connect(SocketAddr::new(address, self.port), &self.host, self.files.as_ref()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(self.failed(&error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            Failure::new(format!("no such host: {}", self.host))
                .with_hint("/etc/hosts does not have it, and the name servers of /etc/resolv.conf do not know it")
        }))
    }

    fn failed(&self, error: &TlsError) -> Failure {
        let words = dozen_model::error_chain(error);
        match error {
            // Docker's words, which scripts match.
            TlsError::Connect { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused => {
                let authority = self.authority();
                Failure::new(format!(
                    "Cannot connect to the Docker daemon at tcp://{authority}. Is the dozen daemon running?"
                ))
            }
            _ if self.files.is_some() => Failure::new(words),
            _ => Failure::new(words).with_hint("an engine that wants TLS is reached with --tlsverify"),
        }
    }
}

/// What the command line and the environment say of certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFlags {
    /// `--tls` or `--tlsverify`, if one of them was given.
    pub is_on: Option<bool>,
    /// `--tlscacert`.
    pub authority: Option<PathBuf>,
    /// `--tlscert`.
    pub certificate: Option<PathBuf>,
    /// `--tlskey`.
    pub key: Option<PathBuf>,
}

impl TlsFlags {
    /// The files, if TLS is wanted: those that are named, else docker's in `DOCKER_CERT_PATH` or its own directory.
    pub fn files(self, environment: &dyn Fn(&str) -> Option<String>, own: &Path) -> Option<ClientFiles> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        if !self.is_on.unwrap_or_else(|| variable("DOCKER_TLS_VERIFY").is_some()) {
            return None;
        }
        let directory = variable("DOCKER_CERT_PATH").map_or_else(|| own.to_owned(), PathBuf::from);
        let mut files = files_in(&directory);
        for (place, named) in [
            (&mut files.authority, self.authority),
            (&mut files.certificate, self.certificate),
            (&mut files.key, self.key),
        ] {
            *place = named.unwrap_or_else(|| std::mem::take(place));
        }
        Some(files)
    }
}

/// Docker's names of the three.
pub fn files_in(directory: &Path) -> ClientFiles {
    ClientFiles {
        authority: directory.join("ca.pem"),
        certificate: directory.join("cert.pem"),
        key: directory.join("key.pem"),
    }
}

/// Host and port.
fn split(address: &str) -> Option<(&str, Option<u16>)> {
    let address = address.trim_end_matches('/');
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':')?.parse().ok()?)),
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (address, None),
        },
    };
    let is_fit = !host.is_empty() && !host.contains(['/', '?', '@', '#']) && !host.contains(char::is_whitespace);
    let is_fit = is_fit && (!address.starts_with('[') || host.parse::<std::net::Ipv6Addr>().is_ok());
    is_fit.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (address, want) in [
            ("there", Some(("there", None))),
            ("there:9/", Some(("there", Some(9)))),
            ("[::1]", Some(("::1", None))),
            ("[::1]:9", Some(("::1", Some(9)))),
            ("[there]:9", None),
            ("", None),
            ("there:many", None),
            ("me@there", None),
            ("[::1]9", None),
        ] {
            assert_eq!(split(address), want, "{address}");
        }
        let port = |files| TcpEngine::new("there", files).unwrap().port;
        assert_eq!((port(None), port(Some(files_in(Path::new("/certs"))))), (2375, 2376));
    }

    #[test]
    fn certificates_come_from_flags_then_from_dockers_places() {
        let own = Path::new("/home/me/.docker");
        let environment = |name: &str| match name {
            "DOCKER_TLS_VERIFY" => Some("1".to_owned()),
            "DOCKER_CERT_PATH" => Some("/certs".to_owned()),
            _ => None,
        };
        let flags = TlsFlags { certificate: Some("/my/cert".into()), ..TlsFlags::default() };
        let files = flags.clone().files(&environment, own).unwrap();
        assert_eq!(files.authority, Path::new("/certs/ca.pem"));
        assert_eq!(files.certificate, Path::new("/my/cert"));
        assert_eq!(flags.clone().files(&|_| None, own), None);
        let on = TlsFlags { is_on: Some(true), ..TlsFlags::default() };
        assert_eq!(on.files(&|_| None, own), Some(files_in(own)));
        let off = TlsFlags { is_on: Some(false), ..flags };
        assert_eq!(off.files(&environment, own), None);
    }
}
