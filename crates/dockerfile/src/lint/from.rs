//! Rules about FROM, in every stage.

use dozen_model::{Reference, spelling};

use super::{Findings, Options, Rule};
use crate::error::Error;
use crate::expand::{Quotes, expand, names};
use crate::instruction::{Dockerfile, From, Located};
use crate::scope::{Given, GlobalScope};
use crate::span::Span;
use crate::text::Word;

pub(super) fn look(file: &Dockerfile, options: &Options, findings: &mut Findings<'_>) -> Result<(), Error> {
    let escape = file.directives.escape.character();
    let global = GlobalScope::new(file, &options.given)?;
    let default = GlobalScope::new(file, &Given { arguments: [].into(), ..options.given.clone() });
    for from in file.stages.iter().map(|stage| &stage.from) {
        let mut words = vec![&from.value.base];
        words.extend(&from.value.platform);
        for word in words {
            undefined_arg_in_from(word, from.span, escape, &global, findings)?;
        }
        if let Ok(default) = &default {
            invalid_default_arg_in_from(from, escape, default, findings);
        }
        redundant_target_platform(from, findings);
        from_platform_flag_const_disallowed(from, escape, findings);
    }
    Ok(())
}

fn undefined_arg_in_from(
    word: &Word,
    span: Span,
    escape: char,
    global: &GlobalScope,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    for name in expand(word, escape, Quotes::Taken, global)?.unknown {
        let near = spelling::closest(&name, global.names());
        let suggestion = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        let detail = format!("FROM argument '{name}' is not declared{suggestion}");
        findings.add(Rule::UndefinedArgInFrom, span, detail);
    }
    Ok(())
}

/// The base's name as it is if nobody passes `--build-arg`.
fn invalid_default_arg_in_from(from: &Located<From>, escape: char, default: &GlobalScope, findings: &mut Findings<'_>) {
    let base = &from.value.base;
    let has_variables = !names(base, escape, Quotes::Taken).is_empty();
    let Ok(name) = expand(base, escape, Quotes::Taken, default) else { return };
    // The name of a stage may have capitals.
    if has_variables && name.text.to_ascii_lowercase().parse::<Reference>().is_err() {
        let detail = format!("Default value for ARG {} results in empty or invalid base image name", base.text);
        findings.add(Rule::InvalidDefaultArgInFrom, from.span, detail);
    }
}

fn redundant_target_platform(from: &Located<From>, findings: &mut Findings<'_>) {
    let Some(platform) = &from.value.platform else { return };
    if matches!(platform.text.as_str(), "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
        let detail = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            platform.text
        );
        findings.add(Rule::RedundantTargetPlatform, from.span, detail);
    }
}

/// A stage that is named after its platform is one that others choose by theirs.
fn from_platform_flag_const_disallowed(from: &Located<From>, escape: char, findings: &mut Findings<'_>) {
    let Some(platform) = &from.value.platform else { return };
    if !names(platform, escape, Quotes::Taken).is_empty() {
        return;
    }
    let mut parts = platform.text.split('/').filter(|part| !part.is_empty()).take(2);
    let alias = from.value.alias.as_ref().map(|alias| alias.name.text.to_ascii_lowercase());
    if !alias.is_some_and(|alias| parts.any(|part| alias.contains(&part.to_ascii_lowercase()))) {
        let detail = format!("FROM --platform flag should not use constant value {:?}", platform.text);
        findings.add(Rule::FromPlatformFlagConstDisallowed, from.span, detail);
    }
}
