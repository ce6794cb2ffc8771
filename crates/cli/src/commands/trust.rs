//! `dozen trust key generate`: a pair of keys to sign images with, as cosign and skopeo make them.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use dozen_trust::PrivateKey;
use zeroize::Zeroizing;

use super::sign::first_line;
use crate::arguments::flags::{name, required, text, value, verb};
use crate::failure::{Failure, Outcome};
use crate::{output, terminal};

pub fn command() -> Command {
    let group = |name, about| Command::new(name).about(about).subcommand_required(true).arg_required_else_help(true);
    group("trust", "Manage keys that sign images").subcommand(
        group("key", "Manage keys for signing images").subcommand(
            verb(
                "generate",
                "Generate a signing key-pair: NAME.key, which a passphrase protects, and NAME.pub",
                "trust key generate [OPTIONS] NAME",
                "dozen trust key generate --dir ~/keys team\n\
                 dozen push --sign-by-sigstore-private-key ~/keys/team.key registry.example:5000/team/app:1",
            )
            .arg(value("dir", None, "string", "Directory to generate the keys in, defaults to current directory"))
            .arg(value(
                "passphrase-file",
                None,
                "file",
                "Read the passphrase from the file's first line, which may be empty",
            ))
            .arg(name("name", "NAME")),
        ),
    )
}

pub fn execute(matches: &ArgMatches) -> Outcome {
    let (_, key) = matches.subcommand().expect("clap wants one");
    let (_, matches) = key.subcommand().expect("clap wants one");
    let name = required(matches, "name");
    if name.is_empty() || name.starts_with(['.', '-']) || name.contains('/') {
        return Err(Failure::new(format!("key name {name:?} must not be empty, have a / in it, or begin with . or -")));
    }
    let directory = text(matches, "dir").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let [private, public] = ["key", "pub"].map(|end| directory.join(format!("{name}.{end}")));
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
    }
    let passphrase = match text(matches, "passphrase-file") {
        Some(path) => first_line(path)?,
        None => prompted()?,
    };
    let made = PrivateKey::generate(passphrase.as_bytes());
    let (key, file) = made.map_err(|error| Failure::new(format!("cannot generate a key: {error}")))?;
    write(&private, 0o600, file.as_bytes())?;
    if let Err(error) = write(&public, 0o644, key.public().to_pem().as_bytes()) {
        // Half a pair is none.
        let _ = std::fs::remove_file(&private);
        return Err(error);
    }
    output::print_line(&format!(
        "Private key written to {}\nPublic key written to {}",
        private.display(),
        public.display()
    ))?;
    Ok(0)
}

/// A key that is there is somebody's: what it has signed nobody could sign again.
fn exists(path: &Path) -> Failure {
    Failure::new(format!("refusing to overwrite {}: it exists", path.display())).with_hint("choose another name")
}

fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::new(format!("cannot write {}: {error}", path.display())),
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

fn prompted() -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("a passphrase cannot be asked for without a terminal")
            .with_hint("--passphrase-file FILE names a file with one, or an empty one"));
    }
    let ask = |question| {
        let line = terminal::read_hidden_line(question)?;
        let _ = writeln!(std::io::stderr());
        line.map(Zeroizing::new).ok_or_else(|| Failure::new("no passphrase was given"))
    };
    let first = ask("Passphrase for the new key: ")?;
    match ask("Repeat it: ")? == first {
        true => Ok(first),
        false => Err(Failure::new("passphrases do not match")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let passphrase = directory.path().join("passphrase");
        std::fs::write(&passphrase, "sesame\n").unwrap();
        let line =
            ["trust", "key", "generate", "--dir", path, "--passphrase-file", passphrase.to_str().unwrap(), "team"];
        let matches = command().try_get_matches_from(line).unwrap();
        execute(&matches).unwrap();
        let [private, public] = ["team.key", "team.pub"].map(|name| directory.path().join(name));
        let mode = std::os::unix::fs::PermissionsExt::mode(&private.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let key = PrivateKey::read(&std::fs::read_to_string(&private).unwrap(), b"sesame").unwrap();
        assert_eq!(key.public().to_pem(), std::fs::read_to_string(&public).unwrap());
        let again = execute(&matches).unwrap_err().message;
        assert_eq!(again, format!("refusing to overwrite {}: it exists", private.display()));
        // Not for half of it, either.
        std::fs::remove_file(&private).unwrap();
        assert!(execute(&matches).is_err() && !private.exists());
    }
}
