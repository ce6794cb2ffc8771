//! Ways in for the fuzzers (`fuzz/`), what they assert, and the tests that run what they have found again.

use crate::directives::Escape;
use crate::expand::{LONGEST_BYTES, Quotes, expand, names, words};
use crate::ignore::IgnoreFile;
use crate::instruction::{CommandLine, HealthCheck, Instruction, Located, RunCommand, Step};
use crate::lint::{Options, check};
use crate::span::{Lines, Span};
use crate::text::Word;
use crate::{Dockerfile, parse, parse_trigger};

/// A Dockerfile. Whatever it is, everything in its tree stands within it, its checks come to an end, and what an image's
/// configuration would keep of ONBUILD says the same.
pub fn dockerfile(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let lines = Lines::new(source);
    match parse(source) {
        Ok(file) => look(&file, source),
        Err(failure) => {
            within(failure.error.span, source);
            assert!(!failure.error.excerpt("Dockerfile", source).is_empty());
            if let Some(before) = &failure.before {
                look(before, source);
            }
        }
    }
    let report = check(source, &Options::default());
    for finding in report.findings {
        assert!((1..=lines.count()).contains(finding.lines.start()), "{finding:?}");
        assert!((*finding.lines.start()..=lines.count()).contains(finding.lines.end()), "{finding:?}");
        lines.excerpt("Dockerfile", finding.lines, None);
    }
    if let Some(error) = report.error {
        within(error.span, source);
    }
}

/// A word: the first byte says how it is read. What becomes of it stays small, and a fault stands within it.
pub fn expansion(data: &[u8]) {
    let Some((how, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let escape = if how & 1 == 0 { '\\' } else { '`' };
    let quotes = if how & 2 == 0 { Quotes::Taken } else { Quotes::Kept };
    let word = Word { text: text.to_owned(), span: Span { start: 0, end: text.len() } };
    let value = |name: &str| if name.len() < 2 { Some("a/b.c*d \"'$x") } else { None };
    match expand(&word, escape, quotes, &value) {
        Ok(it) => {
            assert!(it.text.len() <= LONGEST_BYTES + text.len(), "{}", it.text.len());
            let asked: Vec<_> = it.used.union(&it.unknown).cloned().collect();
            assert_eq!(asked, names(&word, escape, quotes).into_iter().collect::<Vec<_>>());
            assert!(it.words.iter().all(|word| !word.is_empty()), "{:?}", it.words);
        }
        Err(error) => within(error.span, text),
    }
}

/// An ignore file and a path, parted by a zero byte. What may be seen is looked for.
pub fn ignore(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (rules, path) = text.split_once('\0').unwrap_or((text, "a/b"));
    let Ok(file) = IgnoreFile::parse(rules) else { return };
    let is_out = file.leaves_out(path);
    assert!(!is_out || !file.is_empty(), "nothing leaves out {path:?}");
    let is_plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_out || !is_plain {
        return;
    }
    for (at, _) in path.match_indices('/') {
        let parent = &path[..at];
        assert!(
            !file.leaves_out(parent) || file.may_see_below(parent),
            "{path:?} is seen, and {parent:?} not looked at"
        );
    }
}

#[track_caller]
fn within(span: Span, source: &str) {
    assert!(span.start <= span.end && span.end <= source.len(), "{span:?} of {}", source.len());
    assert!(source.is_char_boundary(span.start) && source.is_char_boundary(span.end), "{span:?}");
}

fn look(file: &Dockerfile, source: &str) {
    let all = |word: &Word| within(word.span, source);
    for arg in &file.global {
        place(arg, source);
    }
    for stage in file.stages.iter() {
        place(&stage.from, source);
        let from = &stage.from.value;
        all(&from.base);
        from.platform.iter().for_each(all);
        from.alias.iter().flat_map(|alias| [&alias.keyword, &alias.name]).for_each(all);
        for located in &stage.instructions {
            place(located, source);
            match &located.value {
                Instruction::Step(step) => look_at(step, source),
                Instruction::Maintainer(word) => all(word),
                Instruction::OnBuild(on_build) => {
                    look_at(&on_build.trigger, source);
                    if file.directives.escape == Escape::Backslash {
                        assert_eq!(parse_trigger(&on_build.source).as_ref(), Ok(&on_build.trigger));
                    }
                }
            }
        }
    }
}

fn place<T>(located: &Located<T>, source: &str) {
    within(located.span, source);
    within(located.keyword.span, source);
    assert!((located.span.start..=located.span.end).contains(&located.line_end));
    located.comments.iter().for_each(|comment| within(comment.span, source));
}

fn look_at(step: &Step, source: &str) {
    words::of(step).into_iter().for_each(|it| within(it.word.span, source));
    let shown: Vec<&Word> = match step {
        Step::Run(run) => match &run.command {
            RunCommand::Shell { line, heredocs } => {
                heredocs.iter().for_each(|heredoc| within(heredoc.mark, source));
                heredocs.iter().map(|heredoc| &heredoc.content).chain([line]).collect()
            }
            RunCommand::Exec(words) => words.iter().collect(),
        },
        Step::Cmd(command) | Step::Entrypoint(command) | Step::HealthCheck(HealthCheck::Check { command, .. }) => {
            match command {
                CommandLine::Shell(word) => vec![word],
                CommandLine::Exec(words) => words.iter().collect(),
            }
        }
        Step::Shell(words) => words.iter().collect(),
        _ => Vec::new(),
    };
    shown.into_iter().for_each(|word| within(word.span, source));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    include!("../../../fuzz/replay.rs");

    #[test]
    fn dockerfiles() {
        replay("dockerfile", super::dockerfile);
    }

    #[test]
    fn expansions() {
        replay("expansion", super::expansion);
    }

    #[test]
    fn ignore_files() {
        replay("ignore", super::ignore);
    }

    /// The corpus of the snapshots, cut off at every byte and with every line left out.
    #[test]
    fn broken_dockerfiles() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
        for entry in std::fs::read_dir(directory).unwrap() {
            let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for end in (0..source.len()).filter(|end| end % 3 == 0) {
                super::dockerfile(&source.as_bytes()[..end]);
            }
            let lines: Vec<&str> = source.split_inclusive('\n').collect();
            for left_out in 0..lines.len() {
                let kept = lines.iter().enumerate().filter(|(index, _)| *index != left_out);
                super::dockerfile(kept.map(|(_, line)| *line).collect::<String>().as_bytes());
            }
        }
    }

    /// Words of the language in any order.
    fn source() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "FROM ",
            "RUN ",
            "COPY ",
            "ADD ",
            "ENV ",
            "ARG ",
            "LABEL ",
            "ONBUILD ",
            "CMD ",
            "EXPOSE ",
            "HEALTHCHECK ",
            "USER ",
            "VOLUME ",
            "WORKDIR ",
            "SHELL ",
            "AS ",
            "a",
            "é",
            " ",
            "\t",
            "\n",
            "\n",
            "\r\n",
            "\\\n",
            "`\n",
            "\\",
            "`",
            "# ",
            "# escape=`\n",
            "# check=",
            "--from=",
            "--mount=",
            "--link ",
            "--chown=",
            "type=",
            "target=/x",
            ",",
            "\"",
            "'",
            "[",
            "]",
            "[\"a\"]",
            "<<E",
            "<<-'E'",
            "E\n",
            "=",
            "$a",
            "${a",
            ":-",
            "}",
            "80/tcp",
            "CMD b",
            "NONE",
            "--interval=1s ",
            "\u{feff}",
        ]);
        prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn no_dockerfile_panics(source in source()) {
            super::dockerfile(source.as_bytes());
            super::dockerfile(format!("FROM a\n{source}").as_bytes());
        }

        #[test]
        fn no_word_panics(data in proptest::collection::vec(any::<u8>(), 0..40)) {
            super::expansion(&data);
            super::ignore(&data);
            super::dockerfile(&data);
        }
    }
}
