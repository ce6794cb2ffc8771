//! Build arguments seen from outside: those that nobody has asked for, and the one that is a date.

use std::collections::BTreeSet;

use dozen_dockerfile::Error;
use dozen_dockerfile::scope::{Given, GlobalScope};

use super::StagePlan;

/// The time of everything that is built, in seconds since 1970 (reproducible-builds.org/specs/source-date-epoch).
const BUILD_DATE: &str = "SOURCE_DATE_EPOCH";
/// What stands before the names that are for BuildKit itself.
const FOR_BUILDER: &str = "BUILDKIT_";

/// Docker's warning of arguments that were given and that none of the stages declares, nor the file before the first.
pub fn unused_arguments<'p>(
    plans: impl IntoIterator<Item = &'p StagePlan>,
    global: &GlobalScope,
    given: &Given,
) -> Option<String> {
    let mut declared: BTreeSet<&str> = global.names().chain(given.proxies().map(|(name, _)| name)).collect();
    declared.extend(plans.into_iter().flat_map(|plan| &plan.declared).map(String::as_str));
    let is_unused = |name: &&str| !declared.contains(name) && *name != BUILD_DATE && !name.starts_with(FOR_BUILDER);
    let unused: Vec<&str> = given.arguments.keys().map(String::as_str).filter(is_unused).collect();
    let warning = || format!("[Warning] One or more build-args [{}] were not consumed", unused.join(" "));
    (!unused.is_empty()).then(warning)
}

/// The argument SOURCE_DATE_EPOCH, if it was given and is not empty.
pub fn build_date(given: &Given) -> Result<Option<i64>, Error> {
    match given.arguments.get(BUILD_DATE).map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(seconds) if jiff::Timestamp::from_second(seconds).is_ok() => Ok(Some(seconds)),
            _ => Err(Error::of_caller(format!("invalid {BUILD_DATE}: {text}"))
                .with_hint("it is a number of seconds since 1970: date +%s")),
        },
    }
}
