//! Flags of which dozen has one value: the one that asks for what is so anyway. Scripts spell it out; any other value is
//! refused by name.

use clap::{Arg, ArgMatches};
use serde_json::{Map, Value, json};

use super::flags::{text, value};
use crate::failure::{ENGINE_FAILED, Failure};

struct Neutral {
    flag: &'static str,
    /// The one value; an empty one means it too.
    value: &'static str,
    help: &'static str,
    /// Its field of the API's `HostConfig`: another engine may have another default.
    key: &'static str,
}

const NEUTRAL: [Neutral; 1] =
    [Neutral { flag: "userns", value: "host", help: "User namespace to use (host)", key: "UsernsMode" }];

/// The flags; help does not show them, for they do nothing.
pub fn flags() -> impl Iterator<Item = Arg> {
    NEUTRAL.iter().map(|neutral| value(neutral.flag, None, "string", neutral.help).hide(true))
}

/// Puts what was given into `HostConfig`.
pub fn apply(matches: &ArgMatches, host: &mut Map<String, Value>) -> Result<(), Failure> {
    for Neutral { flag, value, key, .. } in &NEUTRAL {
        match text(matches, flag) {
            None | Some("") => {}
            Some(given) if given == *value => {
                host.insert((*key).to_owned(), json!(value));
            }
            Some(given) => {
                return Err(Failure::not_built(&format!("--{flag} {given}"))
                    .with_hint(format!("--{flag} {value} is, which is the default"))
                    .with_exit_code(ENGINE_FAILED));
            }
        }
    }
    Ok(())
}
