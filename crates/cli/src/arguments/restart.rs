//! `--restart`.

use clap::{Arg, ArgMatches};
use serde_json::{Map, Value, json};

use super::flags::{invalid, is_on, text, value};
use crate::failure::{ENGINE_FAILED, Failure};

/// The flag.
pub fn flag() -> Arg {
    value("restart", None, "string", "Restart policy to apply when a container exits (default \"no\")")
}

/// Puts what was given to a new container into `HostConfig`. In Docker's words.
pub fn apply(matches: &ArgMatches, host: &mut Map<String, Value>) -> Result<(), Failure> {
    if put(matches, host)?.is_some_and(|name| name != "no") && is_on(matches, "rm") {
        let words = "conflicting options: cannot specify both --restart and --rm";
        return Err(Failure { is_prefixed: true, exit_code: ENGINE_FAILED, ..Failure::new(words) });
    }
    Ok(())
}

/// Puts what was given into a request; the policy's name.
pub fn put<'a>(matches: &'a ArgMatches, body: &mut Map<String, Value>) -> Result<Option<&'a str>, Failure> {
    let Some(policy) = text(matches, "restart").filter(|policy| !policy.is_empty()) else { return Ok(None) };
    let (name, most) = parse(policy).map_err(|why| invalid(policy, "restart", why))?;
    body.insert("RestartPolicy".to_owned(), json!({ "Name": name, "MaximumRetryCount": most }));
    Ok(Some(name))
}

/// `always`, `on-failure:3`. Which names there are is the engine's to say.
pub fn parse(policy: &str) -> Result<(&str, u32), String> {
    let (name, count) = match policy.split_once(':') {
        None => (policy, None),
        Some((name, count)) => (name, Some(count)),
    };
    if name.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    let most = match count {
        None => 0,
        Some(count) => count
            .parse()
            .map_err(|_| "invalid restart policy format: maximum retry count must be an integer".to_owned())?,
    };
    Ok((name, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_parse() {
        for (text, want) in [
            ("no", Ok(("no", 0))),
            ("always", Ok(("always", 0))),
            ("on-failure", Ok(("on-failure", 0))),
            ("on-failure:5", Ok(("on-failure", 5))),
            ("on-failure:x", Err("maximum retry count must be an integer")),
            ("on-failure:1:2", Err("maximum retry count must be an integer")),
            (":5", Err("no policy provided before colon")),
        ] {
            match (parse(text), want) {
                (Err(said), Err(words)) => assert!(said.contains(words), "{text}: {said}"),
                (parsed, want) => assert_eq!(parsed.map_err(|_| ""), want, "{text}"),
            }
        }
    }
}
