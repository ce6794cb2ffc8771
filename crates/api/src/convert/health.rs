//! `Healthcheck`, `HostConfig.OnUnhealthy` (dozen's own), and what of a container's state is about its health.

use dozen_engine::{Health, HealthStatus, Phase, Snapshot};
use dozen_model::{HealthCheck, HealthTest, OnUnhealthy};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;

/// No duration between 0, which means the default, and this one is taken.
const SHORTEST_NS: i64 = 1_000_000;

/// As clients send it, and as images have it. Durations are in nanoseconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Requested {
    pub(crate) test: Option<Vec<String>>,
    pub(crate) interval: i64,
    pub(crate) timeout: i64,
    pub(crate) start_period: i64,
    pub(crate) start_interval: i64,
    pub(crate) retries: i64,
}

/// The user's check, and where it says nothing, the image's: each part for itself, as Docker merges them. What an image
/// has that is none is passed over, with a warning.
pub(crate) fn check(
    requested: Option<&Requested>,
    image: Option<&Requested>,
    shell: Option<&[String]>,
    on_unhealthy: &str,
    warnings: &mut Vec<String>,
) -> Result<Option<HealthCheck>, ApiError> {
    let on_unhealthy = action(on_unhealthy)?;
    let own = requested.cloned().unwrap_or_default();
    validate(&own)?;
    let image = image.filter(|image| match validate(image).and_then(|()| test(image.test.as_deref().unwrap_or(&[]))) {
        Ok(_) => true,
        Err(error) => {
            warnings.push(format!("The image's HEALTHCHECK is passed over: {}", error.message));
            false
        }
    });
    let image = image.cloned().unwrap_or_default();
    let or = |own: i64, image: i64| if own == 0 { image } else { own }.unsigned_abs();
    let words = own.test.filter(|words| !words.is_empty()).or(image.test).unwrap_or_default();
    let is_disabled = words.first().is_some_and(|kind| kind == "NONE");
    let test = test(&words)?;
    if test == HealthTest::None {
        if on_unhealthy != OnUnhealthy::None {
            return Err(ApiError::invalid("on-unhealthy needs a health check")
                .with_hint("give one with --health-cmd, or use an image that has one"));
        }
        return Ok(is_disabled.then(HealthCheck::default));
    }
    Ok(Some(HealthCheck {
        test,
        interval_ns: or(own.interval, image.interval),
        timeout_ns: or(own.timeout, image.timeout),
        start_period_ns: or(own.start_period, image.start_period),
        start_interval_ns: or(own.start_interval, image.start_interval),
        retries: u32::try_from(or(own.retries, image.retries)).unwrap_or(u32::MAX),
        shell: shell.unwrap_or_default().to_vec(),
        on_unhealthy,
    }))
}

fn validate(check: &Requested) -> Result<(), ApiError> {
    for (name, nanoseconds) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if nanoseconds != 0 && nanoseconds < SHORTEST_NS {
            return Err(ApiError::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(ApiError::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

fn test(words: &[String]) -> Result<HealthTest, ApiError> {
    let Some((kind, words)) = words.split_first() else { return Ok(HealthTest::None) };
    if words.iter().any(|word| word.contains('\0')) {
        return Err(ApiError::invalid("Test in Healthcheck contains a null byte"));
    }
    match kind.as_str() {
        "NONE" | "" => Ok(HealthTest::None),
        "CMD" | "CMD-SHELL" if words.is_empty() => {
            Err(ApiError::invalid(format!("Test in Healthcheck has no command behind {kind}")))
        }
        "CMD" => Ok(HealthTest::Exec(words.to_vec())),
        "CMD-SHELL" => Ok(HealthTest::Shell(words.to_vec())),
        other => Err(ApiError::invalid(format!("unknown healthcheck type '{other}' (expected 'CMD')"))
            .with_hint("a Test begins with CMD, CMD-SHELL or NONE")),
    }
}

fn action(name: &str) -> Result<OnUnhealthy, ApiError> {
    if name.is_empty() {
        return Ok(OnUnhealthy::None);
    }
    OnUnhealthy::ALL.into_iter().find(|action| action.name() == name).ok_or_else(|| {
        ApiError::invalid(format!(
            "invalid action on unhealthy '{name}': use one of 'none', 'restart', 'stop', or 'kill'"
        ))
    })
}

/// `Config.Healthcheck`, as it was asked for; what has its default is left out.
pub(crate) fn add_to_config(check: Option<&HealthCheck>, config: &mut Value) {
    let Some(check) = check else { return };
    config["Healthcheck"] = dozen_engine::healthcheck_config(check);
}

/// `HostConfig.OnUnhealthy`, where something follows.
pub(crate) fn add_to_host_config(check: Option<&HealthCheck>, host_config: &mut Value) {
    if let Some(check) = check.filter(|check| check.on_unhealthy != OnUnhealthy::None) {
        host_config["OnUnhealthy"] = json!(check.on_unhealthy.name());
    }
}

/// `State.Health`, where there is a check.
pub(crate) fn add_to_state(snapshot: &Snapshot, state: &mut Value) {
    let Some(health) = &snapshot.health else { return };
    let log = health.log.iter().map(|result| {
        json!({
            "Start": result.start.to_string(),
            "End": result.end.to_string(),
            "ExitCode": result.exit_code,
            "Output": result.output,
        })
    });
    state["Health"] = json!({
        "Status": health.status.as_str(),
        "FailingStreak": health.failing_streak,
        "Log": log.collect::<Vec<_>>(),
    });
}

/// The word that the filter `health` compares.
pub(crate) fn word(snapshot: &Snapshot) -> &'static str {
    snapshot.health.as_ref().map_or("none", |health| health.status.as_str())
}

/// What follows the status of a running container in a listing: ` (healthy)`.
pub(crate) fn suffix(snapshot: &Snapshot) -> &'static str {
    match (&snapshot.phase, snapshot.health.as_deref()) {
        (Phase::Running(run), Some(Health { status, .. })) if !run.is_paused => match status {
            HealthStatus::Starting => " (health: starting)",
            HealthStatus::Healthy => " (healthy)",
            HealthStatus::Unhealthy => " (unhealthy)",
        },
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(value: Value) -> Requested {
        serde_json::from_value(value).unwrap()
    }

    fn merged(
        own: Option<Value>,
        image: Option<Value>,
        action: &str,
    ) -> (Result<Option<HealthCheck>, ApiError>, Vec<String>) {
        let (own, image) = (own.map(requested), image.map(requested));
        let mut warnings = Vec::new();
        let merged = check(own.as_ref(), image.as_ref(), Some(&["/bin/ash".to_owned()]), action, &mut warnings);
        (merged, warnings)
    }

    #[test]
    fn the_users_parts_come_before_the_images() {
        let image =
            json!({"Test": ["CMD-SHELL", "wget -q -O- localhost"], "Interval": 5_000_000_000_i64, "Retries": 7});
        let shown = |own: Option<Value>, image: Option<Value>| {
            let mut config = json!({});
            add_to_config(merged(own, image, "").0.unwrap().as_ref(), &mut config);
            config.get("Healthcheck").cloned()
        };
        assert_eq!(shown(None, None), None);
        assert_eq!(shown(None, Some(image.clone())), Some(image.clone()));
        let mine = json!({"Test": ["CMD", "true"], "Retries": 1, "StartInterval": 2_000_000});
        assert_eq!(shown(Some(mine.clone()), None), Some(mine.clone()));
        let both =
            json!({"Test": ["CMD", "true"], "Interval": 5_000_000_000_i64, "StartInterval": 2_000_000, "Retries": 1});
        assert_eq!(shown(Some(mine), Some(image.clone())), Some(both));
        let off = json!({"Test": ["NONE"]});
        assert_eq!(shown(Some(off.clone()), Some(image.clone())), Some(off));
        let command =
            merged(Some(json!({"Interval": 1_000_000})), Some(image), "").0.unwrap().unwrap().command().unwrap();
        assert_eq!(command, ["/bin/ash", "wget -q -O- localhost"]);
    }

    #[test]
    fn what_cannot_be_is_refused_and_of_an_image_passed_over() {
        for (own, action, words) in [
            (
                json!({"Test": ["CMD", "true"], "Interval": 999_999}),
                "",
                "Interval in Healthcheck cannot be less than 1ms",
            ),
            (json!({"Test": ["CMD", "true"], "Timeout": -1}), "", "Timeout in Healthcheck cannot be less"),
            (json!({"Test": ["CMD", "true"], "Retries": -1}), "", "Retries in Healthcheck cannot be negative"),
            (json!({"Test": ["RUN", "true"]}), "", "unknown healthcheck type 'RUN'"),
            (json!({"Test": ["CMD"]}), "", "no command behind CMD"),
            (json!({"Test": ["CMD", "true"]}), "panic", "invalid action on unhealthy 'panic'"),
            (json!({"Test": ["NONE"]}), "kill", "needs a health check"),
            (json!({}), "restart", "needs a health check"),
        ] {
            let message = merged(Some(own), None, action).0.unwrap_err().message;
            assert!(message.contains(words), "{message}");
        }
        let (passed_over, warnings) = merged(None, Some(json!({"Test": ["RUN", "true"]})), "");
        assert_eq!(passed_over, Ok(None));
        assert!(warnings[0].contains("HEALTHCHECK is passed over"), "{warnings:?}");
    }
}
