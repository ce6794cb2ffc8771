//! Where an archive goes that the engine streams: to a file, which is whole or not there, to a pipe, or to stdout.

use std::io::IsTerminal;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use http::{Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::fs::OpenOptions;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::failure::Failure;
use crate::output::progress;

/// A place that an archive may go to, decided before anything is asked of the engine.
pub struct Download {
    /// What is said before a failure: `failed to save image`.
    failed: &'static str,
    /// `None`: stdout.
    target: Option<Target>,
    /// Goes before the archive.
    beginning: Vec<u8>,
}

impl Download {
    /// `output` is the flag's value. `verb` is what Docker's client says of a terminal.
    pub fn to(output: Option<&str>, verb: &str, failed: &'static str) -> Result<Self, Failure> {
        let path = output.filter(|path| !path.is_empty()).map(PathBuf::from);
        if path.is_none() && std::io::stdout().is_terminal() {
            return Err(Failure::new(format!(
                "cowardly refusing to {verb} to a terminal. Use the -o flag or redirect"
            )));
        }
        let target = path.map(Target::at).transpose().map_err(|why| Failure::new(format!("{failed}: {why}")))?;
        Ok(Self { failed, target, beginning: Vec::new() })
    }

    /// With entries of ours before those of the archive.
    pub fn after(self, beginning: Vec<u8>) -> Self {
        Self { beginning, ..self }
    }

    /// Takes all of the archive.
    pub async fn take(self, response: Response<Incoming>, title: &str) -> Result<(), Failure> {
        let failed =
            |path: &Path, error: std::io::Error| Failure::new(format!("{}: {}: {error}", self.failed, path.display()));
        match &self.target {
            None => copy(&self.beginning, response, &mut tokio::io::stdout(), title).await,
            Some(Target::File(path)) => to_file(&self.beginning, response, path, title, &failed).await,
            Some(Target::Stream(path)) => {
                // Only a link that leads to nothing needs it: the kernel does not create through others' pipes.
                let is_new = !path.exists();
                let mut options = OpenOptions::new();
                let stream = options.write(true).create(is_new).truncate(true).open(path).await;
                copy(&self.beginning, response, &mut stream.map_err(|error| failed(path, error))?, title).await
            }
        }
    }
}

/// Where an archive may go.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// A regular file, or none yet: replaced at once when the archive is whole.
    File(PathBuf),
    /// A pipe, or what a symbolic link leads to (`/dev/stdout` is one): written in place. To rename something over the
    /// link would take it away from everyone else.
    Stream(PathBuf),
}

impl Target {
    /// The words are those of Docker's client, with the path.
    fn at(path: PathBuf) -> Result<Self, String> {
        let shown = path.display();
        let refused = |what: &str| Err(format!("cannot write to a {what}: {shown}"));
        let invalid = |path: &Path, error: &std::io::Error| {
            format!("invalid output path: stat {}: {}", path.display(), super::system_words(error))
        };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            parent.metadata().map_err(|error| invalid(parent, &error))?;
        }
        let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        let kind = match path.metadata() {
            Ok(metadata) => Some(metadata.file_type()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(invalid(&path, &error)),
        };
        match kind {
            Some(kind) if kind.is_dir() => refused("directory"),
            Some(kind) if kind.is_char_device() => refused("character device file"),
            Some(kind) if kind.is_block_device() => refused("block device file"),
            Some(kind) if kind.is_socket() => refused("socket file"),
            Some(kind) if is_link || !kind.is_file() => Ok(Self::Stream(path)),
            None if is_link => Ok(Self::Stream(path)),
            _ => Ok(Self::File(path)),
        }
    }
}

/// Writes beside the target and renames at the end: a file of that name is whole, or not there.
async fn to_file(
    beginning: &[u8],
    response: Response<Incoming>,
    path: &Path,
    title: &str,
    failed: &impl Fn(&Path, std::io::Error) -> Failure,
) -> Result<(), Failure> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let failed = |error: std::io::Error| failed(path, error);
    // Never through something that lies there already, whoever made it: a link, or what one of the same number left.
    let _ = tokio::fs::remove_file(&part).await;
    let mut file = OpenOptions::new().write(true).create_new(true).open(&part).await.map_err(failed)?;
    let result = async {
        copy(beginning, response, &mut file, title).await?;
        file.flush().await.map_err(failed)?;
        tokio::fs::rename(&part, path).await.map_err(failed)
    }
    .await;
    if result.is_err() {
        let _ = tokio::fs::remove_file(&part).await;
    }
    result
}

async fn copy(
    beginning: &[u8],
    response: Response<Incoming>,
    to: &mut (impl AsyncWrite + Unpin),
    title: &str,
) -> Result<(), Failure> {
    to.write_all(beginning).await?;
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let bar = progress::bytes(title, length, false);
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::new(format!("the archive ended early: {error}")))?;
        if let Ok(data) = frame.into_data() {
            to.write_all(&data).await?;
            bar.inc(data.len() as u64);
        }
    }
    to.flush().await?;
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "old").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (link, to) in [("to-file", "file"), ("to-null", "/dev/null"), ("to-nothing", "nothing")] {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        for (name, target) in [
            ("file", Target::File(at("file"))),
            ("new", Target::File(at("new"))),
            ("pipe", Target::Stream(at("pipe"))),
            ("to-file", Target::Stream(at("to-file"))),
            ("to-nothing", Target::Stream(at("to-nothing"))),
        ] {
            assert_eq!(Target::at(at(name)), Ok(target), "{name}");
        }
        assert_eq!(Target::at("bare".into()), Ok(Target::File("bare".into())));
        let refused = |path: PathBuf| Target::at(path).unwrap_err();
        let device = "cannot write to a character device file: /dev/null";
        assert_eq!(refused("/dev/null".into()), device);
        assert!(refused(at("to-null")).contains("cannot write to a character device file"));
        assert!(refused(at("socket")).contains("cannot write to a socket file"));
        assert!(refused(directory.path().to_owned()).contains("cannot write to a directory"));
        assert!(refused(at("no/file")).ends_with("no: no such file or directory"));
    }
}
