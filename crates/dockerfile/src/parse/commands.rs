//! The instructions that may also stand behind ONBUILD, and ONBUILD itself (docs.docker.com/reference/dockerfile).

use std::time::Duration;

use dozen_model::moment::duration_ns;

use super::{Request, keys, transfer, unknown};
use crate::error::Error;
use crate::flags::{Flags, Takes};
use crate::heredoc::Heredoc;
use crate::instruction::{
    CommandLine, HealthCheck, HealthTiming, OnBuild, Run, RunCommand, RunNetwork, RunSecurity, Source, Step,
};
use crate::mount::Mount;
use crate::one_or_more::OneOrMore;
use crate::text::{Text, Word};
use crate::words::json;

/// Docker takes nothing shorter in a HEALTHCHECK.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

pub(super) fn step(request: Request<'_, '_, '_>) -> Result<Step, Error> {
    Ok(match request.name.as_str() {
        "ADD" => Step::Add(transfer::add(request)?),
        "ARG" => Step::Arg(keys::arg(&request)?),
        "CMD" => Step::Cmd(command_line(&request, request.argument("at least one argument")?)?),
        "COPY" => Step::Copy(transfer::copy(request)?),
        "ENTRYPOINT" => Step::Entrypoint(command_line(&request, request.argument("at least one argument")?)?),
        "ENV" => Step::Env(keys::key_values(&request)?),
        "EXPOSE" => Step::Expose(blanks(request.argument("at least one argument")?)),
        "HEALTHCHECK" => Step::HealthCheck(health_check(&request)?),
        "LABEL" => Step::Label(keys::key_values(&request)?),
        "RUN" => Step::Run(run(request)?),
        "SHELL" => Step::Shell(shell(&request)?),
        "STOPSIGNAL" => Step::StopSignal(request.argument("exactly one argument")?.word()),
        "USER" => Step::User(request.argument("exactly one argument")?.word()),
        "VOLUME" => Step::Volume(volume(&request)?),
        "WORKDIR" => Step::WorkDir(request.argument("exactly one argument")?.word()),
        _ => return Err(unknown(request.keyword)),
    })
}

/// What may stand behind ONBUILD.
pub(super) fn trigger(request: Request<'_, '_, '_>) -> Result<Step, Error> {
    match request.name.as_str() {
        "ONBUILD" => Err(Error::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", request.keyword.span())),
        name @ ("FROM" | "MAINTAINER") => {
            Err(Error::new(format!("{name} isn't allowed as an ONBUILD trigger"), request.keyword.span()))
        }
        _ => step(request),
    }
}

pub(super) fn on_build(request: Request<'_, '_, '_>) -> Result<OnBuild, Error> {
    let rest = request.argument("at least one argument")?;
    let inner = Request::new(rest, request.cursor);
    let keyword = inner.keyword.word();
    let trigger = trigger(inner)?;
    let mut source = rest.as_str().to_owned();
    for heredoc in heredocs_of(&trigger) {
        source.push('\n');
        source.push_str(&heredoc.content.text);
        source.push_str(&heredoc.name);
    }
    Ok(OnBuild { keyword, trigger, source })
}

fn heredocs_of(step: &Step) -> Vec<&Heredoc> {
    match step {
        Step::Run(Run { command: RunCommand::Shell { heredocs, .. }, .. }) => heredocs.iter().collect(),
        Step::Add(add) => of(&add.transfer.sources),
        Step::Copy(copy) => of(&copy.transfer.sources),
        _ => Vec::new(),
    }
}

fn of(sources: &OneOrMore<Source>) -> Vec<&Heredoc> {
    sources.iter().filter_map(Source::heredoc).collect()
}

fn run(mut request: Request<'_, '_, '_>) -> Result<Run, Error> {
    let (flags, rest) = request.flags(&[
        ("mount", Takes::Values),
        ("network", Takes::Value),
        ("security", Takes::Value),
        ("device", Takes::NotBuilt),
    ])?;
    let mounts = flags.values("mount").iter().map(Mount::read).collect::<Result<_, _>>()?;
    let network = match flags.value("network") {
        None => RunNetwork::default(),
        Some(word) => match word.text.as_str() {
            "default" => RunNetwork::Default,
            "none" => RunNetwork::None,
            "host" => RunNetwork::Host,
            other => {
                return Err(Error::new(format!("invalid network mode {other:?}"), word.span)
                    .with_hint("it is one of default, none and host"));
            }
        },
    };
    let security = match flags.value("security") {
        None => RunSecurity::default(),
        Some(word) => match word.text.as_str() {
            "sandbox" => RunSecurity::Sandbox,
            "insecure" => RunSecurity::Insecure,
            other => {
                return Err(Error::new(format!("security {other:?} is not valid"), word.span)
                    .with_hint("it is one of sandbox and insecure"));
            }
        },
    };
    let command = match json(rest)? {
        Some(words) => RunCommand::Exec(OneOrMore::new(words).ok_or_else(|| nothing_to_run(&request))?),
        None if rest.is_empty() => return Err(nothing_to_run(&request)),
        None => RunCommand::Shell { line: rest.word(), heredocs: request.heredocs()? },
    };
    Ok(Run { mounts, network, security, command })
}

fn nothing_to_run(request: &Request<'_, '_, '_>) -> Error {
    request.error(format!("{} requires at least one argument", request.name))
}

fn command_line(request: &Request<'_, '_, '_>, rest: Text<'_>) -> Result<CommandLine, Error> {
    debug_assert!(!rest.is_empty(), "{}", request.name);
    Ok(json(rest)?.map_or_else(|| CommandLine::Shell(rest.word()), CommandLine::Exec))
}

fn shell(request: &Request<'_, '_, '_>) -> Result<OneOrMore<Word>, Error> {
    let rest = request.argument("at least one argument")?;
    let Some(words) = json(rest)? else {
        return Err(request
            .error("SHELL requires the arguments to be in JSON form")
            .with_hint("SHELL [\"/bin/bash\", \"-c\"]"));
    };
    OneOrMore::new(words).ok_or_else(|| nothing_to_run(request))
}

fn volume(request: &Request<'_, '_, '_>) -> Result<OneOrMore<Word>, Error> {
    let rest = request.argument("at least one argument")?;
    let volumes = match json(rest)? {
        Some(words) => OneOrMore::new(words).ok_or_else(|| nothing_to_run(request))?,
        None => blanks(rest),
    };
    let empty = volumes.iter().find(|volume| volume.text.trim().is_empty()).map(|volume| volume.span);
    match empty {
        Some(span) => Err(Error::new("VOLUME specified can not be an empty string", span)),
        None => Ok(volumes),
    }
}

/// The words of a text that is not blank.
fn blanks(rest: Text<'_>) -> OneOrMore<Word> {
    OneOrMore::new(rest.split_blanks().into_iter().map(Text::word).collect()).expect("the text is not blank")
}

fn health_check(request: &Request<'_, '_, '_>) -> Result<HealthCheck, Error> {
    let (flags, rest) = request.flags(&[
        ("interval", Takes::Value),
        ("timeout", Takes::Value),
        ("start-period", Takes::Value),
        ("start-interval", Takes::Value),
        ("retries", Takes::Value),
    ])?;
    let (kind, command) = rest.split_first();
    match kind.as_str().to_ascii_uppercase().as_str() {
        "" => Err(nothing_to_run(request)),
        "NONE" if command.is_empty() => Ok(HealthCheck::None),
        "NONE" => Err(Error::new("HEALTHCHECK NONE takes no arguments", command.span())),
        "CMD" => {
            let nothing = || Error::new("Missing command after HEALTHCHECK CMD", kind.span());
            let command = match json(command)? {
                Some(words) if words.is_empty() => return Err(nothing()),
                Some(words) => CommandLine::Exec(words),
                None if command.is_empty() => return Err(nothing()),
                None => CommandLine::Shell(command.word()),
            };
            Ok(HealthCheck::Check { command, timing: timing(&flags)? })
        }
        _ => {
            let message = format!("Unknown type {:?} in HEALTHCHECK (try CMD)", kind.as_str().to_ascii_uppercase());
            Err(Error::new(message, kind.span()))
        }
    }
}

fn timing(flags: &Flags) -> Result<HealthTiming, Error> {
    let interval = |name: &str| {
        let Some(word) = flags.value(name).filter(|word| !word.text.is_empty()) else { return Ok(None) };
        let Some(nanoseconds) = duration_ns(&word.text) else {
            return Err(Error::new(format!("invalid duration {:?} for --{name}", word.text), word.span)
                .with_hint("a duration is a number with a unit: 30s, 1m30s, 500ms"));
        };
        let Ok(nanoseconds) = u64::try_from(nanoseconds) else {
            return Err(too_short(name, &word));
        };
        // 0 leaves it to the engine.
        let interval = Duration::from_nanos(nanoseconds);
        match interval.is_zero() {
            true => Ok(None),
            false if interval < SHORTEST_INTERVAL => Err(too_short(name, &word)),
            false => Ok(Some(interval)),
        }
    };
    let retries = match flags.value("retries").filter(|word| !word.text.is_empty()) {
        None => None,
        Some(word) => match word.text.parse::<i32>() {
            Ok(count) => Some(
                u32::try_from(count)
                    .map_err(|_| Error::new(format!("--retries cannot be negative ({count})"), word.span))?,
            ),
            Err(_) => return Err(Error::new(format!("invalid number {:?} for --retries", word.text), word.span)),
        },
    };
    Ok(HealthTiming {
        interval: interval("interval")?,
        timeout: interval("timeout")?,
        start_period: interval("start-period")?,
        start_interval: interval("start-interval")?,
        retries,
    })
}

fn too_short(name: &str, word: &Word) -> Error {
    Error::new(format!("Interval {name:?} cannot be less than 1ms"), word.span)
}
