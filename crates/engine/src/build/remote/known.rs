//! Files that were fetched before: by what their servers know them, and what they were. A server that says that one is the
//! same still need not send it again. Rows are kill-safe and no more, as the build cache's are: one that is lost costs a
//! download, and none is believed without a server's word.

use dozen_fetch::Validators;
use dozen_ledger::rusqlite::{OptionalExtension, params};
use dozen_ledger::{Durability, Ledger, LedgerError, Migration};
use dozen_model::{Digest, error_chain};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::seconds;

/// The files. Contents are in none of them: what they became is in the build cache's layers, or gone.
pub(crate) const MIGRATION: Migration = Migration(
    "
CREATE TABLE fetched_file (
    name              TEXT PRIMARY KEY,       -- digest of its URL, which may have a password in it
    etag              TEXT,
    last_modified     TEXT,
    digest            TEXT NOT NULL,          -- of its contents
    fetched_s         INTEGER NOT NULL
) STRICT;
CREATE INDEX fetched_file_by_age ON fetched_file(fetched_s);
",
);

/// Those that were fetched last are kept.
const MOST_FILES: i64 = 10_000;
/// No server means well by more.
const LONGEST_BYTES: usize = 1024;
/// A file may change twice in a second, and a clock may be a little wrong.
const CERTAIN_S: i64 = 60;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownFile {
    pub(super) validators: Validators,
    pub(super) digest: Digest,
}

/// What a URL is called here.
pub(super) fn name_of(url: &str) -> Digest {
    Digest::from_sha256(Sha256::digest(url).into())
}

/// What can be asked by later. A date says enough only if the file was old when it was sent (RFC 9110, section 8.8.2.2).
pub(super) fn worth_keeping(said: &Validators, date: Option<&str>) -> Option<Validators> {
    let is_short = |text: &String| text.len() <= LONGEST_BYTES;
    if let Some(etag) = said.etag.clone().filter(is_short) {
        return Some(Validators { etag: Some(etag), last_modified: None });
    }
    let modified = said.last_modified.clone().filter(is_short)?;
    let age_s = seconds(date?)?.checked_sub(seconds(&modified)?)?;
    (age_s >= CERTAIN_S).then_some(Validators { etag: None, last_modified: Some(modified) })
}

/// Looks it up. Blocks.
pub(super) fn find(ledger: &Ledger, name: &Digest) -> Result<Option<KnownFile>, LedgerError> {
    let name = name.to_string();
    let found = ledger.read(move |connection| -> Result<_, LedgerError> {
        let row = connection.query_row(
            "SELECT etag, last_modified, digest FROM fetched_file WHERE name = ?1",
            [name],
            |row| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, String>(2)?)),
        );
        Ok(row.optional()?)
    })?;
    Ok(found.and_then(|(etag, last_modified, digest)| {
        Some(KnownFile { validators: Validators { etag, last_modified }, digest: digest.parse().ok()? })
    }))
}

/// Writes it down. Nobody waits for it.
pub(super) fn keep(ledger: &Ledger, name: Digest, file: KnownFile) {
    let KnownFile { validators: Validators { etag, last_modified }, digest } = file;
    let now_s = Timestamp::now().as_second();
    ledger.submit(
        Durability::Kill,
        move |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO fetched_file VALUES (?1, ?2, ?3, ?4, ?5)",
                params![name.as_str(), etag, last_modified, digest.as_str(), now_s],
            )?;
            connection.execute(
                "DELETE FROM fetched_file WHERE name IN
                     (SELECT name FROM fetched_file ORDER BY fetched_s DESC, name LIMIT -1 OFFSET ?1)",
                [MOST_FILES],
            )?;
            Ok(())
        },
        |written: Result<(), LedgerError>| {
            if let Err(error) = written {
                tracing::warn!(error = error_chain(&error), "a file that a build has fetched will be fetched again");
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(etag: Option<&str>, last_modified: Option<&str>) -> Validators {
        Validators { etag: etag.map(str::to_owned), last_modified: last_modified.map(str::to_owned) }
    }

    #[test]
    fn a_date_alone_has_to_be_an_old_one() {
        let at = |minute: u32, second: u32| format!("Sun, 06 Nov 1994 08:{minute:02}:{second:02} GMT");
        let old = at(48, 37);
        for (etag, modified, date, want) in [
            (Some("\"a\""), None, None, said(Some("\"a\""), None)),
            (Some("W/\"a\""), Some(old.as_str()), None, said(Some("W/\"a\""), None)),
            (None, Some(&old), Some(at(49, 37)), said(None, Some(&old))),
            (None, Some(&old), Some(at(49, 36)), said(None, None)),
            (None, Some(&old), Some(at(47, 0)), said(None, None)),
            (None, Some(&old), None, said(None, None)),
            (None, Some("today"), Some(at(49, 37)), said(None, None)),
            (None, None, Some(at(49, 37)), said(None, None)),
        ] {
            let found = worth_keeping(&said(etag, modified), date.as_deref());
            assert_eq!(found.unwrap_or_default(), want, "{etag:?} {modified:?} {date:?}");
        }
        assert_eq!(worth_keeping(&said(Some(&"a".repeat(2000)), None), None), None);
    }

    #[test]
    fn a_file_is_known_until_others_have_come() {
        let home = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&home.path().join("state.db"), &[MIGRATION]).unwrap();
        let file = |number: u8| KnownFile {
            validators: said(Some(&format!("\"{number}\"")), None),
            digest: Digest::from_sha256([number; 32]),
        };
        let name = name_of("https://me:pw@h/a");
        assert!(find(&ledger, &name).unwrap().is_none());
        keep(&ledger, name.clone(), file(1));
        keep(&ledger, name.clone(), file(2));
        // What is read stands behind what was written before.
        assert_eq!(find(&ledger, &name).unwrap(), Some(file(2)));
        assert_eq!(find(&ledger, &name_of("https://h/a")).unwrap(), None);
    }
}
