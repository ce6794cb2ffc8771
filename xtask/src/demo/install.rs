//! The `dozen run` that installs Flask: from PyPI by pip, or from Debian's packages by apt-get.

use std::path::{Path, PathBuf};

use crate::failure::{Attempt, Failure};
use crate::{images, steps};

/// Variables by which Python's programs are told of a file of certificate authorities.
const CERTIFICATE_VARIABLES: [&str; 3] = ["PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"];
/// Where the host's bundle appears inside while Flask is installed.
const BUNDLE_INSIDE: &str = "/tmp/host-certificates.crt";
/// Where apt reads the host's options while Flask is installed.
const OPTIONS_INSIDE: &str = "/etc/apt/apt.conf.d/90host";

/// From where Flask comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// PyPI, into an image of Python.
    Pip,
    /// Debian's packages, into an image of Debian.
    Apt,
}

/// What this host has that an installation in a container needs as well, because it is given nothing by itself.
#[derive(Debug, Default)]
pub struct Host {
    /// The bundle of certificate authorities that the host names: a proxy that opens TLS is trusted by the host only.
    bundle: Option<PathBuf>,
    /// A file of apt.conf(5): the host's proxies.
    apt_options: Option<PathBuf>,
}

/// Looks; files that have to be written lie in `scratch`.
pub fn of_this_host(scratch: &Path) -> Result<Host, Failure> {
    let bundle = certificates(&|name| std::env::var(name).ok());
    let options = images::apt_options();
    let path = scratch.join("apt.conf");
    let text: String = options.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text).attempting(format_args!("write {}", path.display()))?;
    Ok(Host { bundle, apt_options: Some(path).filter(|_| !options.is_empty()) })
}

fn certificates(environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = CERTIFICATE_VARIABLES.iter().find_map(|name| environment(name).filter(|value| !value.is_empty()))?;
    Some(PathBuf::from(set)).filter(|path| path.is_file())
}

impl Way {
    /// The image that it starts from.
    pub fn base(self) -> &'static str {
        match self {
            Self::Pip => "python:3.11-slim",
            Self::Apt => "debian:bookworm-slim",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Self::Pip => "pip install --no-cache-dir --disable-pip-version-check --quiet flask",
            Self::Apt => {
                "apt-get update -q && \
                 DEBIAN_FRONTEND=noninteractive apt-get install -q --yes --no-install-recommends python3-flask"
            }
        }
    }

    /// The words after `dozen`: a container of this name in which Flask is installed and the application lies.
    pub fn arguments(self, container: &str, source: &Path, host: &Host) -> Vec<String> {
        let mut arguments: Vec<String> = ["run", "--name", container].map(String::from).into();
        let mut mount = |from: &Path, to: &str| {
            arguments.extend(["-v".to_owned(), format!("{}:{to}:ro", from.display())]);
        };
        mount(source, "/source");
        match (self, &host.bundle, &host.apt_options) {
            (Self::Pip, Some(bundle), _) => {
                steps::step(format_args!(
                    "this host names its own certificate authorities ({}): the installation is given them too",
                    bundle.display()
                ));
                mount(bundle, BUNDLE_INSIDE);
                let variables = CERTIFICATE_VARIABLES.iter();
                arguments.extend(variables.flat_map(|name| ["-e".to_owned(), format!("{name}={BUNDLE_INSIDE}")]));
            }
            (Self::Apt, _, Some(options)) => {
                steps::step("apt has options on this host (proxies): the installation is given them too");
                mount(options, OPTIONS_INSIDE);
            }
            _ => {}
        }
        let script = format!("{} && mkdir -p /app && cp /source/app.py /app/", self.script());
        arguments.extend([self.base(), "sh", "-c", &script].map(String::from));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_authorities_go_along_only_where_it_names_them() {
        let source = Path::new("/src");
        let without = Way::Pip.arguments("c", source, &Host::default());
        assert!(!without.iter().any(|word| word.contains("CERT")));
        assert_eq!(certificates(&|_| None), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        let bundle = certificates(&|name| (name == "SSL_CERT_FILE").then(|| path.clone()));
        let with = Way::Pip.arguments("c", source, &Host { bundle, apt_options: None });
        assert!(with.contains(&format!("{path}:{BUNDLE_INSIDE}:ro")));
        assert!(with.contains(&format!("PIP_CERT={BUNDLE_INSIDE}")));
    }

    #[test]
    fn apt_is_given_the_hosts_proxies_and_starts_from_debian() {
        let host = Host { bundle: Some("/bundle".into()), apt_options: Some("/options".into()) };
        let words = Way::Apt.arguments("c", Path::new("/src"), &host);
        assert!(words.contains(&format!("/options:{OPTIONS_INSIDE}:ro")), "{words:?}");
        assert!(words.contains(&"debian:bookworm-slim".to_owned()));
        assert!(!words.iter().any(|word| word.contains("bundle")));
    }
}
