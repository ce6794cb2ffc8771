//! The configuration file: read, and checked key by key.

use std::path::Path;

use serde_json::Value;

use crate::keys::{Fate, fate, nearest};
use crate::{Keys, SettingsError};

/// Where it lies unless `--config-file` names another place. Nothing there is no error.
pub const DEFAULT_PATH: &str = "/etc/dozen/daemon.json";

/// Reads the file. `may_be_missing`: nobody has named it.
///
/// # Errors
/// It cannot be read, is no JSON object, or has a key that does not act.
pub fn read(path: &Path, may_be_missing: bool) -> Result<Keys, SettingsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text),
        Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => Ok(Keys::new()),
        Err(error) => Err(SettingsError::Unreadable(error)),
    }
}

fn parse(text: &str) -> Result<Keys, SettingsError> {
    // Docker takes an empty file for an empty object.
    if text.trim().is_empty() {
        return Ok(Keys::new());
    }
    let keys = match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Value::Object(keys)) => keys,
        Ok(_) => return Err(SettingsError::Malformed("it is not a JSON object".into())),
        Err(error) => return Err(SettingsError::Malformed(error.to_string())),
    };
    check(&keys)?;
    Ok(keys)
}

/// Every key is known and acts.
fn check(keys: &Keys) -> Result<(), SettingsError> {
    let unknown: Vec<String> = keys.keys().filter(|key| fate(key).is_none()).cloned().collect();
    if let Some(first) = unknown.first() {
        let nearest = nearest(first);
        return Err(SettingsError::Unknown { unknown, nearest });
    }
    for key in keys.keys() {
        if let Some(Fate::Refused(reason)) = fate(key) {
            return Err(SettingsError::Refused { key: key.clone(), reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dozen_model::{Classified, error_chain};

    #[test]
    fn a_key_acts_or_is_refused_by_name() {
        let refusal = |text: &str| parse(text).unwrap_err();
        for (text, words) in [
            ("[]", "it is not a JSON object"),
            ("{\"debug\": tru}", "line 1 column"),
            (
                "{\"log_driver\": \"x\", \"mine\": 1}",
                "the following directives don't match any configuration option: log_driver, mine",
            ),
            ("{\"bridge\": \"br0\"}", "the configuration option bridge is refused: of the default bridge only"),
            ("{\"shutdown-timeout\": 5}", "shutdown-timeout is refused: the engine's end does not end containers"),
        ] {
            let error = refusal(text);
            assert!(error.to_string().contains(words), "{text}: {error}");
        }
        assert_eq!(refusal("{\"log_driver\": \"x\"}").hint().as_deref(), Some("did you mean log-driver?"));
        for fine in ["", " \n", "{}", "\u{feff}{\"debug\": true}"] {
            assert!(parse(fine).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn a_file_that_was_named_is_there() {
        let missing = Path::new("/nonexistent/daemon.json");
        assert!(read(missing, true).unwrap().is_empty());
        assert!(error_chain(&read(missing, false).unwrap_err()).contains("No such file"));
    }
}
