//! What a server says of its references (git-ls-remote(1)), and which of them is meant.

use super::is_commit;

/// The one that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// In full: `refs/heads/main`. `None`: it was named by its number, or by HEAD where the server does not say what that is.
    pub name: Option<String>,
    /// What the reference is: a commit, or the tag about one.
    pub object: String,
    /// The commit.
    pub commit: String,
}

impl Chosen {
    /// A commit that was named by its whole number: no server need be asked which one it is.
    pub fn by_number(wanted: &str) -> Option<Self> {
        let number = wanted.to_ascii_lowercase();
        is_commit(&number).then(|| Self { name: None, object: number.clone(), commit: number })
    }
}

/// What a server is asked for: patterns of git-ls-remote(1).
pub fn patterns(wanted: Option<&str>) -> Vec<String> {
    match wanted {
        None => vec!["HEAD".to_owned()],
        // An annotated tag is an object of its own; what it is about is listed with this mark (gitrevisions(7)).
        Some(name) => vec![name.to_owned(), format!("{name}^{{}}")],
    }
}

/// Finds the reference in what `git ls-remote --symref` has printed. Of a branch and a tag with one name it is the branch,
/// as BuildKit has it. `None`: it is not there.
pub fn choose(listing: &str, wanted: Option<&str>) -> Option<Chosen> {
    let lines = || listing.lines().filter_map(|line| line.split_once('\t'));
    let object = |name: &str| {
        let found = lines().find(|(number, known)| *known == name && is_commit(number));
        found.map(|(number, _)| number.to_owned())
    };
    let Some(wanted) = wanted else {
        let commit = object("HEAD")?;
        let branch = lines().find_map(|(target, name)| target.strip_prefix("ref: ").filter(|_| name == "HEAD"));
        // A server that means ill names what is no reference of its own.
        let name = branch.filter(|name| name.starts_with("refs/") && super::is_reference(name)).map(str::to_owned);
        return Some(Chosen { name, object: commit.clone(), commit });
    };
    let bare = wanted.strip_prefix("refs/").unwrap_or(wanted);
    let candidates =
        [wanted.to_owned(), format!("refs/{bare}"), format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}")];
    candidates.into_iter().find_map(|name| {
        let tagged = object(&name)?;
        let commit = object(&format!("{name}^{{}}")).unwrap_or_else(|| tagged.clone());
        let name = Some(name).filter(|name| name.starts_with("refs/"));
        Some(Chosen { name, object: tagged, commit })
    })
}
