//! Pure: which files an installation has, with their contents.

use std::path::{Path, PathBuf};

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Where programs and their pages go: `/usr/local`.
    pub prefix: PathBuf,
    /// The group that may use the socket; `None`: root alone.
    pub group: Option<String>,
    /// `/run/docker.sock` is served too.
    pub docker_socket: bool,
}

/// A file as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// An absolute path below the root.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// This program, executable.
    Program,
    /// A text, readable by all.
    Text(String),
    /// A symbolic link.
    Link(PathBuf),
}

/// Where units of the administrator's lie (systemd.unit(5)).
pub const UNITS: &str = "/etc/systemd/system";
/// Both units, the socket first: a service that is stopped alone would be started by it again.
pub const UNIT_NAMES: [&str; 2] = ["dozen.socket", "dozen.service"];

/// The files, program first and links last. `pages`: manual pages by their names, `completions`: of bash, zsh and fish.
pub fn files(choice: &Choice, pages: Vec<(String, String)>, completions: [String; 3]) -> Vec<Wanted> {
    let program = choice.prefix.join("bin/dozen");
    let share = choice.prefix.join("share");
    let [bash, zsh, fish] = completions;
    let text = |path: PathBuf, text: String| Wanted { path, kind: Kind::Text(text) };
    let unit = |name: &str| Path::new(UNITS).join(name);
    let mut files = vec![
        Wanted { path: program.clone(), kind: Kind::Program },
        text(share.join("bash-completion/completions/dozen"), bash),
        text(share.join("zsh/site-functions/_dozen"), zsh),
        text(share.join("fish/vendor_completions.d/dozen.fish"), fish),
    ];
    files.extend(pages.into_iter().map(|(name, page)| text(share.join("man/man1").join(name), page)));
    files.push(text(unit("dozen.socket"), socket_unit(choice)));
    files.push(text(unit("dozen.service"), service_unit(&program)));
    // What `systemctl enable` would make of the units' [Install] sections.
    for (wants, name) in [("sockets.target.wants", "dozen.socket"), ("multi-user.target.wants", "dozen.service")] {
        files.push(Wanted { path: unit(wants).join(name), kind: Kind::Link(unit(name)) });
    }
    files
}

fn socket_unit(choice: &Choice) -> String {
    let docker = if choice.docker_socket { "ListenStream=/run/docker.sock\n" } else { "" };
    let group = choice.group.as_ref().map(|group| format!("SocketGroup={group}\n")).unwrap_or_default();
    format!(
        "# Written by 'dozen system install'; 'dozen system uninstall' removes it.\n\n\
         [Unit]\nDescription=dozen, a container engine: its sockets\n\n\
         [Socket]\n\
         # systemd holds them while the engine is restarted or upgraded: who comes meanwhile waits, and is answered.\n\
         ListenStream=/run/dozen/dozen.sock\n{docker}SocketMode=0660\nSocketUser=root\n{group}DirectoryMode=0711\n\
         RemoveOnStop=yes\n\n\
         [Install]\nWantedBy=sockets.target\n"
    )
}

fn service_unit(program: &Path) -> String {
    format!(
        "# Written by 'dozen system install'; 'dozen system uninstall' removes it.\n\n\
         [Unit]\nDescription=dozen, a container engine\nRequires=dozen.socket\nAfter=dozen.socket network-online.target\n\
         Wants=network-online.target\n\n\
         [Service]\n\
         # Started once it answers; before that it finishes what a crash interrupted, however long that takes.\n\
         Type=notify\nTimeoutStartSec=infinity\nExecStart={} daemon --host fd://\nExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=always\n\
         # The engine alone is stopped: containers are in cgroups beside this service's, and go on without it.\n\
         KillMode=process\nDelegate=yes\n\
         # When the machine goes down it ends them first, each in its own --stop-timeout, but in this time at the most.\n\
         TimeoutStopSec=10min\n\
         # A few descriptors for each running container.\n\
         LimitNOFILE=1048576\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        program.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_fit_each_other() {
        let choice = Choice { prefix: "/usr/local".into(), group: Some("dozen".into()), docker_socket: true };
        let files = files(&choice, vec![("dozen-run.1".into(), "page".into())], ["b", "z", "f"].map(str::to_owned));
        let text = |path: &str| match &files.iter().find(|file| file.path == Path::new(path)).unwrap().kind {
            Kind::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        let service = text("/etc/systemd/system/dozen.service");
        for line in ["ExecStart=/usr/local/bin/dozen daemon --host fd://", "KillMode=process", "Delegate=yes"] {
            assert!(service.lines().any(|other| other == line), "{line}");
        }
        let socket = text("/etc/systemd/system/dozen.socket");
        for line in ["ListenStream=/run/dozen/dozen.sock", "ListenStream=/run/docker.sock", "SocketGroup=dozen"] {
            assert!(socket.lines().any(|other| other == line), "{line}");
        }
        assert_eq!(text("/usr/local/share/man/man1/dozen-run.1"), "page");
        let alone = socket_unit(&Choice { group: None, docker_socket: false, ..choice });
        assert!(!alone.contains("docker.sock") && !alone.contains("SocketGroup"));
    }
}
