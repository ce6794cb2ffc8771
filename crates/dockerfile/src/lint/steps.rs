//! Rules about what a step does.

use dozen_model::{Signal, spelling};

use super::stage::{State, Surroundings};
use super::{Findings, Rule};
use crate::error::Error;
use crate::expand::words::{self, Expandable};
use crate::expand::{Quotes, expand};
use crate::instruction::{CommandLine, KeyValues, Source, Step, Transfer};
use crate::span::Span;
use crate::text::Word;
use crate::{ExposedPorts, FileMode, Remote};

/// Findings before which a name is looked for that somebody may have meant.
const MOST_SUGGESTIONS: usize = 100;

/// What of a kind a stage has only one of, and where it was said last.
#[derive(Debug, Default)]
pub(super) struct Once {
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    health_check: Option<Span>,
}

pub(super) fn look(
    step: &Step,
    span: Span,
    state: &State,
    surroundings: &Surroundings<'_>,
    once: &mut Once,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    undefined_var(step, span, state, surroundings, findings)?;
    let text = |word: &Word| state.scope.expand(word, surroundings.escape).map(|it| it.text);
    match step {
        Step::Cmd(command) => {
            json_args_recommended("CMD", command, span, state, findings);
            multiple_instructions_disallowed("CMD", &mut once.cmd, span, findings);
        }
        Step::Entrypoint(command) => {
            json_args_recommended("ENTRYPOINT", command, span, state, findings);
            multiple_instructions_disallowed("ENTRYPOINT", &mut once.entrypoint, span, findings);
        }
        Step::HealthCheck(_) => {
            multiple_instructions_disallowed("HEALTHCHECK", &mut once.health_check, span, findings);
        }
        Step::Env(pairs) => {
            legacy_key_value_format("ENV", pairs, span, findings);
            for pair in pairs.iter() {
                secrets_used_in_arg_or_env("ENV", &pair.key, span, findings);
            }
        }
        Step::Label(pairs) => legacy_key_value_format("LABEL", pairs, span, findings),
        Step::Arg(arg) => {
            for declaration in arg.declarations.iter() {
                secrets_used_in_arg_or_env("ARG", &declaration.name, span, findings);
            }
        }
        Step::WorkDir(path) => workdir_relative_path(&text(path)?, span, state, findings),
        Step::Add(add) => {
            if let Some(checksum) = &add.checksum {
                one_remote(checksum, &add.transfer, &text)?;
            }
            mode(&add.transfer, &text)?;
            copy_ignored_file("Add", &add.transfer, span, state, surroundings, findings)?;
        }
        Step::Copy(copy) => {
            only_local(&copy.transfer, &text)?;
            mode(&copy.transfer, &text)?;
            if copy.from.is_none() {
                copy_ignored_file("Copy", &copy.transfer, span, state, surroundings, findings)?;
            }
        }
        Step::Expose(ports) => {
            for word in ports.iter() {
                for port in state.scope.expand(word, surroundings.escape)?.words {
                    expose(&port, word, span, findings)?;
                }
            }
        }
        Step::StopSignal(word) => {
            let signal = text(word)?;
            signal.parse::<Signal>().map_err(|error| Error::new(error.to_string(), word.span))?;
        }
        Step::Run(run) => {
            for mount in &run.mounts {
                mount.resolve(text)?;
            }
        }
        Step::Shell(_) | Step::User(_) | Step::Volume(_) => {}
    }
    Ok(())
}

/// A shell that the file chose is one that it wants.
fn json_args_recommended(name: &str, command: &CommandLine, span: Span, state: &State, findings: &mut Findings<'_>) {
    if matches!(command, CommandLine::Shell(_)) && !state.has_shell {
        let detail =
            format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
        findings.add(Rule::JsonArgsRecommended, span, detail);
    }
}

/// Told of the one that has no effect.
fn multiple_instructions_disallowed(name: &str, last: &mut Option<Span>, span: Span, findings: &mut Findings<'_>) {
    if let Some(before) = last.replace(span) {
        let detail = format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        findings.add(Rule::MultipleInstructionsDisallowed, before, detail);
    }
}

fn legacy_key_value_format(name: &str, pairs: &KeyValues, span: Span, findings: &mut Findings<'_>) {
    if matches!(pairs, KeyValues::Legacy(_)) {
        let detail = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        findings.add(Rule::LegacyKeyValueFormat, span, detail);
    }
}

/// A name with one of these words in it, between `_`, unless it is public.
fn secrets_used_in_arg_or_env(name: &str, key: &Word, span: Span, findings: &mut Findings<'_>) {
    const SECRET: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    let lower = key.text.to_ascii_lowercase();
    let mut words = lower.split('_');
    if words.clone().any(|word| SECRET.contains(&word)) && !words.any(|word| word == "public") {
        let detail = format!("Do not use ARG or ENV instructions for sensitive data ({name} {:?})", key.text);
        findings.add(Rule::SecretsUsedInArgOrEnv, span, detail);
    }
}

/// An image's own WORKDIR may change, so only one of this file counts.
fn workdir_relative_path(path: &str, span: Span, state: &State, findings: &mut Findings<'_>) {
    if !state.has_workdir && !path.starts_with('/') {
        let detail = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
        findings.add(Rule::WorkdirRelativePath, span, detail);
    }
}

/// Of a base image we do not know the environment, and do not ask for it. A name that nobody in the file declares may
/// be the image's, if it looks like one: capitals, and not a slip of the pen.
fn undefined_var(
    step: &Step,
    span: Span,
    state: &State,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    let is_given = |word: &Word| match step {
        Step::Arg(arg) => arg.declarations.iter().any(|it| {
            it.default.as_ref().is_some_and(|default| default.span == word.span)
                && surroundings.options.given.arguments.contains_key(&it.name.text)
        }),
        _ => false,
    };
    for Expandable { word, quotes, .. } in words::of(step).into_iter().filter(|it| !is_given(it.word)) {
        // In the text of a heredoc the escape character is always the shell's.
        let escape = if quotes == Quotes::Kept { '\\' } else { surroundings.escape };
        let expanded = expand(word, escape, quotes, &state.scope)?;
        surroundings.spend(expanded.text.len(), word.span)?;
        for name in expanded.unknown {
            if !name.starts_with(|first: char| first.is_alphabetic() || first == '_') {
                continue;
            }
            // Every image has it, and one that has not gets it.
            if name == "PATH" {
                continue;
            }
            // After so many, nobody reads on.
            let names = if findings.count() < MOST_SUGGESTIONS { usize::MAX } else { 0 };
            let near = spelling::closest(&name, state.scope.names().chain(["PATH"]).take(names));
            let may_be_the_images = state.is_on_image
                && near.is_none()
                && !name.contains(|letter: char| letter.is_lowercase())
                && !surroundings.declared.contains(name.as_str());
            if !may_be_the_images {
                let suggestion = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
                findings.add(Rule::UndefinedVar, span, format!("Usage of undefined variable '${name}'{suggestion}"));
            }
        }
    }
    Ok(())
}

fn copy_ignored_file(
    verb: &str,
    transfer: &Transfer,
    span: Span,
    state: &State,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    let ignore = &surroundings.options.ignore;
    for source in transfer.sources.iter() {
        let Source::Named(word) = source else { continue };
        let path = state.scope.expand(word, surroundings.escape)?.text;
        let is_elsewhere = verb == "Add" && Remote::of(&path) != Remote::None;
        // Of a pattern or a directory, some may be seen.
        let is_one = !path.contains(['*', '?', '[']) && !ignore.may_see_below(&path);
        if !is_elsewhere && is_one && ignore.leaves_out(&path) {
            let detail = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
            findings.add(Rule::CopyIgnoredFile, span, detail);
        }
    }
    Ok(())
}

fn mode(transfer: &Transfer, text: &impl Fn(&Word) -> Result<String, Error>) -> Result<(), Error> {
    let Some(word) = &transfer.mode else { return Ok(()) };
    match text(word)?.as_str() {
        "" => Ok(()),
        mode => FileMode::parse(mode).map(|_| ()).map_err(|why| Error::new(why, word.span)),
    }
}

/// COPY fetches nothing.
fn only_local(transfer: &Transfer, text: &impl Fn(&Word) -> Result<String, Error>) -> Result<(), Error> {
    for source in transfer.sources.iter() {
        let Source::Named(word) = source else { continue };
        let kind = match Remote::of(&text(word)?) {
            Remote::None => continue,
            Remote::Http => "a URL",
            Remote::Git => "a git ref",
        };
        return Err(Error::new(format!("source can't be {kind} for COPY"), word.span).with_hint("ADD fetches"));
    }
    Ok(())
}

/// A checksum is of one file that is fetched.
fn one_remote(
    checksum: &Word,
    transfer: &Transfer,
    text: &impl Fn(&Word) -> Result<String, Error>,
) -> Result<(), Error> {
    if !transfer.sources.rest.is_empty() {
        return Err(Error::new("checksum can't be specified for multiple sources", checksum.span));
    }
    let is_remote = match &transfer.sources.first {
        Source::Named(word) => Remote::of(&text(word)?) != Remote::None,
        Source::Heredoc(_) => false,
    };
    match is_remote {
        true => Ok(()),
        false => Err(Error::new("checksum requires HTTP(S) or Git sources", checksum.span)),
    }
}

/// A protocol in small letters, and nothing that is said when a container is made.
fn expose(text: &str, word: &Word, span: Span, findings: &mut Findings<'_>) -> Result<(), Error> {
    ExposedPorts::parse(text, word.span)?;
    let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
    if protocol.chars().any(|letter| letter.is_ascii_uppercase()) {
        let detail = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        findings.add(Rule::ExposeProtoCasing, span, detail);
    }
    if ports.contains(':') {
        let detail = format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'");
        findings.add(Rule::ExposeInvalidFormat, span, detail);
    }
    Ok(())
}
