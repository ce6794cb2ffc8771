//! apk's database (apk-package(5), "Installed database": a letter, a colon and a value on each line).

use super::fields::Fields;
use super::{Manager, Package};

pub(super) fn read(bytes: &[u8], found: &mut dyn FnMut(Package)) {
    Fields::groups(bytes, ["P", "V", "A", "L", "o"], &mut |group| {
        let (Some(name), Some(version)) = (group.get("P"), group.get("V")) else { return };
        found(Package {
            manager: Manager::Alpine,
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: group.get("A").map(str::to_owned),
            source: group.get("o").filter(|source| *source != name).map(|source| (source.to_owned(), None)),
            license: group.get("L").map(str::to_owned),
            found_in: String::new(),
        });
    });
}
