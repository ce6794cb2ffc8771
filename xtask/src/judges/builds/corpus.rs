//! The corpus: cases in the files `xtask/builds/*.cases`. They are data of this verb alone, and small, so that many stand in
//! one file and can be read one after the other.
//!
//! ```text
//! === copy-a-file                   a case; names are of the whole corpus
//! build --build-arg A=1             flags of the build, as a shell reads them
//! judge buildah                     not BuildKit: this one of Debian's cannot do it
//! refused                           nobody builds it
//! after base-with-triggers          the case whose image this one begins from, as judged/base-with-triggers
//! --- Dockerfile                    a file of the context, with what follows
//! FROM busybox
//! --- bin/tool 0755 1000:1000       with a mode, and an owner
//! --- empty/ 0700                   a directory
//! --- link -> bin/tool              a link
//! --- !prepare                      a shell's script, run in the context once all else is there
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::failure::{Attempt, Failure};
use crate::steps;

/// Who builds a case beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judge {
    /// BuildKit, in docker 26.1.
    BuildKit,
    Buildah,
}

impl Judge {
    pub fn name(self) -> &'static str {
        match self {
            Self::BuildKit => "buildkit",
            Self::Buildah => "buildah",
        }
    }
}

/// A build, and what it begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// In the whole corpus.
    pub number: usize,
    pub name: String,
    /// Flags, as a shell reads them.
    pub flags: String,
    pub judge: Judge,
    /// Nobody builds it.
    pub is_refused: bool,
    /// The case whose image it begins from.
    pub after: Option<String>,
    pub files: Vec<File>,
    /// A shell's script.
    pub prepare: String,
}

/// Something in the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub kind: Kind,
    pub mode: Option<u32>,
    pub owner: Option<(u32, u32)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File(String),
    Directory,
    Link(String),
}

/// All of it, in the order of the files' names.
pub fn read() -> Result<Vec<Case>, Failure> {
    let directory = steps::workspace_root().join("xtask/builds");
    let entries = std::fs::read_dir(&directory).attempting(format_args!("read {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension() == Some(OsStr::new("cases")));
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).attempting(format_args!("read {}", path.display()))?;
        let read = parse(&text).map_err(|why| Failure::new(format!("{}: {why}", path.display())))?;
        cases.extend(read);
    }
    cases.iter_mut().enumerate().for_each(|(number, case)| case.number = number);
    let mut names = BTreeSet::new();
    for case in &cases {
        if let Some(after) = case.after.as_ref().filter(|after| !names.contains(after.as_str())) {
            return Err(Failure::new(format!("{}: no case '{after}' stands before it", case.name)));
        }
        if !names.insert(case.name.as_str()) {
            return Err(Failure::new(format!("two cases are called '{}'", case.name)));
        }
    }
    Ok(cases)
}

/// Those whose names contain `filter`, and those that they begin from.
pub fn choose(cases: Vec<Case>, filter: Option<&str>) -> Vec<Case> {
    let Some(filter) = filter else { return cases };
    let mut wanted: BTreeSet<String> =
        cases.iter().map(|case| &case.name).filter(|name| name.contains(filter)).cloned().collect();
    for case in cases.iter().rev() {
        if let Some(after) = case.after.as_ref().filter(|_| wanted.contains(&case.name)) {
            wanted.insert(after.clone());
        }
    }
    cases.into_iter().filter(|case| wanted.contains(&case.name)).collect()
}

fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut section = Section::Nothing;
    for (number, line) in text.lines().enumerate() {
        let wrong = |why: &str| format!("line {}: {why}: {line}", number + 1);
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case::new(name.trim()));
            section = Section::Head;
            continue;
        }
        let Some(case) = cases.last_mut() else {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            return Err(wrong("it belongs to no case"));
        };
        if let Some(head) = line.strip_prefix("--- ") {
            section = if head == "!prepare" {
                Section::Prepare
            } else {
                case.files.push(file(head).ok_or_else(|| wrong("this is no file"))?);
                Section::File
            };
            continue;
        }
        match section {
            Section::Prepare => case.prepare.extend([line, "\n"]),
            Section::File => match case.files.last_mut().map(|file| &mut file.kind) {
                Some(Kind::File(content)) => content.extend([line, "\n"]),
                _ if line.is_empty() => {}
                _ => return Err(wrong("it has no content")),
            },
            Section::Head | Section::Nothing => case.say(line).ok_or_else(|| wrong("this says nothing of a case"))?,
        }
    }
    // Between two cases there is a line, which is no content.
    for file in cases.iter_mut().filter_map(|case| case.files.last_mut()) {
        if let Kind::File(content) = &mut file.kind
            && content.ends_with("\n\n")
        {
            content.pop();
        }
    }
    Ok(cases)
}

enum Section {
    Nothing,
    Head,
    File,
    Prepare,
}

fn file(head: &str) -> Option<File> {
    let (path, kind, rest) = if let Some((path, target)) = head.split_once(" -> ") {
        (path, Kind::Link(target.to_owned()), "")
    } else {
        let (path, rest) = head.split_once(' ').unwrap_or((head, ""));
        match path.strip_suffix('/') {
            Some(path) => (path, Kind::Directory, rest),
            None => (path, Kind::File(String::new()), rest),
        }
    };
    let mut file = File { path: path.to_owned(), kind, mode: None, owner: None };
    for word in rest.split_whitespace() {
        match word.split_once(':') {
            Some((user, group)) => file.owner = Some((user.parse().ok()?, group.parse().ok()?)),
            None => file.mode = Some(u32::from_str_radix(word, 8).ok()?),
        }
    }
    Some(file)
}

impl Case {
    fn new(name: &str) -> Self {
        Self {
            number: 0,
            name: name.to_owned(),
            flags: String::new(),
            judge: Judge::BuildKit,
            is_refused: false,
            after: None,
            files: Vec::new(),
            prepare: String::new(),
        }
    }

    fn say(&mut self, line: &str) -> Option<()> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("build", flags) => self.flags = flags.to_owned(),
            ("judge", "buildah") => self.judge = Judge::Buildah,
            ("refused", "") => self.is_refused = true,
            ("after", name) => self.after = Some(name.to_owned()),
            ("", "") => {}
            (word, _) if word.starts_with('#') => {}
            _ => return None,
        }
        Some(())
    }

    /// Lays it out: `flags`, `prepare` and the directory `context`.
    pub fn write(&self, directory: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("cannot lay out {}: {error}", self.name));
        let context = directory.join("context");
        std::fs::create_dir_all(&context).map_err(failed)?;
        std::fs::write(directory.join("flags"), &self.flags).map_err(failed)?;
        std::fs::write(directory.join("prepare"), &self.prepare).map_err(failed)?;
        self.files.iter().try_for_each(|file| file.write(&context)).map_err(failed)
    }
}

impl File {
    fn write(&self, context: &Path) -> std::io::Result<()> {
        let path = context.join(&self.path);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mode = match &self.kind {
            Kind::File(content) => {
                std::fs::write(&path, content)?;
                0o644
            }
            Kind::Directory => {
                DirBuilder::new().recursive(true).create(&path)?;
                0o755
            }
            Kind::Link(target) => return symlink(target, &path),
        };
        if let Some((user, group)) = self.owner {
            chown(&path, Some(user), Some(group))?;
        }
        std::fs::set_permissions(&path, Permissions::from_mode(self.mode.unwrap_or(mode)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read() {
        let text = "# words\n\n=== one\nbuild --target a\njudge buildah\n--- Dockerfile\nFROM a\n\nRUN b\n\
                    --- c/d 0755 1:2\n--- e/ 0700\n--- f -> c/d\n--- !prepare\ntouch g\n\n\
                    === two\nrefused\nafter one\n--- Dockerfile\nFORM a\n\n";
        let cases = parse(text).unwrap();
        let one = &cases[0];
        assert_eq!((one.flags.as_str(), one.judge, one.is_refused), ("--target a", Judge::Buildah, false));
        let expected = [
            File { path: "Dockerfile".into(), kind: Kind::File("FROM a\n\nRUN b\n".into()), mode: None, owner: None },
            File { path: "c/d".into(), kind: Kind::File(String::new()), mode: Some(0o755), owner: Some((1, 2)) },
            File { path: "e".into(), kind: Kind::Directory, mode: Some(0o700), owner: None },
            File { path: "f".into(), kind: Kind::Link("c/d".into()), mode: None, owner: None },
        ];
        assert_eq!(one.files, expected);
        assert_eq!(one.prepare, "touch g\n\n");
        assert_eq!((cases[1].is_refused, cases[1].after.as_deref()), (true, Some("one")));
        assert_eq!(cases[1].files[0].kind, Kind::File("FORM a\n".into()));
        for wrong in ["words\n", "=== a\nwords\n", "=== a\n--- b 9\n", "=== a\n--- b/\nwords\n"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let names = |filter| choose(cases.clone(), filter).into_iter().map(|case| case.name).collect::<Vec<_>>();
        assert_eq!(names(Some("two")), ["one", "two"]);
        assert_eq!(names(Some("one")), ["one"]);
    }

    #[test]
    fn the_corpus_is_as_large_as_is_said() {
        let cases = read().unwrap();
        assert!(cases.len() >= 150, "{}", cases.len());
    }
}
