//! `--chown` in numbers, by an image's own /etc/passwd and /etc/group (passwd(5), group(5)). Not as a process's user is
//! found: a number is taken as it is, and alone is the group as well; a name that nobody has is an error.

use dozen_model::{Classified, ErrorKind};

/// A name that the image does not know. The words are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to convert uid/gid chown string to host mapping: can't find {what}")]
pub struct OwnerError {
    what: String,
}

impl Classified for OwnerError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        Some("add it in a RUN before, or give its number".into())
    }
}

/// `user[:group]`, each by name or number; both files as the image has them, empty if it has none. User and group.
pub fn resolve(text: &str, passwd: &[u8], group: &[u8]) -> Result<(u32, u32), OwnerError> {
    let (user, group_name) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let (uid, gid) = match number(user) {
        _ if user.is_empty() => (0, 0),
        Some(id) => (id, id),
        None => find(user, passwd, 2)
            .and_then(|uid| Some((uid, find(user, passwd, 3)?)))
            .ok_or_else(|| OwnerError { what: format!("uid for user {user}: no such user: {user}") })?,
    };
    let Some(name) = group_name else { return Ok((uid, gid)) };
    let gid = number(name)
        .or_else(|| find(name, group, 2))
        .ok_or_else(|| OwnerError { what: format!("gid for group {name}: no such group: {name}") })?;
    Ok((uid, gid))
}

/// The last number of 32 bits is none: to chown(2) it means that the owner stays who it is.
fn number(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_number && *id != u32::MAX)
}

/// The number in a field of the first line of this name that has one.
fn find(name: &str, file: &[u8], field: usize) -> Option<u32> {
    let lines = file.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = std::str::from_utf8(line).ok()?.trim().split(':');
            if fields.next()? == name { number(fields.nth(field - 1)?) } else { None }
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_as_docker_finds_them() {
        let passwd =
            b"root:x:0:0:root:/root:/bin/sh\n# a comment\nweb:x:33:34::/var/www:/bin/false\nbad:x\n\xff:x:1:1\n\
            bad:x:5:6\nlast:x:4294967295:1\n7:x:70:71::/:\n";
        let group = b"root:x:0:\nstaff:x:50:web\n";
        for (text, expected) in [
            ("web", Some((33, 34))),
            ("web:staff", Some((33, 50))),
            ("web:7", Some((33, 7))),
            ("1000", Some((1000, 1000))),
            ("7", Some((7, 7))),
            ("1000:staff", Some((1000, 50))),
            (":staff", Some((0, 50))),
            ("web:", Some((33, 34))),
            ("", Some((0, 0))),
            ("bad", Some((5, 6))),
            ("nobody", None),
            ("web:nobody", None),
            ("last", None),
            ("4294967295", None),
            ("-1", None),
            ("+1", None),
        ] {
            assert_eq!(resolve(text, passwd, group).ok(), expected, "{text}");
        }
        let error = resolve("nobody", passwd, group).unwrap_err();
        let words = "unable to convert uid/gid chown string to host mapping: can't find uid for user nobody: no such user: nobody";
        assert_eq!(error.to_string(), words);
    }
}
