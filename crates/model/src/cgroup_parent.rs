//! `--cgroup-parent`: the cgroup in which a container's own is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// PATH_MAX of limits.h less what comes before it and after it.
const LONGEST_BYTES: usize = 2048;

/// A cgroup below every hierarchy's mount point: `/team/web`, or a slice of systemd's by its name, `team-web.slice`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupParent {
    asked: String,
    path: String,
}

/// A text that names no cgroup in which a container's may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid cgroup parent {text:?}: {why}")]
pub struct CgroupParentError {
    text: String,
    why: &'static str,
}

impl CgroupParent {
    /// From each hierarchy's root: `/team/web`; empty for that itself. A relative one begins there, too.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for CgroupParent {
    type Err = CgroupParentError;
    fn from_str(text: &str) -> Result<Self, CgroupParentError> {
        let refused = |why| CgroupParentError { text: text.chars().take(200).collect(), why };
        if text.is_empty() || text.len() > LONGEST_BYTES || text.chars().any(char::is_control) {
            return Err(refused("want a path like /a/b, or the name of a slice"));
        }
        let path = match text.strip_suffix(".slice") {
            Some(slice) if !text.contains('/') => {
                slice_path(slice).ok_or_else(|| refused("it is no name of a slice"))?
            }
            _ => text.split('/').filter(|part| !part.is_empty()).map(|part| format!("/{part}")).collect(),
        };
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(refused("want a path without . and .."));
        }
        // Who is in a container's cgroup ends with that container, and an engine removes its own.
        if path.split('/').nth(1).is_some_and(|first| first == "dozen" || first.starts_with("dozen-")) {
            return Err(refused("that cgroup is dozen's own"));
        }
        Ok(Self { asked: text.to_owned(), path })
    }
}

/// A slice's name says in which others it is (systemd.slice(5)): `a-b` is `/a.slice/a-b.slice`.
fn slice_path(slice: &str) -> Option<String> {
    let mut path = String::new();
    if slice == "-" {
        return Some(path);
    }
    let mut prefix = String::new();
    for part in slice.split('-') {
        if part.is_empty() {
            return None;
        }
        prefix.push_str(part);
        path.push_str(&format!("/{prefix}.slice"));
        prefix.push('-');
    }
    Some(path)
}

impl TryFrom<String> for CgroupParent {
    type Error = CgroupParentError;
    fn try_from(text: String) -> Result<Self, CgroupParentError> {
        text.parse()
    }
}

impl From<CgroupParent> for String {
    fn from(parent: CgroupParent) -> String {
        parent.asked
    }
}

impl fmt::Display for CgroupParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_slices_lead_somewhere() {
        for (text, path) in [
            ("/team/web", "/team/web"),
            ("team", "/team"),
            ("//team//web/", "/team/web"),
            ("/", ""),
            ("team-web.slice", "/team.slice/team-web.slice"),
            ("-.slice", ""),
            ("/team.slice/x.slice", "/team.slice/x.slice"),
            ("/dozens", "/dozens"),
        ] {
            let parent: CgroupParent = text.parse().unwrap();
            assert_eq!((parent.path(), parent.to_string().as_str()), (path, text));
        }
        for (text, why) in [
            ("", "want a path"),
            ("/a/../b", "without . and .."),
            ("./a", "without . and .."),
            ("a\nb", "want a path"),
            ("a--b.slice", "no name of a slice"),
            (".slice", "no name of a slice"),
            ("/dozen/0123", "dozen's own"),
            ("dozen-0123abcd", "dozen's own"),
        ] {
            let error = text.parse::<CgroupParent>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
