//! Engines on other machines: `ssh://`, by a child that speaks to the other machine's `dozen system dial-stdio`.
//!
//! The client is given one end of a socket pair; so a half-close, and the end, are what they are on a unix socket.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use tokio::net::UnixStream;

use crate::failure::{ENGINE_FAILED, Failure};

/// An engine on another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// Of the engine's socket there, if it is not the usual one.
    socket: Option<String>,
}

impl Remote {
    /// `[user@]host[:port][/path/of/socket]`, what follows `ssh://`.
    pub fn parse_ssh(address: &str) -> Result<Self, Failure> {
        let bad = |why: &str| {
            Failure {
                is_prefixed: true,
                ..Failure::new(format!("unable to parse docker host `ssh://{address}`: {why}"))
            }
            .with_hint("use ssh://[user@]host[:port]")
            .with_exit_code(ENGINE_FAILED)
        };
        let (authority, path) = address.find('/').map_or((address, ""), |slash| address.split_at(slash));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(bad("plain-text password is not supported")),
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        // An address of IPv6 stands in brackets; ssh wants it bare.
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse().map_err(|_| bad("the port is no number"))).transpose()?;
        // Neither is to be taken for one of ssh's options.
        if host.is_empty() || host.starts_with('-') || user.is_some_and(|user| user.is_empty() || user.starts_with('-'))
        {
            return Err(bad("no host is named"));
        }
        if address.contains(['?', '#']) || address.contains(char::is_whitespace) {
            return Err(bad("it has more than a host and a path"));
        }
        Ok(Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            socket: (!path.trim_matches('/').is_empty()).then(|| path.to_owned()),
        })
    }

    /// What is run here.
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["-o", "ConnectTimeout=30", "-T"].map(str::to_owned).into();
        if let Some(user) = &self.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.extend(["--".to_owned(), self.host.clone(), "dozen".to_owned()]);
        if let Some(socket) = &self.socket {
            // The other machine's shell takes this apart.
            arguments.push(format!("--host='unix://{}'", socket.replace('\'', "'\\''")));
        }
        arguments.extend(["system", "dial-stdio"].map(str::to_owned));
        arguments
    }

    /// Starts the child. What is wrong on the way is said by ssh itself, on our stderr.
    pub fn connect(&self) -> Result<UnixStream, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("cannot run ssh to reach {}: {error}", self.host));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        let copy = theirs.try_clone().map_err(failed)?;
        Command::new("ssh")
            .args(self.arguments())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(copy)))
            .spawn()
            .map_err(|error| failed(error).with_hint("install the package openssh-client"))?;
        ours.set_nonblocking(true).map_err(failed)?;
        UnixStream::from_std(ours).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_sshs_arguments() {
        for (address, want) in [
            ("there", "-- there dozen system dial-stdio"),
            ("me@there:2222", "-l me -p 2222 -- there dozen system dial-stdio"),
            ("me@[fe80::1]:22/", "-l me -p 22 -- fe80::1 dozen system dial-stdio"),
            ("there/run/it's.sock", "-- there dozen --host='unix:///run/it'\\''s.sock' system dial-stdio"),
        ] {
            let arguments = Remote::parse_ssh(address).unwrap().arguments().join(" ");
            assert_eq!(arguments, format!("-o ConnectTimeout=30 -T {want}"), "{address}");
        }
        for (address, words) in [
            ("me:secret@there", "plain-text password is not supported"),
            ("-oProxyCommand=x", "no host is named"),
            ("-l@there", "no host is named"),
            ("", "no host is named"),
            ("there:many", "the port is no number"),
            ("there?x", "more than a host"),
        ] {
            let error = Remote::parse_ssh(address).unwrap_err();
            assert!(error.message.contains(words), "{address}: {error:?}");
        }
    }
}
