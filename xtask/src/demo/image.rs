//! The `dozen build` that makes the application's image: with Flask from PyPI by pip, or from Debian's packages by apt-get.

use std::path::{Path, PathBuf};

use crate::failure::{Attempt, Failure};
use crate::{images, steps};

/// Variables by which Python's programs are told of a file of certificate authorities.
const CERTIFICATE_VARIABLES: [&str; 3] = ["PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"];
/// From where Flask comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// PyPI, into an image of Python.
    Pip,
    /// Debian's packages, into an image of Debian.
    Apt,
}

/// What this host has that an installation in a build needs as well, because it is given nothing by itself.
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

    /// The file, beside the application.
    fn dockerfile(self) -> &'static str {
        match self {
            Self::Pip => "Dockerfile",
            Self::Apt => "debian.Dockerfile",
        }
    }

    /// The words after `dozen`: an image of this name with Flask and the application in it.
    pub fn arguments(self, image: &str, source: &Path, host: &Host) -> Vec<String> {
        let dockerfile = source.join(self.dockerfile()).display().to_string();
        let mut arguments: Vec<String> = ["build", "-t", image, "-f", &dockerfile].map(String::from).into();
        match (self, &host.bundle, &host.apt_options) {
            (Self::Pip, Some(bundle), _) => {
                steps::step(format_args!(
                    "this host names its own certificate authorities ({}): the build trusts them too",
                    bundle.display()
                ));
                arguments.extend(["--ca-bundle".to_owned(), bundle.display().to_string()]);
            }
            (Self::Apt, _, Some(options)) => {
                steps::step("apt has options on this host (proxies): the build is given them too");
                arguments.extend(["--secret".to_owned(), format!("id=apt,src={}", options.display())]);
            }
            _ => {}
        }
        arguments.push(source.display().to_string());
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_authorities_go_along_only_where_it_names_them() {
        let source = Path::new("/src");
        let without = Way::Pip.arguments("i", source, &Host::default());
        assert_eq!(without.join(" "), "build -t i -f /src/Dockerfile /src");
        assert_eq!(certificates(&|_| None), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        let bundle = certificates(&|name| (name == "SSL_CERT_FILE").then(|| path.clone()));
        let with = Way::Pip.arguments("i", source, &Host { bundle, apt_options: None });
        assert!(with.join(" ").contains(&format!("--ca-bundle {path}")), "{with:?}");
    }

    #[test]
    fn apt_is_given_the_hosts_proxies_and_starts_from_debian() {
        let host = Host { bundle: Some("/bundle".into()), apt_options: Some("/options".into()) };
        let words = Way::Apt.arguments("i", Path::new("/src"), &host).join(" ");
        assert_eq!(words, "build -t i -f /src/debian.Dockerfile --secret id=apt,src=/options /src");
    }
}
