//! `dozen artifact extract`: the engine gives an archive in which each file has its name; nothing else is made of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use dozen_image::archive::{EntryType, TarReader};
use http::Method;

use super::{Artifact, path};
use crate::arguments::flags::{required, text};
use crate::client::Query;
use crate::commands::{Context, pieces, system_words};
use crate::failure::{Failure, Outcome};

/// Where files go.
enum Target {
    Directory(PathBuf),
    File(PathBuf),
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let (name, to) = (required(matches, "artifact"), required(matches, "path"));
    let (digest, title) = (text(matches, "digest"), text(matches, "title"));
    let target = match std::fs::metadata(to) {
        Ok(found) if found.is_dir() => Target::Directory(to.into()),
        Ok(_) => Target::File(to.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Target::File(to.into()),
        Err(error) => return Err(Failure::new(format!("stat {to}: {}", system_words(&error)))),
    };
    if let (Target::File(_), None, None) = (&target, digest, title) {
        let artifact: Artifact = context.client.get(&path(name, "/json")).await?;
        if artifact.layers().count() > 1 {
            return Err(Failure::new(format!(
                "the artifact consists of several blobs and the target {to:?} is not a directory and neither digest or \
                 title was specified to only copy a single blob"
            ))
            .with_hint(format!("make the directory first: mkdir -p {to}")));
        }
    }
    let query = Query::new().with_some("digest", digest).with_some("title", title);
    let response = context.client.stream(Method::GET, &path(name, &format!("/extract{query}")), None).await?;
    pieces::read_through(response, move |archive| Ok(take(archive, &target)?)).await?;
    Ok(0)
}

fn take(archive: &mut dyn Read, target: &Target) -> io::Result<()> {
    let mut archive = TarReader::new(archive);
    let mut is_first = true;
    while let Some(entry) = archive.next_entry()? {
        let is_file = entry.kind == EntryType::Regular && entry.sparse.is_none();
        let title = std::str::from_utf8(&entry.path).ok().filter(|_| is_file);
        // The engine refuses these; it may be anybody's.
        let title = title.filter(|title| !title.contains('/') && !matches!(*title, "" | "." | ".."));
        let title = title.ok_or_else(|| io::Error::other("the engine gives something that is no file with a name"))?;
        let to = match target {
            Target::Directory(directory) => directory.join(title),
            Target::File(path) if is_first => path.clone(),
            Target::File(path) => return Err(io::Error::other(format!("{}: there are several files", path.display()))),
        };
        is_first = false;
        write(&to, &mut archive.data())?;
    }
    archive.drain()
}

/// Writes one file, as cp(1) does over what is there. What was not there is not left half written.
fn write(to: &Path, data: &mut dyn Read) -> io::Result<()> {
    let failed = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("failed to create target file: open {}: {}", to.display(), system_words(&error)),
        )
    };
    let (mut file, is_new) = match File::create_new(to) {
        Ok(file) => (file, true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (File::create(to).map_err(failed)?, false),
        Err(error) => return Err(failed(error)),
    };
    let copied = io::copy(data, &mut file);
    if copied.is_err() && is_new {
        let _ = std::fs::remove_file(to);
    }
    copied.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::build::tar;

    fn archive(name: &str, kind: u8, bytes: &[u8], cut: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let size = bytes.len() as u64;
        tar::write_header(
            &tar::Entry { name: name.as_bytes(), kind, mode: 0o644, size, ..tar::Entry::default() },
            &mut out,
        );
        out.extend_from_slice(bytes);
        tar::pad(&mut out, bytes.len());
        out.resize(out.len() + 2 * tar::BLOCK, 0);
        out.truncate(out.len() - cut);
        out
    }

    #[test]
    fn files_stay_in_their_directory() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("out");
        std::fs::create_dir(&directory).unwrap();
        let target = Target::Directory(directory.clone());
        let take = |bytes: Vec<u8>| take(&mut bytes.as_slice(), &target);
        take(archive("a", b'0', b"one", 0)).unwrap();
        assert_eq!(std::fs::read(directory.join("a")).unwrap(), b"one");
        for (name, kind) in [("../b", b'0'), ("/b", b'0'), ("..", b'0'), ("", b'0'), ("b", b'2'), ("b", b'5')] {
            assert!(take(archive(name, kind, b"", 0)).is_err(), "{name}");
        }
        // Cut off: nothing half written is taken for a whole.
        assert!(take(archive("c", b'0', b"three", 2 * tar::BLOCK + 510)).is_err());
        let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a"]);
        assert!(!home.path().join("b").exists());
    }
}
