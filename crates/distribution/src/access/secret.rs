//! One password, made by the server and kept in a file that its owner alone can read: whoever can read that may do everything,
//! and nobody else anything. For a registry that serves the machine it is on, where other users and containers with the
//! host's network reach loopback as well.
//!
//! It is as long as a key, so it is no use to guess, and nothing slow is computed to compare it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ring::hmac;

use super::token::keep;

const BYTES: usize = 32;
/// What a person has put there in its place is no shorter, and no longer.
const LENGTHS: std::ops::RangeInclusive<usize> = 32..=512;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum SecretError {
    #[error("cannot keep the registry's password in {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no password of a registry, which is one line of 32 letters at least: remove it, and another is made", .0.display())]
    Malformed(PathBuf),
    #[error("others than its owner can read or change {}: say chmod 600, or remove it", .0.display())]
    Readable(PathBuf),
}

/// See the module.
pub struct Secret {
    password: String,
    /// Of this process: what is compared is signed by it, so the time that takes tells nothing.
    key: hmac::Key,
}

impl std::fmt::Debug for Secret {
    /// Says nothing of what is in it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Secret {
    /// Whose password it is: there is nobody else.
    pub const USER: &str = "dozen";

    /// Reads it, or makes it. Blocks.
    ///
    /// # Errors
    /// It cannot be read or kept, or is not its owner's alone.
    pub fn open(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::File { path: path.to_owned(), source };
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => {
                if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
                    return Err(SecretError::Readable(path.to_owned()));
                }
                file.take(*LENGTHS.end() as u64 + 2).read_to_string(&mut text).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0; BYTES];
                getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
                text = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                keep(path, format!("{text}\n").as_bytes()).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let is_one = LENGTHS.contains(&password.len()) && password.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_one {
            return Err(SecretError::Malformed(path.to_owned()));
        }
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
        Ok(Self { password: password.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    pub(crate) fn is_right(&self, name: &str, password: &[u8]) -> bool {
        let tag = hmac::sign(&self.key, password);
        hmac::verify(&self.key, self.password.as_bytes(), tag.as_ref()).is_ok() && name == Self::USER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_and_is_its_owners() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let first = Secret::open(&path).unwrap();
        assert_eq!(first.password.len(), 2 * BYTES);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Secret::open(&path).unwrap().password, first.password);
        assert!(!format!("{first:?}").contains(first.password.as_str()));
        let other = Secret::open(&directory.path().join("other")).unwrap();
        assert_ne!(other.password, first.password);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Secret::open(&path), Err(SecretError::Readable(_))));
    }

    #[test]
    fn what_is_none_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            Secret::open(&path).map(|secret| secret.password.clone())
        };
        let (good, long) = ("x".repeat(32), "x".repeat(513));
        assert_eq!(read(&good).unwrap(), good);
        assert_eq!(read(&format!("{good}\n")).unwrap(), good);
        for bad in ["", "\n", "short", &good[1..], &long, &format!("{good} x"), &format!("{good}\n\n")] {
            assert!(matches!(read(bad), Err(SecretError::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn only_the_right_one_is_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let secret = Secret::open(&directory.path().join("password")).unwrap();
        let right = secret.password.as_bytes().to_vec();
        assert!(secret.is_right(Secret::USER, &right));
        assert!(!secret.is_right("root", &right) && !secret.is_right("", &right));
        for bad in [&b""[..], &right[1..], &[&right[..], b"x"].concat(), b"dozen"] {
            assert!(!secret.is_right(Secret::USER, bad));
        }
    }
}
