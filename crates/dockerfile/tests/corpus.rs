//! Whole Dockerfiles: the tree of each, or what is wrong with it and where, and what the build checks say.

use std::fmt::Write as _;
use std::path::Path;

use dozen_dockerfile::instruction::Located;
use dozen_dockerfile::lint::{Options, check};
use dozen_dockerfile::{Dockerfile, Error, Lines, parse};

#[test]
fn every_file_is_read_as_it_was() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 60, "{}", paths.len());
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap();
        insta::assert_snapshot!(name, shown(&std::fs::read_to_string(&path).unwrap()));
    }
}

fn shown(source: &str) -> String {
    let mut text = match parse(source) {
        Ok(file) => tree(source, &file),
        Err(failure) => fault(source, &failure.error),
    };
    let report = check(source, &Options::default());
    for finding in &report.findings {
        let _ = writeln!(text, "{:?} {}: {}", finding.lines, finding.rule.name(), finding.detail);
    }
    if let (Some(error), Ok(_)) = (&report.error, parse(source)) {
        text.push_str(&fault(source, error));
    }
    text
}

fn fault(source: &str, error: &Error) -> String {
    let hint = error.hint.as_ref().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    format!("ERROR: {error}\n{hint}{}", error.excerpt("Dockerfile", source))
}

/// One line for each instruction: where it stands, and what it says with the bytes of each word.
fn tree(source: &str, file: &Dockerfile) -> String {
    let lines = Lines::new(source);
    let mut text = format!("{:?}\n", file.directives);
    for located in &file.global {
        text.push_str(&line(&lines, located));
    }
    for stage in file.stages.iter() {
        text.push_str(&line(&lines, &stage.from));
        for located in &stage.instructions {
            text.push_str(&line(&lines, located));
        }
    }
    text
}

fn line<T: std::fmt::Debug>(lines: &Lines<'_>, located: &Located<T>) -> String {
    let place = |byte| {
        let position = lines.position(byte);
        format!("{}:{}", position.line, position.column)
    };
    let comments = if located.comments.is_empty() { String::new() } else { format!(" {:?}", located.comments) };
    format!("{}-{} {:?}{comments}\n", place(located.span.start), place(located.span.end), located.value)
}
