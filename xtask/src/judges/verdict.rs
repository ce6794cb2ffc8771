//! Theirs beside ours. What passes with theirs and not with ours is a fault, unless docs/compatibility.md excepts it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::tap::{Outcome, TestResult};
use crate::failure::{Attempt, Failure};
use crate::steps;

/// What a suite's two runs come to.
pub struct Verdict {
    rows: Vec<(String, Outcome, Option<Outcome>, bool)>,
    /// What passes with theirs and not with ours, and is no exception, with its words.
    pub worse: Vec<String>,
    /// Exceptions that are none any more.
    better: Vec<String>,
}

impl Verdict {
    pub fn of(theirs: &[TestResult], ours: &[TestResult], exceptions: &BTreeMap<String, String>) -> Self {
        let ours: BTreeMap<&str, &TestResult> = ours.iter().map(|result| (result.name.as_str(), result)).collect();
        let mut verdict = Self { rows: Vec::new(), worse: Vec::new(), better: Vec::new() };
        for their in theirs {
            let own = ours.get(their.name.as_str());
            let outcome = own.map(|result| result.outcome);
            let is_excepted = exceptions.contains_key(&their.name);
            verdict.rows.push((their.name.clone(), their.outcome, outcome, is_excepted));
            match (their.outcome, outcome) {
                (Outcome::Passed, Some(Outcome::Passed)) if is_excepted => verdict.better.push(their.name.clone()),
                (Outcome::Passed, Some(Outcome::Passed)) => {}
                (Outcome::Passed, _) if !is_excepted => {
                    let said = own.map_or_else(|| "did not run".to_owned(), |result| result.said.join(" | "));
                    verdict.worse.push(format!("{}: {said}", their.name));
                }
                _ => {}
            }
        }
        verdict
    }

    /// Every test on which they differ, or which fails with either, and the sums.
    pub fn table(&self, suite: &str) -> String {
        let mut text = String::new();
        let word = |outcome: Option<Outcome>| outcome.map_or("absent", Outcome::word);
        let of_note = |theirs: Outcome, ours| ours != Some(theirs) || theirs == Outcome::Failed;
        // Writing to a string cannot fail.
        for (name, theirs, ours, excepted) in self.rows.iter().filter(|row| of_note(row.1, row.2)) {
            let note = if *excepted && *theirs == Outcome::Passed { "  (excepted)" } else { "" };
            let _ = writeln!(text, "{:<8} {:<8} {name}{note}", theirs.word(), word(*ours));
        }
        let count = |wanted: &dyn Fn(Outcome, Option<Outcome>) -> bool| {
            self.rows.iter().filter(|row| wanted(row.1, row.2)).count()
        };
        let passed = count(&|theirs, _| theirs == Outcome::Passed);
        let both = count(&|theirs, ours| theirs == Outcome::Passed && ours == Some(Outcome::Passed));
        let ours = count(&|theirs, ours| theirs == Outcome::Failed && ours == Some(Outcome::Passed));
        let _ = writeln!(
            text,
            "{suite}: {} tests, {passed} pass with theirs, {both} of them with ours; {ours} pass with ours alone",
            self.rows.len()
        );
        for name in &self.better {
            let _ = writeln!(text, "no exception any more: {name}");
        }
        text
    }
}

/// The tests that docs/compatibility.md excepts of a suite, with the reasons: its rows `| suite | test | reason |`.
pub fn exceptions(suite: &str) -> Result<BTreeMap<String, String>, Failure> {
    let path = steps::workspace_root().join("docs/compatibility.md");
    let text = std::fs::read_to_string(&path).attempting(format_args!("read {}", path.display()))?;
    Ok(rows(&text, suite))
}

fn rows(text: &str, suite: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::trim).collect();
        match cells.as_slice() {
            [of, test, reason] if *of == suite && !reason.is_empty() => {
                Some((test.trim_matches('`').to_owned(), (*reason).to_owned()))
            }
            _ => None,
        }
    };
    text.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, outcome: Outcome) -> TestResult {
        TestResult { name: name.to_owned(), outcome, said: vec!["why".to_owned()] }
    }

    #[test]
    fn what_passes_with_theirs_has_to_pass_with_ours() {
        use Outcome::{Failed, Passed, Skipped};
        let names = ["same", "worse", "skipped", "absent", "excepted", "mended", "neither"];
        let theirs: Vec<_> = names.iter().map(|n| result(n, if *n == "neither" { Failed } else { Passed })).collect();
        let ours = [
            result("same", Passed),
            result("worse", Failed),
            result("skipped", Skipped),
            result("excepted", Failed),
            result("mended", Passed),
            result("neither", Failed),
        ];
        let text = "| crun | `excepted` | because |\n| crun | `mended` | because |\n| runc | `worse` | of another |\n\
                    | crun | `worse` | |\n|---|---|---|\n";
        let verdict = Verdict::of(&theirs, &ours, &rows(text, "crun"));
        assert_eq!(verdict.worse, ["worse: why", "skipped: why", "absent: did not run"]);
        assert_eq!(verdict.better, ["mended"]);
        let table = verdict.table("crun");
        assert!(table.contains("passed   FAILED   excepted  (excepted)\n"), "{table}");
        assert!(table.contains("7 tests, 6 pass with theirs, 2 of them with ours; 0 pass with ours alone"), "{table}");
    }

    #[test]
    fn the_exceptions_can_be_read() {
        for suite in ["crun", "runc", "builds"] {
            assert!(!exceptions(suite).unwrap().is_empty());
        }
    }
}
