//! `--health-…`, `--no-healthcheck` and `--on-unhealthy`.

use clap::{Arg, ArgMatches};
use dozen_model::moment;
use serde_json::{Map, Value, json};

use super::flags::{invalid, is_on, switch, text, value};
use crate::failure::{ENGINE_FAILED, Failure};

/// Flag, field of the API's `Healthcheck`, and help.
const DURATIONS: [(&str, &str, &str); 4] = [
    ("health-interval", "Interval", "Time between running the check (ms|s|m|h) (default 30s)"),
    ("health-timeout", "Timeout", "Maximum time to allow one check to run (ms|s|m|h) (default 30s)"),
    (
        "health-start-period",
        "StartPeriod",
        "Start period for the container to initialize before failures count (ms|s|m|h)",
    ),
    (
        "health-start-interval",
        "StartInterval",
        "Time between running the check during the start period (ms|s|m|h) (default 5s)",
    ),
];

/// The flags.
pub fn flags() -> Vec<Arg> {
    let mut flags = vec![
        value("health-cmd", None, "string", "Command to run to check health"),
        value("health-retries", None, "int", "Consecutive failures needed to report unhealthy (default 3)")
            .value_parser(clap::value_parser!(i64)),
        switch("no-healthcheck", None, "Disable any container-specified HEALTHCHECK"),
        value("on-unhealthy", None, "string", "What to do once the container is unhealthy (none, restart, stop, kill)"),
    ];
    flags.extend(DURATIONS.iter().map(|(flag, _, help)| value(flag, None, "duration", help)));
    flags
}

/// The API's `Healthcheck`, if anything is asked about it; and `HostConfig.OnUnhealthy`.
pub fn apply(matches: &ArgMatches, host: &mut Map<String, Value>) -> Result<Option<Value>, Failure> {
    let mut check = Map::new();
    if let Some(command) = text(matches, "health-cmd").filter(|command| !command.is_empty()) {
        check.insert("Test".to_owned(), json!(["CMD-SHELL", command]));
    }
    for (flag, key, _) in DURATIONS {
        let Some(given) = text(matches, flag) else { continue };
        // Go takes a bare 0 for a duration, and no other bare number (time.ParseDuration).
        let nanoseconds = if given == "0" { Some(0) } else { moment::duration_ns(given) };
        let nanoseconds = nanoseconds
            .and_then(|nanoseconds| i64::try_from(nanoseconds).ok())
            .ok_or_else(|| invalid(given, flag, format!("time: invalid duration \"{given}\"")))?;
        if nanoseconds < 0 {
            return Err(refused(&format!("--{flag} cannot be negative")));
        }
        check.insert(key.to_owned(), nanoseconds.into());
    }
    if let Some(retries) = matches.get_one::<i64>("health-retries") {
        if *retries < 0 {
            return Err(refused("--health-retries cannot be negative"));
        }
        check.insert("Retries".to_owned(), (*retries).into());
    }
    if let Some(action) = text(matches, "on-unhealthy").filter(|action| !action.is_empty()) {
        host.insert("OnUnhealthy".to_owned(), action.into());
    }
    match (is_on(matches, "no-healthcheck"), check.is_empty()) {
        (true, false) => Err(refused("--no-healthcheck conflicts with --health-* options")),
        (true, true) => Ok(Some(json!({ "Test": ["NONE"] }))),
        (false, true) => Ok(None),
        (false, false) => Ok(Some(check.into())),
    }
}

fn refused(words: &str) -> Failure {
    Failure { is_prefixed: true, exit_code: ENGINE_FAILED, ..Failure::new(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> (Result<Option<Value>, String>, Value) {
        let command = clap::Command::new("run").args(flags());
        let matches = command.get_matches_from(std::iter::once("run").chain(line.iter().copied()));
        let mut host = Map::new();
        let read = apply(&matches, &mut host).map_err(|failure| failure.render());
        (read, host.into())
    }

    #[test]
    fn flags_become_the_apis_fields() {
        for (line, check) in [
            (&[][..], None),
            (&["--no-healthcheck"], Some(json!({"Test": ["NONE"]}))),
            (&["--health-cmd", "a b"], Some(json!({"Test": ["CMD-SHELL", "a b"]}))),
            (
                &["--health-retries", "2", "--health-interval", "1m30s"],
                Some(json!({"Retries": 2, "Interval": 90_000_000_000_i64})),
            ),
            (
                &["--health-timeout", "50ms", "--health-start-interval=1s"],
                Some(json!({"Timeout": 50_000_000, "StartInterval": 1_000_000_000})),
            ),
            (&["--health-start-period", "0"], Some(json!({"StartPeriod": 0}))),
        ] {
            assert_eq!(read(line).0, Ok(check), "{line:?}");
        }
        assert_eq!(read(&["--on-unhealthy", "restart"]).1, json!({"OnUnhealthy": "restart"}));
        for (line, words) in [
            (&["--health-interval", "x"][..], "invalid argument \"x\" for \"--health-interval\" flag"),
            (&["--health-interval=-1s"], "--health-interval cannot be negative"),
            (&["--health-retries=-1"], "--health-retries cannot be negative"),
            (&["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts with --health-* options"),
        ] {
            let said = read(line).0.unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }
}
