//! Which system an image has (os-release(5)).

use super::is_word;

/// See the module. Empty where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// `debian`, `ubuntu`, `alpine`…
    pub id: String,
    /// `12`.
    pub version: String,
}

impl Release {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
            let value = line.unwrap_or_default().trim_matches(['"', '\'']);
            if is_word(value) { value.to_owned() } else { String::new() }
        };
        Self { id: value("ID"), version: value("VERSION_ID") }
    }
}
