//! dpkg's database (deb-control(5), dpkg-query(1) for the states).

use super::fields::Fields;
use super::{Manager, Package};

pub(super) fn read(bytes: &[u8], found: &mut dyn FnMut(Package)) {
    let names = ["Package", "Version", "Architecture", "Source", "Status"];
    Fields::groups(bytes, names, &mut |group| {
        let (Some(name), Some(version)) = (group.get("Package"), group.get("Version")) else { return };
        // "want, flag, state"; of one that is removed the settings may be left. A file of its own says nothing of it.
        let is_there = group.get("Status").is_none_or(|status| status.split(' ').nth(2) == Some("installed"));
        if !is_there {
            return;
        }
        found(Package {
            manager: Manager::Debian,
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: group.get("Architecture").map(str::to_owned),
            source: group.get("Source").map(source),
            license: None,
            found_in: String::new(),
        });
    });
}

/// `glibc`, or `gcc-12 (12.2.0-14)`.
fn source(text: &str) -> (String, Option<String>) {
    match text.split_once(" (") {
        Some((name, version)) => (name.to_owned(), Some(version.trim_end_matches(')').to_owned())),
        None => (text.to_owned(), None),
    }
}
