//! What the command line may say.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::events::EventsArguments;
use super::ps::PsArguments;
use super::update::UpdateArguments;

/// Runs containers by the OCI runtime specification.
#[derive(Debug, Parser)]
#[command(name = "dozen runtime", version = super::VERSION, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// Where containers' states are kept
    #[arg(long, global = true, default_value = "/run/dozen-runtime")]
    pub(super) root: PathBuf,
    /// Append errors and warnings to this file
    #[arg(long, global = true)]
    pub(super) log: Option<PathBuf>,
    /// How to write them
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
    /// Accepted for engines that pass it; there is no debug log
    #[arg(long, global = true, hide = true)]
    pub(super) debug: bool,
    /// Have systemd make containers' cgroups: `cgroupsPath` is then `slice:prefix:name`
    #[arg(long, global = true)]
    pub(super) systemd_cgroup: bool,
    /// Who makes cgroups
    #[arg(long, global = true, value_enum, default_value_t = CgroupManager::Cgroupfs)]
    pub(super) cgroup_manager: CgroupManager,
    /// Accepted for engines that pass it; true is refused
    #[arg(long, global = true, hide = true, value_enum, default_value_t = Rootless::Auto)]
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    pub(super) rootless: Rootless,
    /// Accepted for engines that pass it: `checkpoint` and `restore`, which would use it, are refused
    #[arg(long, global = true, hide = true)]
    pub(super) criu: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Arguments {
    /// Hands on to the command what it has to know of the options before it.
    pub(super) fn settle(mut self) -> Self {
        if let Command::Create(create) | Command::Run(RunArguments { create, .. }) = &mut self.command {
            create.systemd_cgroup = self.systemd_cgroup || self.cgroup_manager == CgroupManager::Systemd;
        }
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CgroupManager {
    /// The runtime itself, by the file system
    Cgroupfs,
    /// systemd, by D-Bus
    Systemd,
    /// Nobody
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Rootless {
    True,
    False,
    Auto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a container; its process waits for `start`
    Create(CreateArguments),
    /// Let a created container's process run
    Start { id: String },
    /// Create and start a container, and end as it does
    Run(RunArguments),
    /// Print a container's state as JSON
    State { id: String },
    /// Send a signal to a container's process
    Kill {
        id: String,
        /// By name or number
        #[arg(default_value = "TERM")]
        signal: String,
        /// To all of its processes
        #[arg(long, short)]
        all: bool,
    },
    /// Remove a stopped container
    Delete {
        /// The container's id; with --regex an expression for the ids of all that are meant
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// Take the id for a regular expression
        #[arg(long)]
        regex: bool,
        /// Kill it first if it runs
        #[arg(long, short)]
        force: bool,
    },
    /// Run a further process in a running container
    Exec(ExecArguments),
    /// Stop all of a container's processes where they are
    Pause { id: String },
    /// Let a paused container's processes run on
    Resume { id: String },
    /// Change a container's limits
    Update(UpdateArguments),
    /// List a container's processes
    Ps(PsArguments),
    /// Print figures of a container, and when its memory has run out
    Events(EventsArguments),
    /// List containers
    List {
        /// Only their ids
        #[arg(long, short)]
        quiet: bool,
        /// `table` or `json`
        #[arg(long, short, default_value = "table")]
        format: String,
    },
    /// Write a config.json to start from
    Spec {
        /// Where to write it
        #[arg(long, short, default_value = ".")]
        bundle: PathBuf,
    },
    /// Print what this runtime can do, as JSON
    Features,
    /// Refused: there is no support for CRIU
    #[command(hide = true)]
    Checkpoint(Anything),
    /// Refused: there is no support for CRIU
    #[command(hide = true)]
    Restore(Anything),
}

/// Words that nobody looks at.
#[derive(Debug, Args)]
pub(super) struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct CreateArguments {
    /// The container's id
    pub(super) id: String,
    /// The directory that holds config.json
    #[arg(long, short, default_value = ".")]
    pub(super) bundle: PathBuf,
    /// The spec's file, seen from the bundle
    #[arg(long, short = 'f', default_value = "config.json")]
    pub(super) config: PathBuf,
    /// Write the process id of the container's process here
    #[arg(long)]
    pub(super) pid_file: Option<PathBuf>,
    /// Send the terminal's master to this socket
    #[arg(long)]
    pub(super) console_socket: Option<PathBuf>,
    /// Hand on this many descriptors, from 3 on
    #[arg(long, default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Refused: without pivot_root the host's root could be reached
    #[arg(long, hide = true)]
    pub(super) no_pivot: bool,
    /// Keep the session keyring of who calls
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// Accepted for engines that pass it: the runtime is no subreaper
    #[arg(long, hide = true)]
    pub(super) no_subreaper: bool,
    /// Run a small init as process 1
    #[arg(long)]
    pub(super) init: bool,
    /// What was said before the command.
    #[arg(skip)]
    pub(super) systemd_cgroup: bool,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) create: CreateArguments,
    /// Do not wait for the container's end
    #[arg(long, short)]
    pub(super) detach: bool,
    /// Leave the container's record and its cgroup when it has ended, until `delete`
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExecArguments {
    /// The container's id
    pub(super) id: String,
    /// A process in the spec's JSON format, in place of a command line
    #[arg(long, short)]
    pub(super) process: Option<PathBuf>,
    /// With a terminal
    #[arg(long, short)]
    pub(super) tty: bool,
    /// Working directory
    #[arg(long)]
    pub(super) cwd: Option<String>,
    /// NAME=value, more than once
    #[arg(long, short)]
    pub(super) env: Vec<String>,
    /// uid or uid:gid, or names of the container's own
    #[arg(long, short)]
    pub(super) user: Option<String>,
    /// A further group's number, more than once
    #[arg(long, short = 'g')]
    pub(super) additional_gids: Vec<u32>,
    /// A further capability, more than once
    #[arg(long, short = 'c')]
    pub(super) cap: Vec<String>,
    /// With an AppArmor profile
    #[arg(long)]
    pub(super) apparmor: Option<String>,
    /// With an SELinux label
    #[arg(long)]
    pub(super) process_label: Option<String>,
    /// It can gain no privileges by executing a program
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Hand on this many descriptors, from 3 on
    #[arg(long, default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// In this cgroup, which has to be there, below the container's
    #[arg(long)]
    pub(super) cgroup: Option<String>,
    /// Also where the container is paused: it begins when that is over
    #[arg(long)]
    pub(super) ignore_paused: bool,
    /// Write the process id here
    #[arg(long)]
    pub(super) pid_file: Option<PathBuf>,
    /// Send the terminal's master to this socket
    #[arg(long)]
    pub(super) console_socket: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(long, short)]
    pub(super) detach: bool,
    /// The command line
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
}
