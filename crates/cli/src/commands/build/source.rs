//! Where a build's Dockerfile and its ignore file lie.

use std::io::Read;
use std::path::{Path, PathBuf};

use dozen_dockerfile::Remote;
use dozen_dockerfile::ignore::{IgnoreFile, candidates};

use super::tar;
use crate::commands::system_words;
use crate::failure::Failure;

/// No Dockerfile and no ignore file is larger.
const LARGEST_BYTES: u64 = 4 << 20;

/// What a build begins from.
pub(super) struct Source {
    /// The Dockerfile's name, as it is shown.
    pub name: String,
    pub text: String,
    pub ignore: IgnoreFile,
}

/// What a build is given besides its Dockerfile.
pub(super) enum Context {
    /// A directory, of which the ignore file leaves some out.
    Directory { path: PathBuf, source: Source },
    /// A Dockerfile alone.
    Nothing(Source),
    /// An archive from stdin, of which this much has been read already. The Dockerfile is in it.
    Archive { begun: Vec<u8>, file: Option<String> },
    /// The engine fetches it. The Dockerfile is in it, or it came from stdin.
    Remote { address: String, file: Option<String>, dockerfile: Option<Source> },
}

impl Context {
    /// What is sent of the Dockerfile.
    pub(super) fn dockerfile(&self) -> Option<&Source> {
        match self {
            Self::Directory { source, .. } | Self::Nothing(source) => Some(source),
            Self::Remote { dockerfile, .. } => dockerfile.as_ref(),
            Self::Archive { .. } => None,
        }
    }

    /// Where it is, if the engine has to find it.
    pub(super) fn file(&self) -> Option<&str> {
        match self {
            Self::Archive { file, .. } | Self::Remote { file, .. } => file.as_deref(),
            Self::Directory { .. } | Self::Nothing(_) => None,
        }
    }
}

/// What is fetched, unless a directory is called so (docs.docker.com/build/concepts/context, "Remote context").
fn is_remote(path: &str) -> bool {
    let is_address = path.starts_with("github.com/") || Remote::of(path) != Remote::None;
    is_address && !Path::new(path).is_dir()
}

/// Finds what a build begins from. An archive is read no further than it takes to know it.
pub(super) fn context(path: &str, file: Option<&str>) -> Result<Context, Failure> {
    if is_remote(path) {
        let (file, dockerfile) = match file {
            Some("-") => {
                let (name, ignore) = ("Dockerfile".to_owned(), IgnoreFile::default());
                (None, Some(Source { name, text: stdin()?, ignore }))
            }
            file => (file.map(str::to_owned), None),
        };
        return Ok(Context::Remote { address: path.to_owned(), file, dockerfile });
    }
    if path != "-" || file == Some("-") {
        let source = read(Path::new(path), file)?;
        return Ok(Context::Directory { path: path.into(), source });
    }
    let mut begun = Vec::new();
    let mut stdin = std::io::stdin().lock();
    let failed = |why: String| Failure::new(format!("ERROR: failed to read the build context from stdin: {why}"));
    let read = stdin.by_ref().take(tar::BLOCK as u64).read_to_end(&mut begun);
    read.map_err(|error| failed(system_words(&error)))?;
    if is_archive(&begun) {
        return Ok(Context::Archive { begun, file: file.map(str::to_owned) });
    }
    let name = "Dockerfile".to_owned();
    match text(begun.as_slice().chain(stdin), "stdin") {
        Ok(text) if text.trim().is_empty() => Err(failed("it is empty".to_owned())
            .with_hint("pipe in a Dockerfile or a tar archive: tar -C DIRECTORY -c . | dozen build -")),
        Ok(text) => Ok(Context::Nothing(Source { name, text, ignore: IgnoreFile::default() })),
        Err(why) => Err(failed(why)),
    }
}

/// Archives that the engine unpacks: tar, plain or compressed with gzip, bzip2, xz or zstd, by their first bytes.
fn is_archive(bytes: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [&[0x1f, 0x8b], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z', 0], &[0x28, 0xb5, 0x2f, 0xfd]];
    MAGIC.iter().any(|magic| bytes.starts_with(magic)) || tar::is_header(bytes)
}

/// Reads the Dockerfile of a context: `PATH/Dockerfile`, the named file, or stdin.
pub(super) fn read(context: &Path, file: Option<&str>) -> Result<Source, Failure> {
    let shown = context.to_string_lossy();
    if is_remote(&shown) {
        let hint = "clone it and name the directory; a build without --check fetches it";
        return Err(Failure::not_built("checking a remote build context").with_hint(hint));
    }
    if shown == "-" {
        if file == Some("-") {
            return Err(Failure::new("ERROR: can't use stdin for both build context and dockerfile"));
        }
        if file.is_some() {
            return Err(Failure::not_built("checking a build context from stdin")
                .with_hint("name its directory; '-' alone reads a Dockerfile from stdin"));
        }
        return Ok(Source { name: "Dockerfile".to_owned(), text: stdin()?, ignore: IgnoreFile::default() });
    }
    if !context.is_dir() {
        let why = match std::fs::metadata(context) {
            Err(error) => system_words(&error),
            Ok(_) => "not a directory".to_owned(),
        };
        return Err(Failure::new(format!("ERROR: unable to prepare context: path {shown:?}: {why}")));
    }
    if file == Some("-") {
        let ignore = ignore_file(&[context.join(".dockerignore")])?;
        return Ok(Source { name: "Dockerfile".to_owned(), text: stdin()?, ignore });
    }
    let path = match file {
        Some(file) => PathBuf::from(file),
        // "./Dockerfile" is nothing that anybody says.
        None if shown == "." => PathBuf::from("Dockerfile"),
        None => context.join("Dockerfile"),
    };
    let name = path.display().to_string();
    let failed = |why: String| {
        Failure::new(format!("ERROR: failed to read dockerfile: open {name}: {why}"))
            .with_hint("another name is said with -f; a path in it begins where the command is typed")
    };
    let opened = std::fs::File::open(&path).map_err(|error| failed(system_words(&error)))?;
    let text = text(opened, &name).map_err(failed)?;
    Ok(Source { text, ignore: ignore_file(&candidates(&path, context))?, name })
}

fn stdin() -> Result<String, Failure> {
    text(std::io::stdin().lock(), "stdin")
        .map_err(|why| Failure::new(format!("ERROR: failed to read dockerfile: {why}")))
}

fn text(reader: impl Read, name: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    reader.take(LARGEST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| system_words(&error))?;
    if bytes.len() as u64 > LARGEST_BYTES {
        return Err(format!("it is larger than {} MiB", LARGEST_BYTES >> 20));
    }
    if is_archive(&bytes) {
        return Err(format!("{name} is an archive, and no Dockerfile"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8")
    })
}

/// The first of the files that is there.
pub(super) fn ignore_file(paths: &[PathBuf]) -> Result<IgnoreFile, Failure> {
    for path in paths {
        let failed = |why: String| Failure::new(format!("ERROR: failed to read {}: {why}", path.display()));
        let opened = match std::fs::File::open(path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(system_words(&error))),
        };
        let text = text(opened, &path.display().to_string()).map_err(failed)?;
        return IgnoreFile::parse(&text).map_err(|error| failed(error.to_string()));
    }
    Ok(IgnoreFile::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_or_message(context: &Path, file: Option<&str>) -> String {
        read(context, file).map_or_else(|failure| failure.message, |source| source.name)
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        std::fs::write(at.join("text"), "FROM a\n").unwrap();
        std::fs::write(at.join("latin"), b"FROM a\nLABEL b=\xe9\n").unwrap();
        std::fs::write(at.join("packed"), [0x1f, 0x8b, 8, 0]).unwrap();
        let path = |name: &str| at.join(name).display().to_string();
        assert_eq!(name_or_message(at, Some(&path("text"))), path("text"));
        for (context, file, message) in [
            (at.to_owned(), None, format!("open {}: no such file or directory", path("Dockerfile"))),
            (at.to_owned(), Some(path("latin")), "line 2 is not UTF-8".to_owned()),
            (at.to_owned(), Some(path("packed")), "is an archive".to_owned()),
            (at.to_owned(), Some(path("")), "is a directory".to_owned()),
            (at.join("none"), None, "no such file or directory".to_owned()),
            (at.join("text"), None, "not a directory".to_owned()),
            (
                PathBuf::from("https://example.org/a.git"),
                None,
                "checking a remote build context is not built yet".to_owned(),
            ),
            (PathBuf::from("-"), Some("x".to_owned()), "a build context from stdin is not built yet".to_owned()),
        ] {
            let said = name_or_message(&context, file.as_deref());
            assert!(said.contains(&message), "{said}\nnot\n{message}");
        }
        std::fs::write(at.join(".dockerignore"), "a\n!\n").unwrap();
        let said = name_or_message(at, Some(&path("text")));
        assert!(said.ends_with(".dockerignore: line 2: illegal exclusion pattern: \"!\""), "{said}");
    }

    #[test]
    fn addresses_are_sent_as_they_are() {
        for (path, is_it) in [
            ("https://example.org/a.git#v1:deploy", true),
            ("http://example.org/context.tar.gz", true),
            ("git@github.com:a/b.git", true),
            ("github.com/a/b", true),
            ("git://h/a", true),
            (".", false),
            ("./github.com/a", false),
            ("ftp://h/a", false),
        ] {
            assert_eq!(is_remote(path), is_it, "{path}");
        }
        let Ok(Context::Remote { address, file, dockerfile }) = context("https://h/a.tar", Some("web.Dockerfile"))
        else {
            panic!("it is an address");
        };
        assert_eq!((address.as_str(), file.as_deref()), ("https://h/a.tar", Some("web.Dockerfile")));
        assert!(dockerfile.is_none());
    }
}
