//! What a check has found, as buildx shows it: for people, and as JSON (buildkit, frontend/subrequests/lint).

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use dozen_dockerfile::lint::Report;
use dozen_dockerfile::{Error, Lines};
use serde::Serialize;

/// For people. Where the file has a fault, nothing is said of what was not found.
pub(super) fn text(report: &Report, file: &str, source: &str) -> String {
    let mut text = match (report.findings.len(), &report.error) {
        (0, Some(_)) => String::new(),
        (0, None) => "Check complete, no warnings found.\n".to_owned(),
        (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
        (count, _) => format!("Check complete, {count} warnings have been found!\n"),
    };
    let lines = Lines::new(source);
    for finding in &report.findings {
        let _ = write!(text, "\nWARNING: {} - {}\n{}\n", finding.rule.name(), finding.rule.url(), finding.detail);
        text.push_str(&lines.excerpt(file, finding.lines.clone(), None));
    }
    if report.error.is_some() && !report.findings.is_empty() {
        text.push('\n');
    }
    text
}

/// A fault with its place and the way out, for stderr.
pub(super) fn error(error: &Error, file: &str, source: &str) -> String {
    let hint = error.hint.as_ref().map(|hint| format!("hint: {hint}")).unwrap_or_default();
    format!("ERROR: {error}\n{}{hint}", error.excerpt(file, source)).trim_end().to_owned()
}

#[derive(Serialize)]
struct Results<'a> {
    warnings: Vec<Warning<'a>>,
    sources: [Source<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<BuildError>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning<'a> {
    rule_name: &'a str,
    description: &'a str,
    url: String,
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct Source<'a> {
    filename: &'a str,
    language: &'a str,
    /// Base 64.
    data: String,
}

#[derive(Serialize)]
struct BuildError {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
}

/// Of the one source there is.
#[derive(Serialize)]
struct Location {
    ranges: [Range; 1],
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

fn location(lines: RangeInclusive<usize>) -> Location {
    Location { ranges: [Range { start: Position { line: *lines.start() }, end: Position { line: *lines.end() } }] }
}

pub(super) fn json(report: &Report, file: &str, source: &str) -> String {
    let lines = Lines::new(source);
    let warnings = report.findings.iter().map(|finding| Warning {
        rule_name: finding.rule.name(),
        description: finding.rule.description(),
        url: finding.rule.url(),
        detail: &finding.detail,
        location: location(finding.lines.clone()),
    });
    let error = report.error.as_ref();
    let results = Results {
        warnings: warnings.collect(),
        sources: [Source {
            filename: file,
            language: "Dockerfile",
            data: dozen_model::base64::encode(source.as_bytes()),
        }],
        error: error.map(|error| BuildError {
            message: error.to_string(),
            location: error.has_place().then(|| location(lines.of(error.span))),
        }),
    };
    serde_json::to_string_pretty(&results).expect("texts and numbers are JSON")
}

#[cfg(test)]
mod tests {
    use dozen_dockerfile::lint::{Options, check};

    use super::*;

    const BAD: &str = "FROM a AS Web\n\nRUN b \\\n  c\nCMD d\n";

    fn report(source: &str) -> Report {
        check(source, &Options::default())
    }

    #[test]
    fn people_see_the_lines() {
        insta::assert_snapshot!("two_warnings", text(&report(BAD), "web/Dockerfile", BAD));
        assert_eq!(text(&report("FROM a\n"), "x", "FROM a\n"), "Check complete, no warnings found.\n");
        let one = "FROM a\nCMD b";
        assert!(text(&report(one), "x", one).starts_with("Check complete, 1 warning has been found!\n\nWARNING: JSON"));
    }

    #[test]
    fn faults_are_shown_after_what_was_found() {
        let source = format!("{BAD}ENRTYPOINT e\n");
        let report = report(&source);
        let said = text(&report, "Dockerfile", &source) + &error(report.error.as_ref().unwrap(), "Dockerfile", &source);
        insta::assert_snapshot!("a_warning_and_a_fault", said);
        let report = check("FRMO a", &Options::default());
        assert_eq!(text(&report, "x", "FRMO a"), "");
    }

    #[test]
    fn programs_get_json() {
        insta::assert_snapshot!("two_warnings_as_json", json(&report(BAD), "Dockerfile", BAD));
        let source = "FROM a\nCOPY --from=b c\n";
        insta::assert_snapshot!("a_fault_as_json", json(&report(source), "Dockerfile", source));
    }
}
