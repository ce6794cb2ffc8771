//! What the machine says of its tests, and the table that is made of it. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A test: the binary that has it, and its name there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    pub binary: String,
    pub name: String,
}

/// What became of the tests of one run.
#[derive(Debug, Default)]
pub struct Report {
    planned: Vec<Test>,
    outcomes: BTreeMap<Test, Outcome>,
    done: bool,
    /// Inside what a failed test has said.
    quoting: bool,
}

#[derive(Debug, Clone, Copy)]
struct Outcome {
    passed: bool,
    spent_ms: u64,
}

impl Report {
    pub fn new(planned: Vec<Test>) -> Self {
        Self { planned, ..Self::default() }
    }

    /// Takes a line of the serial port (runner.sh says which there are); answers what a reader is shown of it.
    pub fn take(&mut self, line: &str) -> Option<String> {
        if self.quoting {
            self.quoting = line != "@end";
            return self.quoting.then(|| format!("    | {line}"));
        }
        if line == "@done" {
            self.done = true;
            return None;
        }
        match outcome(line) {
            Some((test, outcome, code)) => {
                self.quoting = !outcome.passed;
                let how = match code {
                    0 => "ok".to_owned(),
                    // timeout(1), "EXIT STATUS".
                    124 | 137 => "TOOK TOO LONG".to_owned(),
                    code => format!("FAILED ({code})"),
                };
                let (at, all) = (self.outcomes.len() + 1, self.planned.len());
                let shown = format!(
                    "[{at:>3}/{all}] {:>6.1} s  {how}  {} {}",
                    seconds(outcome.spent_ms),
                    test.binary,
                    test.name
                );
                self.outcomes.insert(test, outcome);
                Some(shown)
            }
            None => Some(format!("    {line}")),
        }
    }

    /// All planned tests have passed, and the machine has said that it is through.
    pub fn is_good(&self) -> bool {
        self.done && self.bad().is_empty()
    }

    /// Tests that failed, or of which nothing was heard.
    pub fn bad(&self) -> Vec<&Test> {
        self.planned.iter().filter(|test| !self.outcomes.get(test).is_some_and(|outcome| outcome.passed)).collect()
    }

    /// A line for every binary, one for all of them, and the tests that are not good.
    pub fn table(&self) -> String {
        let mut rows: BTreeMap<&str, [u64; 5]> = BTreeMap::new();
        for test in &self.planned {
            let outcome = self.outcomes.get(test);
            let column = match outcome {
                Some(Outcome { passed: true, .. }) => 1,
                Some(_) => 2,
                None => 3,
            };
            for name in [test.binary.as_str(), "all"] {
                let row = rows.entry(name).or_default();
                row[0] += 1;
                row[column] += 1;
                row[4] += outcome.map_or(0, |outcome| outcome.spent_ms);
            }
        }
        let all = rows.remove("all").unwrap_or_default();
        let width = rows.keys().map(|name| name.len()).max().unwrap_or_default().max(6);
        let mut text = format!(
            "{:<width$} {:>6} {:>7} {:>7} {:>8} {:>9}\n",
            "binary", "tests", "passed", "failed", "not run", "seconds"
        );
        for (name, [tests, passed, failed, unheard, spent_ms]) in rows.into_iter().chain([("all", all)]) {
            let spent = seconds(spent_ms);
            writeln!(text, "{name:<width$} {tests:>6} {passed:>7} {failed:>7} {unheard:>8} {spent:>9.1}")
                .expect("a string takes everything");
        }
        for test in self.bad() {
            let how = if self.outcomes.contains_key(test) { "failed" } else { "not run" };
            writeln!(text, "{how}: {} {}", test.binary, test.name).expect("a string takes everything");
        }
        text
    }
}

fn seconds(spent_ms: u64) -> f64 {
    spent_ms as f64 / 1000.0
}

/// `@ok MILLISECONDS BINARY TEST` or `@failed CODE MILLISECONDS BINARY TEST`.
fn outcome(line: &str) -> Option<(Test, Outcome, i32)> {
    let words: Vec<&str> = line.split(' ').collect();
    let (code, spent, binary, name) = match words.as_slice() {
        ["@ok", spent, binary, name] => (0, spent, binary, name),
        ["@failed", code, spent, binary, name] => (code.parse().ok()?, spent, binary, name),
        _ => return None,
    };
    let test = Test { binary: (*binary).to_owned(), name: (*name).to_owned() };
    Some((test, Outcome { passed: words[0] == "@ok", spent_ms: spent.parse().ok()? }, code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str) -> Test {
        Test { binary: "testbox::run".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn what_was_not_heard_of_is_not_good() {
        let mut report = Report::new(vec![test("a"), test("b")]);
        assert_eq!(report.take("6.1.0, systemd 252").unwrap(), "    6.1.0, systemd 252");
        assert_eq!(report.take("@ok 1200 testbox::run a").unwrap(), "[  1/2]    1.2 s  ok  testbox::run a");
        assert_eq!(report.take("@done"), None);
        assert!(!report.is_good());
        assert_eq!(report.bad(), [&test("b")]);
        assert!(report.table().ends_with("not run: testbox::run b\n"), "{}", report.table());
        report.take("@ok 5 testbox::run b");
        assert!(report.is_good());
    }

    #[test]
    fn a_failed_test_is_quoted_and_cannot_speak_for_another() {
        let mut report = Report::new(vec![test("a"), test("b")]);
        report.take("@failed 101 30 testbox::run a").unwrap();
        assert_eq!(report.take("@ok 5 testbox::run b").unwrap(), "    | @ok 5 testbox::run b");
        assert_eq!(report.take("@end"), None);
        assert!(report.take("@failed 124 9 testbox::run b").unwrap().contains("TOOK TOO LONG"));
        report.take("@end");
        assert_eq!(report.bad().len(), 2);
        let expected = "binary        tests  passed  failed  not run   seconds\n\
                        testbox::run      2       0       2        0       0.0\n\
                        all               2       0       2        0       0.0\n\
                        failed: testbox::run a\n\
                        failed: testbox::run b\n";
        assert_eq!(report.table(), expected);
    }

    #[test]
    fn a_machine_that_ends_early_is_not_good() {
        let mut report = Report::new(vec![test("a")]);
        report.take("@ok 1 testbox::run a");
        assert!(!report.is_good());
    }
}
