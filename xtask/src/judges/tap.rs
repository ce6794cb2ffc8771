//! What a suite says: lines of the Test Anything Protocol (testanything.org), each test's words behind its line.

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Outcome {
    /// In the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// A test and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// `file: test`.
    pub name: String,
    pub outcome: Outcome,
    /// Its own words.
    pub said: Vec<String>,
}

/// Reads a line after the others: `Some` if it is the first of a further test.
pub fn read(line: &str, results: &mut Vec<TestResult>) -> Option<Outcome> {
    if let Some(words) = line.strip_prefix('#') {
        results.last_mut()?.said.push(words.trim().to_owned());
        return None;
    }
    let (passed, rest) = match (line.strip_prefix("ok - "), line.strip_prefix("not ok - ")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    // A directive: what follows ` # `.
    let (name, directive) = rest.split_once(" # ").unwrap_or((rest, ""));
    let skipped = directive.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("skip"));
    let outcome = match (passed, skipped) {
        (true, true) => Outcome::Skipped,
        (true, false) => Outcome::Passed,
        (false, _) => Outcome::Failed,
    };
    let said = Some(directive).filter(|words| !words.is_empty()).map(str::to_owned).into_iter().collect();
    results.push(TestResult { name: name.trim().to_owned(), outcome, said });
    Some(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "1..2\nok - a: one\nnot ok - a: two # timeout after 60s\n# why\n#   still\n\
                    ok - a: three (x, y) # skip test requires root\nnoise\nok - b: four # SKIP\n";
        let mut results = Vec::new();
        let firsts = text.lines().filter_map(|line| read(line, &mut results)).count();
        let of = |name: &str, outcome, said: &[&str]| TestResult {
            name: name.to_owned(),
            outcome,
            said: said.iter().map(|words| (*words).to_owned()).collect(),
        };
        assert_eq!(firsts, 4);
        let expected = [
            of("a: one", Outcome::Passed, &[]),
            of("a: two", Outcome::Failed, &["timeout after 60s", "why", "still"]),
            of("a: three (x, y)", Outcome::Skipped, &["skip test requires root"]),
            of("b: four", Outcome::Skipped, &["SKIP"]),
        ];
        assert_eq!(results, expected);
    }
}
