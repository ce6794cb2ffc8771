//! The build checks: what is allowed in a Dockerfile and still not what its author wants
//! (docs.docker.com/reference/build-checks).
//!
//! [`check`] reads a file, goes through its stages, and asks the rules. Those about how a file is written look at all of
//! it ([`shape`], [`from`]); those about what is done look at the stages that the target needs ([`steps`]). What makes a
//! build impossible ends it: the report then has an error beside what was found before.

mod choice;
mod from;
mod rule;
mod shape;
mod stage;
mod steps;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

pub use choice::Choice;
pub use rule::Rule;

use crate::error::Error;
use crate::ignore::IgnoreFile;
use crate::instruction::{Dockerfile, Located};
use crate::parse::parse;
use crate::scope::{Given, GlobalScope};
use crate::span::{Lines, Span};
use crate::stages::Stages;

/// The build argument that takes the place of `# check=` (docs.docker.com/build/checks).
const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// The build argument that takes the place of `# syntax=`.
const SYNTAX_ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// What a rule has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What it has found, one sentence.
    pub detail: String,
    /// The instruction's lines, from 1.
    pub lines: RangeInclusive<usize>,
}

/// What came out of a check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// By line.
    pub findings: Vec<Finding>,
    /// Why this builds nothing.
    pub error: Option<Error>,
}

/// What a check needs to know beside the file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What the build was given. With a target, stages that it does not need are left in peace.
    pub given: Given,
    /// The context's ignore file.
    pub ignore: IgnoreFile,
}

/// Checks a Dockerfile.
pub fn check(source: &str, options: &Options) -> Report {
    let mut findings =
        Findings { lines: Lines::new(source), choice: Choice::default(), found: Vec::new(), told: BTreeSet::new() };
    let error = look(source, options, &mut findings).err();
    let Findings { mut found, choice, .. } = findings;
    found.sort_by_key(|finding| (*finding.lines.start(), finding.rule));
    let error = error.or_else(|| violation(&found, &choice, source));
    Report { findings: found, error }
}

fn look(source: &str, options: &Options, findings: &mut Findings<'_>) -> Result<(), Error> {
    let (file, error) = match parse(source) {
        Ok(file) => (file, None),
        Err(failure) => match failure.before {
            Some(before) => (*before, Some(failure.error)),
            None => return Err(failure.error),
        },
    };
    findings.choice = choice(&file, options)?;
    if let Some(syntax) = options.given.arguments.get(SYNTAX_ARGUMENT) {
        let word = crate::Word { text: syntax.clone(), span: Span::default() };
        crate::directives::check_syntax(&word).map_err(|error| Error::of_caller(error.message))?;
    }
    shape::look(&file, findings);
    if let Some(error) = error {
        return Err(error);
    }
    from::look(&file, options, findings)?;
    let global = GlobalScope::new(&file, &options.given)?;
    let stages = Stages::new(&file, &global)?;
    let target = stages.target(&options.given.target_stage)?;
    let needed = match options.given.target_stage.is_empty() {
        true => (0..stages.count()).collect(),
        false => stages.needed(target),
    };
    stage::look(&file, &stages, &needed, &global, options, findings)
}

fn choice(file: &Dockerfile, options: &Options) -> Result<Choice, Error> {
    let hint = "# check=skip=RULE,RULE;error=true, or skip=all";
    match (options.given.arguments.get(CHECK_ARGUMENT), &file.directives.check) {
        (Some(text), _) => {
            Choice::read(text).map_err(|why| Error::of_caller(format!("{CHECK_ARGUMENT}: {why}")).with_hint(hint))
        }
        (None, Some(word)) => Choice::read(&word.text).map_err(|why| Error::new(why, word.span).with_hint(hint)),
        (None, None) => Ok(Choice::default()),
    }
}

/// Findings that are to fail the build.
fn violation(found: &[Finding], choice: &Choice, source: &str) -> Option<Error> {
    let first = found.first().filter(|_| choice.is_error)?;
    let mut names: Vec<&str> = found.iter().map(|finding| finding.rule.name()).collect();
    names.sort_unstable();
    names.dedup();
    let message = format!("lint violation found for rules: {}", names.join(", "));
    Some(Error::new(message, Lines::new(source).span(*first.lines.start())))
}

/// Where rules put what they find.
struct Findings<'a> {
    lines: Lines<'a>,
    choice: Choice,
    found: Vec<Finding>,
    /// Nothing is told twice.
    told: BTreeSet<(usize, Rule, String)>,
}

impl Findings<'_> {
    fn count(&self) -> usize {
        self.found.len()
    }

    fn add(&mut self, rule: Rule, span: Span, detail: String) {
        let lines = self.lines.of(span);
        if self.choice.wants(rule) && self.told.insert((*lines.start(), rule, detail.clone())) {
            self.found.push(Finding { rule, detail, lines });
        }
    }
}

/// An instruction as the rules about writing see it.
#[derive(Debug, Clone, Copy)]
struct Written<'a> {
    keyword: &'a str,
    span: Span,
    line_end: usize,
    has_empty_continuation: bool,
}

impl<'a> Written<'a> {
    fn of<T>(located: &'a Located<T>) -> Self {
        let Located { keyword, span, line_end, has_empty_continuation, .. } = located;
        Self {
            keyword: &keyword.text,
            span: *span,
            line_end: *line_end,
            has_empty_continuation: *has_empty_continuation,
        }
    }
}

/// All instructions of a file, in order.
fn written(file: &Dockerfile) -> Vec<Written<'_>> {
    let stages = file
        .stages
        .iter()
        .flat_map(|stage| std::iter::once(Written::of(&stage.from)).chain(stage.instructions.iter().map(Written::of)));
    file.global.iter().map(Written::of).chain(stages).collect()
}

#[cfg(test)]
mod tests;
