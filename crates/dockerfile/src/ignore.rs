//! `.dockerignore`: what of a context the build does not see (docs.docker.com/build/concepts/context, "dockerignore
//! files"; where that leaves something open, as the moby project's patternmatcher does it).
//!
//! One pattern a line, `#` at its beginning for a comment. A path is left out if the last pattern that matches it, or a
//! directory above it, does not begin with `!`.

mod pattern;

use std::path::{Path, PathBuf};

use pattern::Pattern;

/// The patterns of a file, in order.
#[derive(Debug, Clone, Default)]
pub struct IgnoreFile {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: Pattern,
    /// It began with `!`: what it matches is seen after all.
    is_exception: bool,
}

/// A line that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for IgnoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for IgnoreError {}

/// Where an ignore file may lie, the first that is there counts: beside the Dockerfile with its name, or at the root of
/// the context.
pub fn candidates(dockerfile: &Path, context: &Path) -> [PathBuf; 2] {
    let mut own = dockerfile.as_os_str().to_owned();
    own.push(".dockerignore");
    [own.into(), context.join(".dockerignore")]
}

impl IgnoreFile {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let mut file = Self::default();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if !line.starts_with('#') {
                file.add(line).map_err(|message| IgnoreError { line: index + 1, message: message.to_owned() })?;
            }
        }
        Ok(file)
    }

    /// Of patterns that are given one by one, as `--exclude` does: none is a comment.
    pub fn of_patterns<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, IgnoreError> {
        let mut file = Self::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            file.add(pattern).map_err(|message| IgnoreError { line: index + 1, message: message.to_owned() })?;
        }
        Ok(file)
    }

    fn add(&mut self, text: &str) -> Result<(), &'static str> {
        let text = text.trim();
        let (is_exception, pattern) = match text.strip_prefix('!') {
            Some(pattern) => (true, pattern.trim()),
            None => (false, text),
        };
        if pattern.is_empty() {
            return if is_exception { Err("illegal exclusion pattern: \"!\"") } else { Ok(()) };
        }
        let pattern = clean(pattern);
        // "For historical reasons, the pattern . is ignored."
        if pattern != "." {
            let pattern = Pattern::parse(&pattern).ok_or("syntax error in pattern")?;
            self.rules.push(Rule { pattern, is_exception });
        }
        Ok(())
    }

    /// Nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.rules.iter().all(|rule| rule.is_exception)
    }

    /// A path, relative to the context and with `/` between its parts, is left out. The context itself never is.
    pub fn leaves_out(&self, path: &str) -> bool {
        let path = clean(path);
        if path == "." {
            return false;
        }
        let mut is_out = false;
        for rule in &self.rules {
            // What would change nothing is not looked at.
            if rule.is_exception == is_out && rule.pattern.matches(&path) {
                is_out = !rule.is_exception;
            }
        }
        is_out
    }

    /// Something below a directory that is left out may be seen all the same: it has to be looked through.
    pub fn may_see_below(&self, directory: &str) -> bool {
        let directory = clean(directory);
        self.rules.iter().any(|rule| rule.is_exception && rule.pattern.may_match_below(&directory))
    }
}

/// A path without `.`, `..`, doubled slashes and those at its ends, as Go's filepath.Clean makes it; a leading slash is
/// the context's root. What would leave the root stays outside, and matches nothing.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let is_rooted = path.starts_with('/');
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            ".." if is_rooted => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests;
