//! A group's number from its name: group(5), read by ourselves, because a static binary has no name service.

use std::path::Path;

const FILE: &str = "/etc/group";

/// The number of a group that is named, or given as a number.
pub(crate) fn find(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string(Path::new(FILE)).map_err(|error| format!("cannot read {FILE}: {error}"))?;
    number_of(group, &text).ok_or_else(|| {
        format!("there is no group {group:?} in {FILE}: make it with 'groupadd --system {group}', or give its number")
    })
}

fn number_of(group: &str, file: &str) -> Option<u32> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_number() {
        let file = "root:x:0:\ndocker:x:998:me,you\nbroken\nodd:x:many:\n";
        for (name, want) in [("root", Some(0)), ("docker", Some(998)), ("dock", None), ("odd", None), ("broken", None)]
        {
            assert_eq!(number_of(name, file), want, "{name}");
        }
        assert_eq!(find("4242"), Ok(4242));
        assert!(find("no-such-group").unwrap_err().contains("groupadd"));
    }
}
