//! What is said of an image, as files beside its own: `provenance.json`, `sbom.spdx.json`.

use std::collections::BTreeMap;
use std::path::Path;

use super::events::Statement;
use super::tar;
use crate::commands::system_words;

/// Texts by the names of their files.
#[derive(Debug, Default)]
pub(super) struct Statements(BTreeMap<String, String>);

impl Statements {
    /// One more part.
    pub(super) fn add(&mut self, part: Statement) {
        let Statement { file, text } = part;
        // An engine may be a stranger's: a name is a name.
        if !file.is_empty() && !file.contains('/') && file != "." && file != ".." {
            self.0.entry(file).or_default().push_str(&text);
        }
    }

    /// Writes them into a directory; what lies there by their names is replaced. The error says of which file.
    pub(super) fn write(&self, directory: &Path) -> Result<(), String> {
        for (name, text) in &self.0 {
            let path = directory.join(name);
            let failed = |error: std::io::Error| format!("{}: {}", path.display(), system_words(&error));
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
            std::fs::write(&path, text).map_err(failed)?;
        }
        Ok(())
    }

    /// The beginning of an archive that has them.
    pub(super) fn archived(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, text) in &self.0 {
            let size = text.len() as u64;
            let entry = tar::Entry { name: name.as_bytes(), kind: b'0', mode: 0o644, size, ..tar::Entry::default() };
            tar::write_header(&entry, &mut out);
            out.extend_from_slice(text.as_bytes());
            tar::pad(&mut out, text.len());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_together_and_stay_where_they_belong() {
        let mut statements = Statements::default();
        for (file, text) in
            [("a.json", "{\"a\":"), ("b.json", "[]"), ("a.json", "1}"), ("../c", "x"), ("..", "x"), ("", "x")]
        {
            statements.add(Statement { file: file.into(), text: text.into() });
        }
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nowhere/else", directory.path().join("b.json")).unwrap();
        statements.write(directory.path()).unwrap();
        let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((read("a.json"), read("b.json")), ("{\"a\":1}".to_owned(), "[]".to_owned()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        let archived = statements.archived();
        assert_eq!(archived.len(), 4 * tar::BLOCK);
        assert!(tar::is_header(&archived) && tar::is_header(&archived[2 * tar::BLOCK..]));
        assert_eq!(&archived[tar::BLOCK..tar::BLOCK + 7], b"{\"a\":1}");
        assert!(Statements::default().archived().is_empty());
    }
}
