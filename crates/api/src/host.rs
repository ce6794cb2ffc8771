//! Facts about the host, for `info` and `version`.

/// The architecture in Docker's word.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `uname -m`, `uname -r` and the host's name.
pub(crate) struct Uname {
    pub(crate) machine: String,
    pub(crate) release: String,
    pub(crate) hostname: String,
}

pub(crate) fn uname() -> Uname {
    let uname = rustix::system::uname();
    Uname {
        machine: uname.machine().to_string_lossy().into_owned(),
        release: uname.release().to_string_lossy().into_owned(),
        hostname: uname.nodename().to_string_lossy().into_owned(),
    }
}

/// Bytes of memory, from /proc/meminfo (proc(5)); 0 if that cannot be read.
pub(crate) fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok()));
    kibibytes.unwrap_or(0) * 1024
}

/// PRETTY_NAME and VERSION_ID of os-release(5).
pub(crate) fn operating_system() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim_matches('"').to_owned())
    };
    (field("PRETTY_NAME=").unwrap_or_else(|| "Linux".into()), field("VERSION_ID=").unwrap_or_default())
}

/// Whether a switch in /proc/sys is on.
pub(crate) fn sysctl_is_on(path: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/{path}")).is_ok_and(|value| value.trim() != "0")
}
