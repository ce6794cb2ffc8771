//! File, environment and flags, one over the other.

use crate::{Keys, Settings, SettingsError};

/// What was said where. All by Docker's names of the keys; the file's have been checked by [`crate::read`].
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The configuration file's.
    pub file: Keys,
    /// The environment's, which go before the file's.
    pub environment: Keys,
    /// The command line's, which go before all. None of them may be in the file too: Docker's rule.
    pub flags: Keys,
}

/// What holds.
///
/// # Errors
/// A key is both in the file and on the command line, or a value cannot be right.
pub fn merge(layers: Layers) -> Result<Settings, SettingsError> {
    let Layers { file, environment, flags } = layers;
    let twice: Vec<String> = flags
        .iter()
        .filter_map(|(key, flag)| Some(format!("{key}: (from flag: {flag}, from file: {})", file.get(key)?)))
        .collect();
    if !twice.is_empty() {
        return Err(SettingsError::Twice(twice));
    }
    let mut keys = file;
    keys.extend(environment);
    keys.extend(flags);
    Settings::of(&keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keys(value: serde_json::Value) -> Keys {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_said_twice_is_refused_in_dockers_words() {
        let layers = Layers {
            file: keys(json!({ "debug": false, "hosts": ["unix:///a"], "labels": ["a=1"] })),
            environment: keys(json!({ "hosts": ["unix:///b"] })),
            flags: keys(json!({ "debug": true })),
        };
        assert_eq!(
            merge(layers.clone()).unwrap_err().to_string(),
            "the following directives are specified both as a flag and in the configuration file: \
             debug: (from flag: true, from file: false)"
        );
        let settings = merge(Layers { flags: keys(json!({ "group": "7" })), ..layers }).unwrap();
        assert_eq!(settings.hosts, ["unix:///b"]);
        assert_eq!((settings.labels.as_slice(), settings.group.as_deref()), (&["a=1".to_owned()][..], Some("7")));
    }
}
