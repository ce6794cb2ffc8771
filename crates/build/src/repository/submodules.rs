//! Repositories that are parts of another: what `.gitmodules` says (gitmodules(5)), and the commits that a tree has in
//! their places.

use std::collections::BTreeMap;

use super::{Location, RepositoryError, is_commit};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// Where it goes: clean, from the root of the repository that it is a part of.
    pub path: Vec<u8>,
    /// Where it comes from.
    pub location: Location,
    /// Which commit.
    pub commit: String,
}

/// Why a repository's submodules cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmoduleError {
    /// `.gitmodules` has nothing of it. Git's words.
    #[error("No url found for submodule path {0:?} in .gitmodules")]
    NoUrl(String),
    /// Its URL is none that is fetched from.
    #[error("submodule {path:?}: {why}")]
    Location {
        /// Where it would go.
        path: String,
        /// What is wrong with it.
        #[source]
        why: RepositoryError,
    },
    /// Its commit has no number that one could ask for.
    #[error("submodule {0:?}: its commit cannot be read")]
    Commit(String),
}

/// What of a submodule's section counts.
#[derive(Debug, Default)]
struct Section {
    path: Option<String>,
    url: Option<String>,
    is_left_out: bool,
}

/// The submodules of a tree. `configuration`: `.gitmodules` as `git config -z --list` prints it; `tree`: all that is in the
/// tree, as `git ls-tree -r -z` does; `parent`: where the repository comes from, for URLs that are relative to it.
///
/// # Errors
/// See [`SubmoduleError`]. One that is not to be updated (`update = none`) is left out.
pub fn submodules(configuration: &[u8], tree: &[u8], parent: &Location) -> Result<Vec<Submodule>, SubmoduleError> {
    let sections = sections(configuration);
    let by_path: BTreeMap<&str, &Section> = sections
        .values()
        .filter_map(|section| Some((section.path.as_deref()?.trim_end_matches('/'), section)))
        .collect();
    let mut found = Vec::new();
    for entry in tree.split(|byte| *byte == 0) {
        // "160000 commit NUMBER<tab>PATH"
        let Some(entry) = entry.strip_prefix(b"160000 commit ") else { continue };
        let Some(tab) = entry.iter().position(|byte| *byte == b'\t') else { continue };
        let (number, path) = (String::from_utf8_lossy(&entry[..tab]), &entry[tab + 1..]);
        let shown = String::from_utf8_lossy(path).into_owned();
        if !is_commit(&number) {
            return Err(SubmoduleError::Commit(shown));
        }
        let Some(section) = by_path.get(shown.as_str()) else { return Err(SubmoduleError::NoUrl(shown)) };
        if section.is_left_out {
            continue;
        }
        let Some(url) = &section.url else { return Err(SubmoduleError::NoUrl(shown)) };
        let location = seen_from(parent, url).map_err(|why| SubmoduleError::Location { path: shown, why })?;
        found.push(Submodule { path: path.to_vec(), location, commit: number.to_ascii_lowercase() });
    }
    Ok(found)
}

/// By name. Of what is said twice the last counts.
fn sections(configuration: &[u8]) -> BTreeMap<String, Section> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let configuration = String::from_utf8_lossy(configuration);
    // A key and its value stand on lines of their own, and the value may have more of them.
    for pair in configuration.split('\0') {
        let (key, value) = pair.split_once('\n').unwrap_or((pair, ""));
        let Some((name, what)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.')) else { continue };
        let section = sections.entry(name.to_owned()).or_default();
        match what {
            "path" => section.path = Some(value.to_owned()),
            "url" => section.url = Some(value.to_owned()),
            "update" => section.is_left_out = value == "none",
            _ => {}
        }
    }
    sections
}

/// What a submodule's URL means that a repository from there has (gitmodules(5), "submodule.<name>.url").
fn seen_from(parent: &Location, url: &str) -> Result<Location, RepositoryError> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Location::parse(url);
    }
    let mut path = parent.path.trim_end_matches('/');
    let mut rest = url;
    loop {
        if let Some(next) = rest.strip_prefix("./") {
            rest = next;
        } else if let Some(next) = rest.strip_prefix("../") {
            // Git goes up into the host's name; there is nothing to be had.
            path = path.rsplit_once('/').ok_or(RepositoryError::Path)?.0;
            rest = next;
        } else {
            break;
        }
    }
    let path = format!("{path}/{}", rest.trim_end_matches('/'));
    // Looked at as any other.
    let read = Location::parse(&format!("{}{path}", parent.origin()))?;
    Ok(Location { credentials: parent.credentials.clone(), ..read })
}
