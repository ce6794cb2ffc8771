//! New limits for a container, running or not (Docker's `update`), and other options for its log (ours).

use std::collections::BTreeMap;

use dozen_model::{ErrorKind, LogSpec, ResourceSpec, RestartPolicy, error_chain};
use dozen_runtime::Cgroup;

use crate::EngineError;
use crate::container::change::SpecChange;
use crate::container::owner::Command;
use crate::container::{Container, logs, resources};
use crate::host_resources::HostResources;

/// Limits that replace a container's own; `None` leaves what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of the spec, with their units")]
pub struct ResourceChange {
    pub nano_cpus: Option<u64>,
    pub shares: Option<u64>,
    pub period_us: Option<u64>,
    pub quota_us: Option<i64>,
    pub cpus: Option<String>,
    pub memory_nodes: Option<String>,
    pub limit_bytes: Option<u64>,
    pub with_swap_bytes: Option<i64>,
    pub reservation_bytes: Option<u64>,
    /// `Some(None)`: no limit any more.
    pub pids_max: Option<Option<u64>>,
    pub block_io_weight: Option<u16>,
}

/// Options of the log that replace the container's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogChange {
    /// The driver that it has; empty: whichever that is.
    pub driver: String,
    /// By their names; an empty value takes an option away.
    pub options: BTreeMap<String, String>,
}

impl LogChange {
    /// The log after it. Pure.
    pub(crate) fn applied_to(&self, before: &LogSpec) -> Result<LogSpec, EngineError> {
        let name = before.driver().name();
        if !self.driver.is_empty() && self.driver != name {
            // Neither could what has been written be read by the other, nor would it be found there.
            return Err(EngineError::NotBuilt {
                message: format!("a change of the log driver ({name} to {:?}) is not built", self.driver),
                hint: Some("its options can be changed; for another driver make the container anew".to_owned()),
            });
        }
        if self.options.is_empty() {
            return Ok(before.clone());
        }
        let after = before.with(&self.options).map_err(|error| {
            let (message, hint) = (error.to_string(), error.hint.map(str::to_owned));
            match error.kind {
                ErrorKind::NotBuilt => EngineError::NotBuilt { message, hint },
                _ => EngineError::Invalid { message, hint },
            }
        })?;
        logs::check(&after)?;
        Ok(after)
    }
}

impl ResourceChange {
    /// The limits after it, by Docker's rules. Pure.
    pub(crate) fn applied_to(&self, before: &ResourceSpec) -> Result<ResourceSpec, EngineError> {
        fn replace<T: Clone>(place: &mut Option<T>, new: &Option<T>) {
            if new.is_some() {
                place.clone_from(new);
            }
        }
        let conflict = |message: &str| Err(EngineError::Invalid { message: message.to_owned(), hint: None });
        let mut after = before.clone();
        let cpu = &mut after.cpu;
        if self.nano_cpus.is_some() && cpu.period_us.is_some() {
            return conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set");
        }
        if self.nano_cpus.is_some() && cpu.quota_us.is_some_and(|quota| quota > 0) {
            return conflict("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set");
        }
        if self.period_us.is_some() && cpu.nano_cpus.is_some() {
            return conflict("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set");
        }
        if self.quota_us.is_some() && cpu.nano_cpus.is_some() {
            return conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
        }
        replace(&mut cpu.nano_cpus, &self.nano_cpus);
        if self.nano_cpus.is_some() {
            // No limit of before stands beside it.
            cpu.quota_us = None;
        }
        replace(&mut cpu.shares, &self.shares);
        replace(&mut cpu.period_us, &self.period_us);
        replace(&mut cpu.quota_us, &self.quota_us);
        cpu.cpus = self.cpus.clone().unwrap_or(std::mem::take(&mut cpu.cpus));
        cpu.memory_nodes = self.memory_nodes.clone().unwrap_or(std::mem::take(&mut cpu.memory_nodes));
        let memory = &mut after.memory;
        replace(&mut memory.limit_bytes, &self.limit_bytes);
        match (self.limit_bytes, self.with_swap_bytes, memory.with_swap_bytes) {
            (_, Some(with_swap), _) => memory.with_swap_bytes = Some(with_swap),
            (Some(limit), None, Some(with_swap)) if with_swap >= 0 && with_swap.cast_unsigned() < limit => {
                return conflict(
                    "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
                );
            }
            // As for a new container.
            (Some(limit), None, None) => memory.with_swap_bytes = i64::try_from(limit.saturating_mul(2)).ok(),
            _ => {}
        }
        if let (Some(limit), Some(with_swap)) = (memory.limit_bytes, memory.with_swap_bytes)
            && with_swap > 0
            && with_swap.cast_unsigned() < limit
        {
            return conflict("Minimum memoryswap limit should be larger than memory limit, see usage");
        }
        if memory.limit_bytes.is_none() && memory.with_swap_bytes.is_some_and(|with_swap| with_swap > 0) {
            return conflict("You should always set the Memory limit when using Memoryswap limit, see usage");
        }
        replace(&mut memory.reservation_bytes, &self.reservation_bytes);
        if let (Some(limit), Some(reservation)) = (memory.limit_bytes, memory.reservation_bytes)
            && limit < reservation
        {
            return conflict("Minimum memory limit can not be less than memory reservation limit, see usage");
        }
        after.pids_max = self.pids_max.unwrap_or(after.pids_max);
        replace(&mut after.block_io.weight, &self.block_io_weight);
        Ok(after)
    }
}

impl Container {
    /// Changes its limits, whether it runs again by itself, and its log; durable, and in force, once answered. The answer
    /// says what is in force from the next start on only.
    pub async fn update(
        &self,
        resources: ResourceChange,
        restart: Option<RestartPolicy>,
        log: LogChange,
    ) -> Result<Vec<String>, EngineError> {
        let change = SpecChange::Update { resources: Box::new(resources), restart, log };
        self.ask(|reply| Command::Change { change, reply }).await
    }
}

/// Writes the limits that differ; where one is refused, those before are written again. A cgroup that is gone has none.
pub(crate) fn carry_out(cgroup: &str, before: &ResourceSpec, after: &ResourceSpec) -> Result<(), EngineError> {
    let Some(cgroup) = Cgroup::open(cgroup)? else { return Ok(()) };
    let host = HostResources::of_host();
    let Err(error) = cgroup.update(&resources::difference(before, after, host)) else { return Ok(()) };
    if let Err(undo) = cgroup.update(&resources::difference(after, before, host)) {
        tracing::warn!(error = error_chain(&undo), "cannot undo all of an update that was refused");
    }
    Err(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: impl FnOnce(&mut ResourceSpec), change: ResourceChange, after: impl FnOnce(&mut ResourceSpec)) {
        let mut spec = ResourceSpec::default();
        before(&mut spec);
        let changed = change.applied_to(&spec).unwrap();
        after(&mut spec);
        assert_eq!(changed, spec);
    }

    #[track_caller]
    fn refused(before: impl FnOnce(&mut ResourceSpec), change: ResourceChange, words: &str) {
        let mut spec = ResourceSpec::default();
        before(&mut spec);
        assert!(change.applied_to(&spec).unwrap_err().to_string().contains(words));
    }

    #[test]
    fn what_is_given_replaces_what_was() {
        check(|_| {}, ResourceChange::default(), |_| {});
        check(
            |spec| spec.cpu.shares = Some(5),
            ResourceChange { nano_cpus: Some(7), pids_max: Some(Some(9)), ..ResourceChange::default() },
            |spec| {
                spec.cpu.nano_cpus = Some(7);
                spec.pids_max = Some(9);
            },
        );
        check(
            |spec| spec.pids_max = Some(9),
            ResourceChange { pids_max: Some(None), cpus: Some("1".into()), ..ResourceChange::default() },
            |spec| {
                spec.pids_max = None;
                spec.cpu.cpus = "1".into();
            },
        );
        // `--cpus` after `--cpu-quota -1`, which is no limit.
        check(
            |spec| spec.cpu.quota_us = Some(-1),
            ResourceChange { nano_cpus: Some(7), ..ResourceChange::default() },
            |spec| {
                spec.cpu.quota_us = None;
                spec.cpu.nano_cpus = Some(7);
            },
        );
    }

    #[test]
    fn memory_and_swap_stay_in_order() {
        let memory = |limit, with_swap| ResourceChange {
            limit_bytes: limit,
            with_swap_bytes: with_swap,
            ..ResourceChange::default()
        };
        check(
            |_| {},
            memory(Some(100), None),
            |spec| {
                spec.memory.limit_bytes = Some(100);
                spec.memory.with_swap_bytes = Some(200);
            },
        );
        let limited = |spec: &mut ResourceSpec| {
            spec.memory.limit_bytes = Some(100);
            spec.memory.with_swap_bytes = Some(200);
        };
        check(limited, memory(Some(150), None), |spec| spec.memory.limit_bytes = Some(150));
        check(limited, memory(None, Some(-1)), |spec| spec.memory.with_swap_bytes = Some(-1));
        refused(limited, memory(Some(300), None), "update the memoryswap at the same time");
        refused(limited, memory(None, Some(50)), "Minimum memoryswap limit should be larger");
        refused(|_| {}, memory(None, Some(50)), "You should always set the Memory limit");
        let reserved = |spec: &mut ResourceSpec| spec.memory.reservation_bytes = Some(100);
        refused(reserved, memory(Some(50), None), "can not be less than memory reservation");
    }

    #[test]
    fn options_of_a_log_change_and_its_driver_does_not() {
        let log = LogSpec::parse("json-file", &BTreeMap::from([("max-size".into(), "1m".into())])).unwrap();
        let change = |driver: &str, options: &[(&str, &str)]| {
            let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            LogChange { driver: driver.to_owned(), options }.applied_to(&log)
        };
        assert_eq!(change("", &[]).unwrap(), log);
        let files = change("json-file", &[("max-size", "2k"), ("max-file", "4")]).unwrap().files().unwrap();
        assert_eq!((files.file_size_bytes, files.files), (2000, 4));
        for (driver, options, words) in [
            ("local", &[][..], "a change of the log driver (json-file to \"local\") is not built"),
            ("", &[("max-sise", "1m")], "unknown log opt 'max-sise' for json-file log driver"),
            ("", &[("labels-regex", "(")], "invalid value for the log option labels-regex"),
            ("", &[("mode", "non-blocking")], "is not built yet"),
        ] {
            let error = change(driver, options).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn cpus_and_quota_exclude_each_other() {
        let nano = ResourceChange { nano_cpus: Some(1), ..ResourceChange::default() };
        refused(|spec| spec.cpu.period_us = Some(1000), nano.clone(), "as CPU Period has already been set");
        refused(|spec| spec.cpu.quota_us = Some(1000), nano, "as CPU Quota has already been set");
        let quota = ResourceChange { quota_us: Some(1000), ..ResourceChange::default() };
        refused(|spec| spec.cpu.nano_cpus = Some(1), quota, "CPU Quota cannot be updated");
        let period = ResourceChange { period_us: Some(1000), ..ResourceChange::default() };
        refused(|spec| spec.cpu.nano_cpus = Some(1), period, "CPU Period cannot be updated");
    }
}
