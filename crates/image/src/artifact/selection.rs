//! Which files of an artifact are given, by which names. A name is a stranger's: it is that of a file in one directory, or
//! is refused.

use std::collections::BTreeSet;
use std::io::Write;

use dozen_model::Digest;
use tar::EntryType;

use super::OutgoingArtifact;
use super::document::{ArtifactDocument, ArtifactFile};
use crate::ImageError;
use crate::pack::{Description, TarWriter};

/// Which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// One, by the digest of its bytes.
    Digest(Digest),
    /// One, by its name.
    Title(String),
}

impl Selection {
    /// The files, each with the name that it gets.
    pub fn of<'d>(&self, document: &'d ArtifactDocument) -> Result<Vec<(String, &'d ArtifactFile)>, ImageError> {
        // By its digest it is called by that, whatever else it is called.
        let is_by_digest = matches!(self, Self::Digest(_));
        let mut named: Vec<(String, &ArtifactFile)> = Vec::new();
        let mut known = BTreeSet::new();
        for file in self.found(document)? {
            let name = file_name(file.title.as_deref().filter(|_| !is_by_digest), &file.blob.digest)?;
            if !known.insert(name.clone()) {
                let words = format!("more than one blob of the artifact has the name {name:?}");
                return Err(ImageError::ArtifactFile(words));
            }
            named.push((name, file));
        }
        Ok(named)
    }

    /// The files, whatever they are called: at least one. In podman's words where there is none.
    pub(super) fn found<'d>(&self, document: &'d ArtifactDocument) -> Result<Vec<&'d ArtifactFile>, ImageError> {
        let invalid = |what: String| Err(ImageError::ArtifactFile(what));
        let is_wanted = |file: &&ArtifactFile| match self {
            Self::All => true,
            Self::Digest(digest) => file.blob.digest == *digest,
            Self::Title(title) => file.title.as_ref() == Some(title),
        };
        let found: Vec<&ArtifactFile> = document.files.iter().filter(is_wanted).collect();
        match (self, found.len()) {
            (Self::All, 0) => invalid("the artifact has no blobs, nothing to extract".to_owned()),
            (Self::Digest(digest), 0) => invalid(format!("no blob with the digest {:?}", digest.as_str())),
            (Self::Digest(digest), 2..) => invalid(format!("more than one match for the digest {:?}", digest.as_str())),
            (Self::Title(title), 0) => invalid(format!("no blob with the title {title:?}")),
            (Self::Title(title), 2..) => invalid(format!("more than one match for the title {title:?}")),
            _ => Ok(found),
        }
    }
}

/// By what name a file is known in a directory.
fn file_name(title: Option<&str>, digest: &Digest) -> Result<String, ImageError> {
    let Some(title) = title else { return Ok(digest.as_str().replace(':', "-")) };
    check_title(title).map(|()| title.to_owned())
}

/// That it is the name of a file in one directory.
pub(super) fn check_title(title: &str) -> Result<(), ImageError> {
    if let Some(forbidden) = title.chars().find(|letter| *letter == '/' || letter.is_control()) {
        return Err(ImageError::ArtifactFile(format!(
            "invalid name: {title:?} cannot contain {forbidden}: artifact blob title is invalid"
        )));
    }
    // path_resolution(7): none that leads elsewhere, and none longer than NAME_MAX.
    if matches!(title, "" | "." | "..") || title.len() > 255 {
        return Err(ImageError::ArtifactFile(format!("invalid name: {title:?}: artifact blob title is invalid")));
    }
    Ok(())
}

impl OutgoingArtifact {
    /// Writes files as one archive, each compared with its digest. `has_names`: without, a file that is alone has none, as
    /// podman's clients want it. Blocks.
    pub fn write_archive(&self, wanted: &Selection, has_names: bool, out: &mut dyn Write) -> Result<(), ImageError> {
        let files = wanted.of(&self.document)?;
        let is_bare = !has_names && files.len() == 1;
        let mut writer = TarWriter::new(out);
        for (name, file) in files {
            let name = if is_bare { "" } else { &name };
            let size_bytes = file.blob.size_bytes;
            let sending =
                |source| ImageError::Io { attempted: "send", object: "a file of the artifact".into(), source };
            let entry = Description::plain(name.as_bytes(), EntryType::Regular, 0o600, size_bytes);
            writer.header(&entry).map_err(sending)?;
            let blob = self.blobs.layers().iter().find(|blob| blob.id == file.blob.digest);
            let blob = blob.ok_or_else(|| ImageError::Absent(format!("{} is not here any more", file.blob.digest)))?;
            self.blobs.read(blob, 0, |bytes| writer.raw(bytes))?;
            writer.pad(size_bytes).map_err(sending)?;
        }
        writer.finish().map_err(|source| ImageError::Io { attempted: "send", object: "the artifact".into(), source })
    }
}
