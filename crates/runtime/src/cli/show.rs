//! What is printed: `state`, `list`, `features`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::state::{Directory, Record, Status};
use crate::error::{Context, RuntimeError};

pub(super) fn print_state(directory: &Directory) -> Result<(), RuntimeError> {
    let record = directory.read()?;
    print(&state_of(&record))
}

pub(super) fn list(root: &Path, quiet: bool, format: &str) -> Result<(), RuntimeError> {
    let mut records = Vec::new();
    match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries.context(|| format!("read {}", root.display()))?.flatten() {
                let id = entry.file_name().to_string_lossy().into_owned();
                // One that is just being made or removed is not listed.
                records.extend(Directory::of(root, &id).and_then(|directory| directory.read()));
            }
        }
    }
    records.sort_by(|a, b| a.id.cmp(&b.id));
    let mut out = io::stdout();
    let context = || "write to standard output".to_owned();
    match (quiet, format) {
        (true, _) => records.iter().try_for_each(|record| writeln!(out, "{}", record.id)).context(context),
        (_, "json") => print(&records.iter().map(state_of).collect()),
        (_, "table") => {
            writeln!(out, "{:<12} {:<10} {:<10} {:<24} BUNDLE", "ID", "PID", "STATUS", "CREATED").context(context)?;
            records
                .iter()
                .try_for_each(|record| {
                    let status = format!("{:?}", record.status()).to_lowercase();
                    let pid = if status == "stopped" { 0 } else { record.pid };
                    writeln!(
                        out,
                        "{:<12} {pid:<10} {status:<10} {:<24} {}",
                        record.id,
                        record.created,
                        record.bundle.display()
                    )
                })
                .context(context)
        }
        (_, other) => Err(RuntimeError::Invalid(format!("invalid format {other:?}: want table or json"))),
    }
}

/// runtime.md, "State".
fn state_of(record: &Record) -> serde_json::Value {
    let status = record.status();
    let mut state = serde_json::json!({
        "ociVersion": "1.0.2",
        "id": record.id,
        "status": status,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "bundle": record.bundle,
        "created": record.created,
    });
    if let Some(annotations) = &record.annotations {
        state["annotations"] = serde_json::json!(annotations);
    }
    state
}

/// features.md of the runtime specification.
pub(super) fn features() -> serde_json::Value {
    let capabilities: Vec<String> =
        crate::capability::names(crate::capability::ALL).map(|name| format!("CAP_{name}")).collect();
    serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "archs": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
        },
    })
}

pub(super) fn print(value: &serde_json::Value) -> Result<(), RuntimeError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
    writeln!(io::stdout(), "{text}").context(|| "write to standard output".to_owned())
}
