//! Which engine is meant: an address, and whether it is one that we may start ourselves.

use std::path::{Path, PathBuf};

use dozen_model::run_root::SOCKET_NAME;
use dozen_tls::ClientFiles;

use crate::failure::Failure;
use crate::remote::Remote;
use crate::tcp::TcpEngine;

/// Where sockets live unless someone says otherwise.
pub const DEFAULT_RUN_ROOT: &str = "/run/dozen";
/// Where images, containers and volumes live unless someone says otherwise.
pub const DEFAULT_DATA_ROOT: &str = "/var/lib/dozen";

/// The engine to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its unix socket.
    pub socket: PathBuf,
    /// Who sees to it that there is one.
    pub care: Care,
}

/// Who sees to it that there is an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Care {
    /// We may start it.
    Ours(Roots),
    /// A service of the machine's (`DOZEN_AUTOSTART=0`), which starts it again by itself.
    Service(Roots),
    /// Somebody of whom we know the socket alone.
    Unknown,
    /// Somebody on another machine; the socket is only its address's name.
    Remote(Remote),
    /// The same over TCP.
    Tcp(TcpEngine),
}

/// The two directories that belong to one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Sockets; gone after a reboot.
    pub run_root: PathBuf,
    /// Everything that lasts.
    pub data_root: PathBuf,
}

/// What the command line says about the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostChoice {
    /// `--host`.
    pub host: Option<String>,
    /// `--run-root`.
    pub run_root: Option<PathBuf>,
    /// `--data-root`.
    pub data_root: Option<PathBuf>,
    /// `--context default`: our own engine, whatever the environment names.
    pub is_default: bool,
    /// Certificates for an engine on TCP.
    pub tls: Option<ClientFiles>,
}

/// Decides. Flags come before the environment, `DOZEN_HOST` before `DOCKER_HOST`; naming a run root on the command
/// line chooses that engine's socket even where the environment names a host.
pub fn decide(choice: &HostChoice, environment: &dyn Fn(&str) -> Option<String>) -> Result<Host, Failure> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let root = |flag: &Option<PathBuf>, name: &str, default: &str| {
        let root = flag.clone().or_else(|| variable(name).map(PathBuf::from)).unwrap_or_else(|| default.into());
        // An engine that is started in the background is elsewhere. What cannot be told is said when it is used.
        std::path::absolute(&root).unwrap_or(root)
    };
    let roots = Roots {
        run_root: root(&choice.run_root, "DOZEN_RUN_ROOT", DEFAULT_RUN_ROOT),
        data_root: root(&choice.data_root, "DOZEN_DATA_ROOT", DEFAULT_DATA_ROOT),
    };
    let own_socket = roots.run_root.join(SOCKET_NAME);
    let address = match (&choice.host, &choice.run_root) {
        (Some(host), _) => Some(host.clone()),
        (None, Some(_)) => None,
        (None, None) if choice.is_default => None,
        (None, None) => variable("DOZEN_HOST").or_else(|| variable("DOCKER_HOST")),
    };
    let socket = match address {
        None => own_socket.clone(),
        Some(address) => match parse(&address)? {
            Place::Here(socket) => socket,
            Place::Tcp(place) => {
                let engine = TcpEngine::new(&place, choice.tls.clone())?;
                return Ok(Host { socket: address.into(), care: Care::Tcp(engine) });
            }
            Place::There(remote) => return Ok(Host { socket: address.into(), care: Care::Remote(remote) }),
        },
    };
    let may_start = variable("DOZEN_AUTOSTART").as_deref() != Some("0");
    let care = match (socket == own_socket, may_start) {
        (true, true) => Care::Ours(roots),
        (true, false) => Care::Service(roots),
        (false, _) => Care::Unknown,
    };
    Ok(Host { socket, care })
}

impl Host {
    /// As it is written.
    pub fn address(&self) -> String {
        match self.care {
            Care::Remote(_) | Care::Tcp(_) => self.socket.display().to_string(),
            _ => format!("unix://{}", self.socket.display()),
        }
    }
}

/// Where an address leads.
#[derive(Debug)]
pub enum Place {
    /// A socket of this machine.
    Here(PathBuf),
    /// Another machine.
    There(Remote),
    /// Another machine's `host[:port]`.
    Tcp(String),
}

/// `unix:///path`, `ssh://host`; a bare absolute path is taken as well.
pub fn parse(address: &str) -> Result<Place, Failure> {
    let refused = |what: &str| {
        Err(Failure::not_built(what)
            .with_hint("use unix:///path/to/dozen.sock")
            .with_exit_code(crate::failure::ENGINE_FAILED))
    };
    match address.split_once("://") {
        Some(("unix", path)) if Path::new(path).is_absolute() => Ok(Place::Here(path.into())),
        Some(("tcp", place)) => Ok(Place::Tcp(place.to_owned())),
        Some(("http" | "https", _)) => refused(&format!("a host over HTTP ({address})")),
        Some(("ssh", rest)) => Remote::parse_ssh(rest).map(Place::There),
        Some(("fd", _)) => refused(&format!("an inherited socket ({address})")),
        None if address.starts_with('/') => Ok(Place::Here(address.into())),
        _ => Err(Failure {
            is_prefixed: true,
            exit_code: crate::failure::ENGINE_FAILED,
            ..Failure::new(format!("unable to parse docker host `{address}`"))
                .with_hint("use unix:///path/to/dozen.sock")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(choice: HostChoice, environment: &[(&str, &str)], socket: &str, is_startable: bool) {
        let lookup =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let host = decide(&choice, &lookup).unwrap();
        assert_eq!((host.socket.to_str().unwrap(), matches!(host.care, Care::Ours(_))), (socket, is_startable));
    }

    fn flags(host: Option<&str>, run_root: Option<&str>) -> HostChoice {
        HostChoice {
            host: host.map(str::to_owned),
            run_root: run_root.map(PathBuf::from),
            data_root: None,
            is_default: false,
            tls: None,
        }
    }

    #[test]
    fn flags_come_before_the_environment() {
        let docker = ("DOCKER_HOST", "unix:///d.sock");
        let dozen = ("DOZEN_HOST", "unix:///z.sock");
        check(flags(None, None), &[], "/run/dozen/dozen.sock", true);
        check(flags(None, None), &[("DOZEN_RUN_ROOT", "/r")], "/r/dozen.sock", true);
        check(flags(None, None), &[docker], "/d.sock", false);
        check(flags(None, None), &[docker, dozen], "/z.sock", false);
        check(flags(Some("unix:///f.sock"), None), &[docker, dozen], "/f.sock", false);
        check(flags(Some("unix:///r/dozen.sock"), Some("/r")), &[], "/r/dozen.sock", true);
        check(flags(None, Some("/r")), &[dozen], "/r/dozen.sock", true);
        check(flags(None, None), &[("DOZEN_AUTOSTART", "0")], "/run/dozen/dozen.sock", false);
        check(flags(None, None), &[("DOCKER_HOST", "")], "/run/dozen/dozen.sock", true);
    }

    #[test]
    fn a_root_may_be_named_from_where_we_are() {
        let here = std::env::current_dir().unwrap();
        check(flags(None, Some("run")), &[], here.join("run/dozen.sock").to_str().unwrap(), true);
        check(flags(None, None), &[("DOZEN_RUN_ROOT", "./r")], here.join("r/dozen.sock").to_str().unwrap(), true);
    }

    #[test]
    fn another_machine_is_reached_by_ssh_and_the_default_context_is_our_own() {
        let host = decide(&flags(Some("ssh://me@there"), None), &|_| None).unwrap();
        assert!(matches!(host.care, Care::Remote(_)));
        assert_eq!(host.address(), "ssh://me@there");
        let own = HostChoice { is_default: true, ..HostChoice::default() };
        check(own, &[("DOCKER_HOST", "unix:///d.sock")], "/run/dozen/dozen.sock", true);
    }

    #[test]
    fn what_is_no_unix_socket_is_refused() {
        for (address, words) in [
            ("tcp://1.2.3.4:many", "unable to parse docker host `tcp://1.2.3.4:many`"),
            ("https://1.2.3.4", "a host over HTTP (https://1.2.3.4) is not built yet"),
            ("unix://relative", "unable to parse docker host `unix://relative`"),
            ("what", "unable to parse docker host `what`"),
        ] {
            let error = decide(&flags(Some(address), None), &|_| None).unwrap_err();
            assert_eq!(error.message, words);
        }
    }
}
