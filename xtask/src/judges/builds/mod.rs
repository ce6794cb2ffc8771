//! The same Dockerfiles, built by BuildKit (or by buildah, where Debian's BuildKit is too old to) and by `dozen build`: what
//! comes of them has to be the same image, or refused by both, but for what docs/compatibility.md excepts.
//!
//! ```text
//! corpus.rs      the cases: Dockerfiles with what lies beside them
//! image.rs       what came of one: configuration and files
//! difference.rs  two of those beside each other
//! ```

mod corpus;
mod difference;
mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::cell::Place;
use super::verdict;
use crate::failure::{Attempt, Failure};
use crate::{images, steps};
use corpus::{Case, Judge};
use difference::{Difference, Measure};
use image::Image;

/// What an engine made of a case.
enum Answer {
    Built(Image),
    /// Its last words.
    Refused(String),
}

type Answers = BTreeMap<String, Answer>;

/// Runs all of it; what is not the same.
pub fn compare(place: &Place, filter: Option<&str>) -> Result<Vec<String>, Failure> {
    let began_s = SystemTime::now().duration_since(UNIX_EPOCH).attempting("tell the time")?.as_secs();
    let cases = corpus::choose(corpus::read()?, filter);
    if cases.is_empty() {
        return Err(Failure::new("there is no case of that name"));
    }
    let mut theirs = BTreeMap::new();
    for judge in [Judge::BuildKit, Judge::Buildah] {
        let own = of_judge(&cases, judge);
        if !own.is_empty() {
            theirs.insert(judge, build(place, judge.name(), &own)?);
        }
    }
    let ours = build(place, "dozen", &cases)?;
    let exceptions = verdict::exceptions("builds")?;
    let mut met = BTreeSet::new();
    let mut worse = Vec::new();
    for case in &cases {
        let measure = Measure { with_history: case.judge == Judge::BuildKit, began_s };
        let theirs = theirs.get(&case.judge).and_then(|answers| answers.get(&case.name));
        for found in judged(case, theirs, ours.get(&case.name), measure) {
            let name = format!("{}: {}", case.name, found.aspect);
            let is_excepted = exceptions.contains_key(&name);
            let note = if is_excepted { "  (excepted)" } else { "" };
            println!("{name}{note}\n    {:<9} {}\n    dozen     {}", case.judge.name(), found.theirs, found.ours);
            if is_excepted {
                met.insert(name);
            } else {
                worse.push(format!("{name}: {} with {}, {} with dozen", found.theirs, case.judge.name(), found.ours));
            }
        }
    }
    worse.extend(gone(&exceptions, &cases, &met).map(|name| format!("no exception any more: {name}")));
    let built = ours.values().filter(|answer| matches!(answer, Answer::Built(_))).count();
    println!("builds: {} cases, {built} built; {} excepted differences", cases.len(), met.len());
    Ok(worse)
}

/// Exceptions that no case of these has met.
fn gone<'a>(
    exceptions: &'a BTreeMap<String, String>,
    cases: &'a [Case],
    met: &'a BTreeSet<String>,
) -> impl Iterator<Item = &'a String> {
    let of_run = |name: &&String| cases.iter().any(|case| name.split_once(": ").is_some_and(|it| it.0 == case.name));
    exceptions.keys().filter(of_run).filter(|name| !met.contains(*name))
}

/// A judge's own cases, and those that these begin from.
fn of_judge(cases: &[Case], judge: Judge) -> Vec<Case> {
    let mut wanted = BTreeSet::new();
    for case in cases.iter().rev() {
        if case.judge == judge || wanted.contains(&case.name) {
            wanted.insert(case.name.clone());
            wanted.extend(case.after.clone());
        }
    }
    cases.iter().filter(|case| wanted.contains(&case.name)).cloned().collect()
}

fn judged(case: &Case, theirs: Option<&Answer>, ours: Option<&Answer>, measure: Measure) -> Vec<Difference> {
    let whole = |theirs: String, ours: String| vec![Difference { aspect: "outcome".to_owned(), theirs, ours }];
    match (theirs, ours) {
        (Some(Answer::Built(_)), _) if case.is_refused => whole("built".to_owned(), outcome(ours)),
        (Some(Answer::Built(theirs)), Some(Answer::Built(ours))) => difference::between(theirs, ours, measure),
        (Some(Answer::Refused(_)), Some(Answer::Refused(_))) if case.is_refused => Vec::new(),
        _ => whole(outcome(theirs), outcome(ours)),
    }
}

fn outcome(answer: Option<&Answer>) -> String {
    match answer {
        Some(Answer::Built(_)) => "built".to_owned(),
        Some(Answer::Refused(said)) => format!("refused: {said}"),
        None => "no answer".to_owned(),
    }
}

/// Has an engine build cases, one after the other.
fn build(place: &Place, engine: &str, cases: &[Case]) -> Result<Answers, Failure> {
    steps::step(format_args!("builds: {} cases with {engine}", cases.len()));
    let base = images::ensure(&["busybox"], false)?.remove(0);
    let furnish = |shown: &Path| {
        image::write_base(&base, "busybox:latest", &shown.join("base.tar"))?;
        let place = |case: &Case| shown.join(format!("builds/{:04}.{}", case.number, case.name));
        cases.iter().try_for_each(|case| case.write(&place(case)))
    };
    let results = place.tmp().join("results");
    let mut answers = Answers::new();
    let status = place.hear("builds.sh", &[engine], &furnish, |line| {
        let Some((word, name)) = line.split_once(' ').filter(|(word, _)| matches!(*word, "built" | "refused")) else {
            eprintln!("    {line}");
            return Ok(());
        };
        let answer = if word == "built" {
            let archive = results.join(format!("{name}.tar"));
            let answer = image::read(&archive).map_or_else(|why| Answer::Refused(why.to_string()), Answer::Built);
            // One that could not be saved is not there.
            let _ = std::fs::remove_file(&archive);
            answer
        } else {
            let log = std::fs::read(results.join(format!("{name}.log"))).attempting("read what was said")?;
            Answer::Refused(last_words(&String::from_utf8_lossy(&log)))
        };
        answers.insert(name.to_owned(), answer);
        Ok(())
    })?;
    if answers.is_empty() {
        return Err(Failure::new(format!("{engine} built nothing ({status}): what the cell said is above")));
    }
    Ok(answers)
}

/// The line that says what went wrong, if there is one, else the last.
fn last_words(log: &str) -> String {
    let mut lines = log.lines().rev().filter(|line| !line.trim().is_empty());
    let last = lines.clone().next().unwrap_or_default();
    lines.find(|line| line.to_ascii_lowercase().contains("error")).unwrap_or(last).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_that_is_none_any_more_is_named() {
        let cases = corpus::choose(corpus::read().unwrap(), Some("env-forms"));
        let exceptions: BTreeMap<_, _> = ["env-forms: /a", "env-forms: /b", "of-another: /c"]
            .into_iter()
            .map(|name| (name.to_owned(), "why".to_owned()))
            .collect();
        let met = BTreeSet::from(["env-forms: /a".to_owned()]);
        assert_eq!(gone(&exceptions, &cases, &met).collect::<Vec<_>>(), ["env-forms: /b"]);
    }

    #[test]
    fn every_exception_is_of_a_case() {
        let cases = corpus::read().unwrap();
        let exceptions = verdict::exceptions("builds").unwrap();
        assert_eq!(gone(&exceptions, &cases, &BTreeSet::new()).count(), exceptions.len());
    }

    #[test]
    fn what_only_one_builds_is_a_difference() {
        let case = |is_refused| {
            let mut case = corpus::choose(corpus::read().unwrap(), None).remove(0);
            case.is_refused = is_refused;
            case
        };
        let (built, refused) = (Answer::Built(Image::default()), Answer::Refused("no".to_owned()));
        let measure = Measure { with_history: true, began_s: 0 };
        let count = |is_refused, theirs, ours| judged(&case(is_refused), theirs, ours, measure).len();
        assert_eq!(count(false, Some(&built), Some(&built)), 0);
        assert_eq!(count(false, Some(&built), Some(&refused)), 1);
        assert_eq!(count(false, Some(&refused), Some(&built)), 1);
        // A case that nobody builds has to say so: it is a mistake otherwise.
        assert_eq!(count(false, Some(&refused), Some(&refused)), 1);
        assert_eq!(count(true, Some(&refused), Some(&refused)), 0);
        assert_eq!(count(true, Some(&built), Some(&built)), 1);
        assert_eq!(count(true, Some(&refused), None), 1);
        assert_eq!(last_words("a\nERROR: b\nc\n\n"), "ERROR: b");
        assert_eq!(last_words("a\n\n"), "a");
    }
}
