//! One process of a container, the first or a further one: user, rights, limits, filter.

use std::ffi::CString;
use std::path::PathBuf;

use dozen_model::UserSpec;
use oci_spec::runtime::{PosixRlimitType, Process};

use super::scheduling::Scheduling;
use super::{clean, invalid};
use crate::Spec;
use crate::capability::CapabilitySets;
use crate::error::RuntimeError;
use crate::seccomp::{self, Filter};
use crate::user::Identity;

/// A process as it will be: the container's first, or a further one.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<String>,
    /// Absolute.
    pub(crate) working_directory: PathBuf,
    pub(crate) user: Who,
    pub(crate) umask: u32,
    pub(crate) capabilities: CapabilitySets,
    pub(crate) limits: Vec<Limit>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adjustment: Option<i32>,
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) selinux_label: Option<String>,
    pub(crate) scheduling: Scheduling,
    pub(crate) filter: Option<Filter>,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    /// As the spec has it: `RLIMIT_NOFILE`.
    pub(crate) name: String,
    pub(crate) resource: libc::__rlimit_resource_t,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// Whom a process runs as.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    /// Numbers, as the spec has them; the home is looked up if it is needed.
    Numbers(Identity),
    /// As the container's own files say.
    /// And further groups, by number and by name.
    Named(UserSpec, Vec<u32>, Vec<String>),
}

impl ProcessPlan {
    /// Further groups, by names of the container's own. Who is given by number has none.
    pub(crate) fn add_groups(&mut self, more: &[String]) {
        if let Who::Named(_, _, names) = &mut self.user {
            names.extend_from_slice(more);
        }
    }

    /// Decides about one process of a container with this spec.
    pub(crate) fn new(spec: &Spec, process: &Process, user: Option<&UserSpec>) -> Result<Self, RuntimeError> {
        let arguments = process.args().as_deref().unwrap_or_default();
        if arguments.is_empty() {
            return Err(invalid("args must not be empty"));
        }
        if !process.cwd().is_absolute() {
            return Err(invalid(format!("Cwd must be an absolute path: {:?}", process.cwd())));
        }
        if process.command_line().as_ref().is_some_and(|text| !text.is_empty()) {
            return Err(invalid("process.commandLine is for Windows; here it is args"));
        }
        let groups = process.user().additional_gids().clone().unwrap_or_default();
        groups.iter().try_for_each(|group| check_id("process.user.additionalGids", *group))?;
        let who = match user {
            Some(user) => Who::Named(user.clone(), groups, Vec::new()),
            None => {
                let (uid, gid) = (process.user().uid(), process.user().gid());
                check_id("process.user.uid", uid)?;
                check_id("process.user.gid", gid)?;
                Who::Numbers(Identity { uid, gid, groups, home: String::new() })
            }
        };
        let mut limits = Vec::new();
        for limit in process.rlimits().iter().flatten() {
            if limit.soft() > limit.hard() {
                return Err(invalid(format!("rlimit {}: the soft limit is above the hard one", limit.typ())));
            }
            let (name, resource) = (limit.typ().to_string(), resource(limit.typ()));
            if limits.iter().any(|other: &Limit| other.resource == resource) {
                // config.md, "POSIX process", rlimits.
                return Err(invalid(format!("rlimit {name} is given twice")));
            }
            limits.push(Limit { name, resource, soft: limit.soft(), hard: limit.hard() });
        }
        let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        Ok(Self {
            arguments: arguments.iter().map(|argument| c_string("args", argument)).collect::<Result<_, _>>()?,
            environment: process.env().clone().unwrap_or_default(),
            working_directory: clean(process.cwd())?,
            user: who,
            umask: process.user().umask().unwrap_or(0o022),
            capabilities: CapabilitySets::from_spec(process.capabilities().as_ref()),
            limits,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adjustment: process.oom_score_adj(),
            apparmor_profile: label("apparmorProfile", process.apparmor_profile())?,
            selinux_label: label("selinuxLabel", process.selinux_label())?,
            scheduling: Scheduling::new(spec, process)?,
            filter: filter.map(seccomp::compile).transpose()?,
        })
    }

    /// The environment for execve(2), with HOME if it has none.
    pub(crate) fn environment_with_home(&self, home: &str) -> Result<Vec<CString>, RuntimeError> {
        let has_home = self.environment.iter().any(|entry| entry.starts_with("HOME="));
        let extra = (!has_home).then(|| format!("HOME={home}"));
        self.environment.iter().chain(&extra).map(|entry| c_string("env", entry)).collect()
    }
}

/// The last number of 32 bits is no id: setresuid(2) and chown(2) take it for "as it is", which is root's.
pub(super) fn check_id(what: &str, id: u32) -> Result<(), RuntimeError> {
    match id {
        u32::MAX => Err(invalid(format!("{what}: {id} is no id"))),
        _ => Ok(()),
    }
}

/// An empty label is none. The kernel reads one up to where it ends for C.
fn label(what: &str, label: &Option<String>) -> Result<Option<String>, RuntimeError> {
    match label {
        Some(label) if label.contains(['\0', '\n']) => {
            Err(invalid(format!("process.{what}: {label:?} contains a null byte or a line's end")))
        }
        label => Ok(label.clone().filter(|label| !label.is_empty())),
    }
}

/// A string without a null byte.
pub(crate) fn c_string(what: &str, text: &str) -> Result<CString, RuntimeError> {
    CString::new(text).map_err(|_| invalid(format!("process.{what}: {text:?} contains a null byte")))
}

fn resource(kind: PosixRlimitType) -> libc::__rlimit_resource_t {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}
