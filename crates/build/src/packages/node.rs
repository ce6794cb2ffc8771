//! `package.json` of a package that is installed (docs.npmjs.com, "package.json").

use serde::Deserialize;
use serde_json::Value;

use super::{Manager, Package};

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    /// A word, or, as it once was, an object with a `type`.
    #[serde(default)]
    license: Value,
}

pub(super) fn read(bytes: &[u8]) -> Option<Package> {
    let Written { name, version, license } = serde_json::from_slice(bytes).ok()?;
    let license = license.as_str().or_else(|| license.get("type")?.as_str()).map(str::to_owned);
    // What has no version is a part of another package.
    Some(Package {
        manager: Manager::Node,
        name,
        version,
        architecture: None,
        source: None,
        license,
        found_in: String::new(),
    })
}
