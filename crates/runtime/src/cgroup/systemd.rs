//! Containers as scopes of systemd's (systemd.scope(5); "The New Control Group Interfaces" on systemd.io).
//!
//! The manager makes the cgroup, keeps its hands off what is in it (`Delegate=`), and shows it among its units. Everything
//! else is done to the control files as without it.

mod connection;
mod message;
mod placeholder;
mod properties;
mod shutdown;
#[cfg(test)]
mod tests;

use self::connection::{BusError, Connection};
use self::message::{Value, Writer};
pub(crate) use self::placeholder::Placeholder;
pub use self::shutdown::machine_goes_down;
use super::limits::Setting;
use crate::error::RuntimeError;

/// Where a scope is that does not say.
const DEFAULT_SLICE: &str = "system.slice";
/// What systemd takes for a name (systemd.unit(5)).
const MOST_NAME_BYTES: usize = 255;

/// A scope, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// `system.slice`.
    slice: String,
    /// `dozen-ID.scope`.
    unit: String,
}

impl Scope {
    /// `slice:prefix:name`, the form in which OCI runtimes are given a scope; `None` for all that cannot be one. The slice
    /// may be empty.
    pub(super) fn parse(name: &str) -> Option<Result<Self, RuntimeError>> {
        let parts: Vec<&str> = name.split(':').collect();
        let [slice, prefix, name] = parts[..] else { return None };
        if slice.starts_with('/') {
            return None;
        }
        let slice = if slice.is_empty() { DEFAULT_SLICE } else { slice };
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        let scope = Self { slice: slice.to_owned(), unit };
        Some(scope.check().map(|()| scope))
    }

    fn check(&self) -> Result<(), RuntimeError> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        for name in [&self.slice, &self.unit] {
            if name.len() > MOST_NAME_BYTES || name.starts_with('.') || !name.bytes().all(letter) {
                return Err(RuntimeError::Invalid(format!("{name:?} is no name of a unit of systemd's")));
            }
        }
        self.directory().map(drop)
    }

    /// Its cgroup below every hierarchy's mount point: `a.slice/a-b.slice/dozen-ID.scope`. A slice's name says in which
    /// others it is (systemd.slice(5)).
    pub(super) fn directory(&self) -> Result<String, RuntimeError> {
        let invalid = || RuntimeError::Invalid(format!("{:?} is no name of a slice of systemd's", self.slice));
        let whole = self.slice.strip_suffix(".slice").ok_or_else(invalid)?;
        let mut directory = String::new();
        if whole != "-" {
            let mut prefix = String::new();
            for part in whole.split('-') {
                if part.is_empty() {
                    return Err(invalid());
                }
                prefix.push_str(part);
                directory.push_str(&format!("{prefix}.slice/"));
                prefix.push('-');
            }
        }
        Ok(directory + &self.unit)
    }

    /// Has it made around a process of ours, which systemd moves there.
    pub(super) fn start(&self, pid: i32, unified: bool) -> Result<(), RuntimeError> {
        let mut connection = Connection::open()?;
        self.start_over(&mut connection, pid, unified)
    }

    fn start_over(&self, connection: &mut Connection, pid: i32, unified: bool) -> Result<(), RuntimeError> {
        let action = || format!("start {}", self.unit);
        let properties = [
            ("Description", Value::Text(format!("container {}", self.unit.trim_end_matches(".scope")))),
            ("Slice", Value::Text(self.slice.clone())),
            ("PIDs", Value::Numbers(vec![pid as u32])),
            ("Delegate", Value::Flag(true)),
            ("MemoryAccounting", Value::Flag(true)),
            ("CPUAccounting", Value::Flag(true)),
            (if unified { "IOAccounting" } else { "BlockIOAccounting" }, Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
            // It ends when we say so, also while the machine goes down.
            ("DefaultDependencies", Value::Flag(false)),
            // One that has failed is not kept for anyone to look at.
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        ];
        let mut body = Writer::default();
        body.text(&self.unit).text("replace").properties(&properties).array(8, |_no_other_units| {});
        let mut start = || connection.run_job("StartTransientUnit", "ssa(sv)a(sa(sv))", &body);
        let mut started = start();
        if matches!(&started, Err(error) if error.is("UnitExists")) {
            // What has failed under this name before may be in the way.
            let _ = reset(connection, &self.unit);
            started = connection.run_job("StartTransientUnit", "ssa(sv)a(sa(sv))", &body);
        }
        match started {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                let _ = reset(connection, &self.unit);
                Err(BusError::Broken(format!("its job has ended as {result:?}")).during(action()))
            }
            Err(error) if error.is("UnitExists") => {
                Err(RuntimeError::Conflict(format!("systemd has a unit {} already", self.unit)))
            }
            Err(error) => Err(error.during(action())),
        }
    }

    /// Has it removed, once nobody is in it. One that is gone is as wanted.
    pub(super) fn stop(&self) -> Result<(), RuntimeError> {
        self.stop_over(&mut Connection::open()?)
    }

    fn stop_over(&self, connection: &mut Connection) -> Result<(), RuntimeError> {
        let mut body = Writer::default();
        body.text(&self.unit).text("replace");
        let stopped = connection.run_job("StopUnit", "ss", &body);
        // Also one that has failed, and is only remembered.
        let _ = reset(connection, &self.unit);
        match stopped {
            Ok(_) => Ok(()),
            Err(error) if error.is("NoSuchUnit") => Ok(()),
            Err(error) => Err(error.during(format!("stop {}", self.unit))),
        }
    }

    /// Tells systemd of limits, and returns when it has written what it writes of them.
    pub(super) fn limit(&self, settings: &[Setting], is_unified: bool) -> Result<(), RuntimeError> {
        let properties = properties::properties(settings, is_unified)?;
        let idle = properties::idle(settings).filter(|_| is_unified);
        if properties.is_empty() && idle.is_none() {
            return Ok(());
        }
        self.limit_over(&mut Connection::open()?, &properties, idle)
    }

    fn limit_over(
        &self,
        connection: &mut Connection,
        properties: &[(&str, Value)],
        idle: Option<(&str, Value)>,
    ) -> Result<(), RuntimeError> {
        let all = || {
            let mut set = |properties: &[(&str, Value)]| {
                let mut body = Writer::default();
                // Not beyond the next boot.
                body.text(&self.unit).flag(true).properties(properties);
                connection.call("SetUnitProperties", "sba(sv)", &body).map(drop)
            };
            if !properties.is_empty() {
                set(properties)?;
            }
            match idle.map(|idle| set(&[idle])) {
                Some(Err(error)) if !error.is("InvalidArgs") => Err(error),
                _ => connection.settle(),
            }
        };
        all().map_err(|error| error.during(format!("set properties of {}", self.unit)))
    }
}

fn reset(connection: &mut Connection, unit: &str) -> Result<(), BusError> {
    let mut body = Writer::default();
    body.text(unit);
    connection.call("ResetFailedUnit", "s", &body).map(drop)
}
