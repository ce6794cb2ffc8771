//! A spec's JSON as the specification has it, where the types that it is read into are stricter or name it otherwise.
//!
//! What they take is taken as it is; only a text that they refuse is looked at once more.

use oci_spec::runtime::{Capability, Process};
use serde_json::{Error, Value};

use crate::Spec;

/// A container's configuration, and what was left out of it, for the user.
pub(crate) fn read_spec(json: &[u8]) -> Result<(Spec, Vec<String>), Error> {
    let read = serde_json::from_slice(json).map(|spec| (spec, Vec::new())).or_else(|error| {
        let mut whole: Value = serde_json::from_slice(json)?;
        let process = whole.get_mut("process").ok_or(error)?;
        let warnings = mend(process);
        serde_json::from_value(whole).map(|spec| (spec, warnings))
    });
    let (mut spec, warnings): (Spec, _) = read?;
    if let Some(shares) = spec.linux_mut().as_mut().and_then(|linux| linux.intel_rdt_mut().as_mut()) {
        // They know these by other names, and so not at all.
        let whole: Value = serde_json::from_slice(json)?;
        let asked = |field: &str| whole.pointer(&format!("/linux/intelRdt/{field}")).map(|value| value != false);
        shares.set_enable_cmt(asked("enableCMT")).set_enable_mbm(asked("enableMBM"));
    }
    Ok((spec, warnings))
}

/// The same for one process.
pub(crate) fn read_process(json: &[u8]) -> Result<(Process, Vec<String>), Error> {
    serde_json::from_slice(json).map(|process| (process, Vec::new())).or_else(|_| {
        let mut process: Value = serde_json::from_slice(json)?;
        let warnings = mend(&mut process);
        serde_json::from_value(process).map(|process| (process, warnings))
    })
}

fn mend(process: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    // "Any value which cannot be mapped to a relevant kernel interface [...] MUST be logged as a warning by the runtime.
    // Runtimes SHOULD NOT fail" (config.md, "process.capabilities").
    for set in
        process.get_mut("capabilities").and_then(Value::as_object_mut).into_iter().flat_map(|sets| sets.values_mut())
    {
        if let Some(names) = set.as_array_mut() {
            names.retain(|name| {
                let is_known = !name.is_string() || serde_json::from_value::<Capability>(name.clone()).is_ok();
                if !is_known && !unknown.contains(name) {
                    unknown.push(name.clone());
                }
                is_known
            });
        }
    }
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let name = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = name.into();
    }
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        // Blanks in a list mean nothing, an empty one means none.
        for list in affinity.values_mut() {
            if let Value::String(text) = list {
                text.retain(|letter| !letter.is_whitespace());
            }
        }
        affinity.retain(|_, list| list != "");
    }
    unknown.iter().map(|name| format!("unknown or unavailable capability {name}: it is left out")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(process: Value) -> Result<(Process, Vec<String>), Error> {
        let mut whole = json!({"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}});
        whole.as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
        let alone = read_process(whole.to_string().as_bytes());
        let spec = read_spec(json!({"ociVersion": "1.2.0", "process": whole}).to_string().as_bytes());
        match (alone, spec) {
            (Ok(alone), Ok((spec, warnings))) => {
                assert_eq!((spec.process().as_ref(), &warnings), (Some(&alone.0), &alone.1));
                Ok(alone)
            }
            (alone, spec) => {
                assert!(alone.is_err() && spec.is_err());
                alone
            }
        }
    }

    #[test]
    fn unknown_capabilities_are_left_out() {
        let sets = json!({"bounding": ["CAP_KILL", "CAP_TEST"], "effective": ["CAP_TEST", "CAP_CHOWN"]});
        let (process, warnings) = read(json!({ "capabilities": sets })).unwrap();
        let sets = process.capabilities().as_ref().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len() + sets.effective().as_ref().unwrap().len(), 2);
        assert_eq!(warnings, [r#"unknown or unavailable capability "CAP_TEST": it is left out"#]);
        assert!(read(json!({"capabilities": {"bounding": [7]}})).is_err());
        assert!(read(json!({"capabilities": 7})).is_err());
    }

    #[test]
    fn names_of_the_specification_are_known() {
        let flags = [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ];
        let (process, warnings) = read(json!({"scheduler": {"policy": "SCHED_DEADLINE", "flags": flags}})).unwrap();
        let scheduler = process.scheduler().as_ref().unwrap();
        assert_eq!((scheduler.flags().as_ref().unwrap().len(), warnings.len()), (flags.len(), 0));
        assert!(read(json!({"scheduler": {"policy": "SCHED_NOPE"}})).is_err());
        let (process, _) = read(json!({"execCPUAffinity": {"initial": "", "final": "0 - 3, 5"}})).unwrap();
        let affinity = process.exec_cpu_affinity().as_ref().unwrap();
        assert_eq!((affinity.initial(), affinity.cpu_affinity_final()), (&None, &Some("0-3,5".to_owned())));
        assert!(read(json!({"execCPUAffinity": {"final": "a"}})).is_err());
    }
}
