//! Whom a process runs as, by the container's own /etc/passwd and /etc/group. Pure but for [`resolve`]'s reading,
//! which happens after pivot_root, inside.

use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

use dozen_model::UserSpec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::RuntimeError;
use crate::mounts::{is_procfs, open_inside};

/// A process's ids, and where it is at home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// From passwd; `/` if it is silent.
    pub(crate) home: String,
}

impl Identity {
    /// With further groups behind its own: by number, and by what the container's own /etc/group says of a name.
    pub(crate) fn with_groups(self, groups: &[u32], names: &[String]) -> Result<Self, RuntimeError> {
        let named = if names.is_empty() { Vec::new() } else { numbers_of(names, &read("/etc/group"))? };
        Ok(self.with_numbers(groups.iter().copied().chain(named)))
    }

    fn with_numbers(mut self, groups: impl Iterator<Item = u32>) -> Self {
        for group in groups {
            if !self.groups.contains(&group) {
                self.groups.push(group);
            }
        }
        self
    }
}

/// Docker's rule: a name of the file, else a number as it is.
fn numbers_of(names: &[String], group: &str) -> Result<Vec<u32>, RuntimeError> {
    let number_of = |name: &String| {
        let known = groups(group).find(|group| group.name == name).map(|group| group.gid);
        known.or_else(|| number(name)).ok_or_else(|| RuntimeError::Invalid(format!("Unable to find group {name}")))
    };
    names.iter().map(number_of).collect()
}

/// Larger files are not read further: they are an image's, and come with no promise.
const LIMIT: u64 = 8 << 20;

/// Reads the files of the current root and decides.
pub(crate) fn resolve(spec: &UserSpec) -> Result<Identity, RuntimeError> {
    decide(spec, &read("/etc/passwd"), &read("/etc/group"))
}

/// Where passwd says that a user is at home.
pub(crate) fn home_of(uid: u32) -> String {
    let passwd = read("/etc/passwd");
    users(&passwd).find(|user| user.uid == uid).map_or("/".to_owned(), |user| home(user.home))
}

/// User and group by the files of a root that is seen from outside, and may be anyone's: for `cp -a`.
pub fn user_in(root: BorrowedFd<'_>, spec: &UserSpec) -> Result<(u32, u32), RuntimeError> {
    let read = |path: &str| {
        let path = std::path::Path::new(path);
        // Looked at before it is opened: what is no file must not be touched.
        let found = open_inside(root, path, OFlags::PATH).and_then(|found| rustix::fs::fstat(&found));
        match found {
            Ok(status) if rustix::fs::FileType::from_raw_mode(status.st_mode).is_file() => {
                text(open_inside(root, path, FLAGS))
            }
            _ => String::new(),
        }
    };
    decide(spec, &read("/etc/passwd"), &read("/etc/group")).map(|identity| (identity.uid, identity.gid))
}

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The text, or none if there is none to read. Never waits: a FIFO of that name has no writer.
fn read(path: &str) -> String {
    text(rustix::fs::open(path, FLAGS, Mode::empty()))
}

fn text(opened: Result<OwnedFd, Errno>) -> String {
    let Ok(file) = opened else { return String::new() };
    // Of procfs some files wait, and some forget what was read from them: read with all rights that is the host's.
    let is_file = !is_procfs(&file)
        && rustix::fs::fstat(&file).is_ok_and(|status| rustix::fs::FileType::from_raw_mode(status.st_mode).is_file());
    let mut bytes = Vec::new();
    if is_file {
        // What was read before an error still counts: a name that is not in it is then not found.
        let _ = std::fs::File::from(file).take(LIMIT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Lines that are none are left out, as getpwent(3) does; so are those of the last number of 32 bits, which to
/// setresuid(2) means that an id stays what it is: root's.
fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (uid, gid) = (id(uid)?, id(gid)?);
        (!name.is_empty()).then(|| User { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, id(fields.next()?)?);
        (!name.is_empty()).then(|| Group { name, gid, members: fields.next().unwrap_or("") })
    })
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn home(home: &str) -> String {
    if home.is_empty() { "/".to_owned() } else { home.to_owned() }
}

/// An id as Docker takes it: not above 2³¹ - 1.
fn number(text: &str) -> Option<u32> {
    text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok())
}

/// Docker's rules: a name or a number in passwd brings its group, home and supplementary groups; a number that is not
/// there is taken as it is, a name is an error; an explicit group replaces all other groups.
pub(crate) fn decide(spec: &UserSpec, passwd: &str, group: &str) -> Result<Identity, RuntimeError> {
    let asked = spec.user.as_deref().unwrap_or("0");
    let known = users(passwd)
        .find(|user| user.name == asked)
        .or_else(|| number(asked).and_then(|uid| users(passwd).find(|user| user.uid == uid)));
    let (uid, mut gid, name, home_directory) = match (&known, number(asked)) {
        (Some(user), _) => (user.uid, user.gid, Some(user.name), home(user.home)),
        (None, Some(uid)) => (uid, 0, None, "/".to_owned()),
        (None, None) => {
            return Err(RuntimeError::Invalid(format!(
                "unable to find user {asked}: no matching entries in passwd file"
            )));
        }
    };
    let mut supplementary = Vec::new();
    match spec.group.as_deref() {
        Some(asked) => {
            let known = groups(group).find(|group| group.name == asked).map(|group| group.gid);
            gid = known.or_else(|| number(asked)).ok_or_else(|| {
                RuntimeError::Invalid(format!("unable to find group {asked}: no matching entries in group file"))
            })?;
        }
        None => {
            if let Some(name) = name {
                let member = |group: &Group<'_>| group.members.split(',').any(|member| member == name);
                supplementary.extend(groups(group).filter(member).map(|group| group.gid));
            }
        }
    }
    // Every process is in its own group also by the list: what newgrp(1) and a chown of ours expect.
    supplementary.insert(0, gid);
    let mut seen = std::collections::HashSet::new();
    supplementary.retain(|gid| seen.insert(*gid));
    supplementary.truncate(65_536);
    Ok(Identity { uid, gid, groups: supplementary, home: home_directory })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:line\nweb:x:33:33::/var/www:/bin/false\n\
        nohome:x:40:41\n9000:x:77:77::/seven:/bin/sh\n:x:1:1::/:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:root,web\nweb:x:33:\nbad\nstaff:x:50:web\n";

    #[track_caller]
    fn check(spec: &str, expected: (u32, u32, &[u32], &str)) {
        let identity = decide(&spec.parse().unwrap(), PASSWD, GROUP).unwrap();
        assert_eq!((identity.uid, identity.gid, identity.groups.as_slice(), identity.home.as_str()), expected);
    }

    #[test]
    fn users_and_groups_are_found_as_docker_finds_them() {
        check("", (0, 0, &[0, 4], "/root"));
        check("web", (33, 33, &[33, 4, 50], "/var/www"));
        check("33", (33, 33, &[33, 4, 50], "/var/www"));
        check("web:staff", (33, 50, &[50], "/var/www"));
        check("web:99", (33, 99, &[99], "/var/www"));
        check("1234", (1234, 0, &[0], "/"));
        check("1234:5", (1234, 5, &[5], "/"));
        check("nohome", (40, 41, &[41], "/"));
        check("9000", (77, 77, &[77], "/seven"));
    }

    #[test]
    fn unknown_names_are_errors_in_dockers_words() {
        let error = |spec: &str| decide(&spec.parse().unwrap(), PASSWD, GROUP).unwrap_err().to_string();
        assert_eq!(error("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(error("web:no"), "unable to find group no: no matching entries in group file");
        assert_eq!(error("4294967295"), "unable to find user 4294967295: no matching entries in passwd file");
        assert_eq!(error("-1"), "unable to find user -1: no matching entries in passwd file");
    }

    #[test]
    fn further_groups_come_by_name_or_number() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        let numbers = numbers_of(&names(&["staff", "77", "adm"]), "staff:x:50:\nstaff:x:51:\nadm:x:4:\n77:x:6:\n");
        assert_eq!(numbers.unwrap(), [50, 6, 4]);
        for unknown in ["no", "4294967295", "-1", "", "evil"] {
            let error = numbers_of(&names(&[unknown]), "evil:x:4294967295:\n:x:1:\n").unwrap_err();
            assert_eq!(error.to_string(), format!("Unable to find group {unknown}"));
        }
    }

    /// setresuid(2) takes this number for "as it is": who was asked for would have been root.
    #[test]
    fn no_line_makes_a_name_roots() {
        let (passwd, group) = ("e:x:4294967295:4294967295::/:\nf:x:7:4294967295::/:\n", "g:x:4294967295:e\n");
        for asked in ["e", "f", "0:g"] {
            let decided = decide(&asked.parse().unwrap(), passwd, group);
            assert!(decided.unwrap_err().to_string().contains("no matching entries"), "{asked}");
        }
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(passwd in "(?s).{0,200}", group in "(?s)[a-z:,\\n0-9]{0,200}", user in "[a-z0-9]{0,4}") {
            let _ = decide(&UserSpec { user: Some(user), group: None }, &passwd, &group);
        }
    }
}
