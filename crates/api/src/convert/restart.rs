//! `HostConfig.RestartPolicy`, and what of a container's state is about restarts.

use dozen_engine::{Phase, Snapshot};
use dozen_model::{HealthCheck, OnUnhealthy, RestartPolicy};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;

/// As clients send it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Requested {
    pub(crate) name: String,
    pub(crate) maximum_retry_count: i64,
}

/// Docker's rules, in its words.
pub(crate) fn policy(requested: &Requested, auto_remove: bool) -> Result<RestartPolicy, ApiError> {
    let most = u32::try_from(requested.maximum_retry_count)
        .map_err(|_| ApiError::invalid("invalid restart policy: maximum retry count cannot be negative"))?;
    let policy = match requested.name.as_str() {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => RestartPolicy::OnFailure { most },
        other => {
            return Err(ApiError::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    if most > 0 && policy.most() == 0 {
        return Err(ApiError::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    if auto_remove && policy != RestartPolicy::No {
        return Err(ApiError::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(policy)
}

/// It cannot both remove itself and be started again.
pub(crate) fn check_recovery(health: Option<&HealthCheck>, auto_remove: bool) -> Result<(), ApiError> {
    if auto_remove && health.is_some_and(|check| check.on_unhealthy == OnUnhealthy::Restart) {
        return Err(ApiError::invalid("can't create 'AutoRemove' container that is restarted once it is unhealthy"));
    }
    Ok(())
}

/// As inspect shows it.
pub(crate) fn shown(policy: RestartPolicy) -> Value {
    json!({ "Name": policy.name(), "MaximumRetryCount": policy.most() })
}

/// Puts Docker's booleans about it into `State`, and why it runs again, which Docker does not tell.
pub(crate) fn add_to_state(snapshot: &Snapshot, state: &mut Value) {
    // Docker takes one that is about to run again for running.
    let is_waiting = matches!(snapshot.phase, Phase::Waiting(_));
    state["Restarting"] = json!(is_waiting);
    state["Paused"] = json!(snapshot.phase.is_paused());
    if is_waiting {
        state["Running"] = json!(true);
    }
    if let Some(reason) = &snapshot.restarts.reason {
        state["RestartReason"] = json!(reason.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_parse_in_dockers_words() {
        let read = |name: &str, count: i64, auto_remove| {
            policy(&Requested { name: name.into(), maximum_retry_count: count }, auto_remove)
        };
        for (name, count, want) in [
            ("", 0, RestartPolicy::No),
            ("no", 0, RestartPolicy::No),
            ("always", 0, RestartPolicy::Always),
            ("unless-stopped", 0, RestartPolicy::UnlessStopped),
            ("on-failure", 0, RestartPolicy::OnFailure { most: 0 }),
            ("on-failure", 3, RestartPolicy::OnFailure { most: 3 }),
        ] {
            let read = read(name, count, false).unwrap();
            assert_eq!(read, want);
            assert_eq!(shown(read)["MaximumRetryCount"], count);
            assert_eq!(shown(read)["Name"], if name.is_empty() { "no" } else { name });
        }
        for (name, count, auto_remove, words) in [
            ("sometimes", 0, false, "unknown policy 'sometimes'"),
            ("always", 2, false, "can only be used with 'on-failure'"),
            ("on-failure", -1, false, "cannot be negative"),
            ("always", 0, true, "can't create 'AutoRemove' container with restart policy"),
        ] {
            let message = read(name, count, auto_remove).unwrap_err().message;
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(read("no", 0, true), Ok(RestartPolicy::No));
    }
}
