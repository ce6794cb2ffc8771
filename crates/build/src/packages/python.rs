//! What stands beside a Python package (packaging.python.org, "Core metadata specifications"): headers, and then perhaps a
//! text.

use super::fields::Fields;
use super::{Manager, Package};

pub(super) fn read(bytes: &[u8]) -> Option<Package> {
    let mut found = None;
    let names = ["Name", "Version", "License", "License-Expression"];
    // The first group is the headers.
    Fields::groups(headers(bytes), names, &mut |group| {
        let (Some(name), Some(version)) = (group.get("Name"), group.get("Version")) else { return };
        let license = group.get("License-Expression").or_else(|| group.get("License"));
        found.get_or_insert_with(|| Package {
            manager: Manager::Python,
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: None,
            source: None,
            license: license.map(str::to_owned),
            found_in: String::new(),
        });
    });
    found
}

fn headers(bytes: &[u8]) -> &[u8] {
    let ends = [&b"\n\n"[..], b"\n\r\n"].map(|end| bytes.windows(end.len()).position(|window| window == end));
    ends.into_iter().flatten().min().map_or(bytes, |end| &bytes[..end])
}
