//! `signature-policy`: the file that says whose images have to be signed by whom (containers-policy.json(5)). It is read with
//! the settings, and with it the keys that it names: what holds is what was read, until the settings are read again.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_trust::Policy;

use crate::SettingsError;

/// Of a policy, and of a key.
const LARGEST_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignaturePolicy {
    /// Where it lies: told with each refusal.
    pub path: PathBuf,
    #[expect(missing_docs, reason = "plain")]
    pub policy: Arc<Policy>,
}

impl SignaturePolicy {
    pub(crate) fn read(path: PathBuf) -> Result<Self, SettingsError> {
        let bad = |why: String| SettingsError::value("signature-policy", format!("{}: {why}", path.display()));
        let text = text(&path).map_err(bad)?;
        let policy = Policy::read(&text, &text_of_key).map_err(|error| bad(error.to_string()))?;
        Ok(Self { path, policy: Arc::new(policy) })
    }
}

fn text_of_key(path: &Path) -> Result<String, String> {
    text(path)
}

fn text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().is_ok_and(|about| about.is_file()) {
        return Err("it is no file".to_owned());
    }
    file.take(LARGEST_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LARGEST_BYTES { Err("it is too large".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_wrong_is_named_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            SignaturePolicy::read(path.clone()).map_err(|error| error.to_string())
        };
        assert_eq!(read(r#"{"default":[{"type":"reject"}]}"#).unwrap().path, path);
        let error = read("{\n\"default\": [{\"type\": \"reject\", \"more\": 1}]}").unwrap_err();
        let head = format!("invalid value for the configuration option signature-policy: {}: ", path.display());
        assert!(
            error.starts_with(&head) && error.contains("unknown field `more`") && error.contains("line 2"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        let missing = SignaturePolicy::read(path.clone()).unwrap_err().to_string();
        assert!(missing.contains("No such file"), "{missing}");
        std::fs::create_dir(&path).unwrap();
        let directory = SignaturePolicy::read(path.clone()).unwrap_err().to_string();
        assert!(directory.contains("it is no file"), "{directory}");
    }
}
