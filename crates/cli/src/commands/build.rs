//! `dozen build --check`: the build checks, which need no engine. Building itself is not built yet, and says so.

mod call;
mod report;
mod source;

use std::path::Path;

use clap::{ArgMatches, Command};
use dozen_dockerfile::lint::{Options, check};
use dozen_dockerfile::scope::{Given, Platform};

use crate::arguments::flags::{is_on, list, name, required, switch, text, texts, value, verb};
use crate::failure::{FAILED, Failure, Outcome};
use crate::not_built;
use crate::output;
use call::{Call, Format};

pub fn command() -> Command {
    verb(
        "build",
        "Check a Dockerfile (building an image from it is not built yet)",
        "build --check [OPTIONS] PATH",
        "dozen build --check .\n\
         dozen build --check -f web.Dockerfile --build-arg VERSION=2 .\n\
         dozen build --call check,format=json . | jq -r .warnings[].ruleName",
    )
    .arg(list("build-arg", None, "Set build-time variables"))
    .arg(value("call", None, "string", "Set method for evaluating build (\"check\")"))
    .arg(switch("check", None, "Shorthand for \"--call=check\""))
    .arg(value("file", 'f', "string", "Name of the Dockerfile (default: \"PATH/Dockerfile\"); \"-\" reads stdin"))
    .arg(value("format", None, "string", "Format of what a check finds: \"text\" or \"json\""))
    .arg(value("platform", None, "string", "Platform that the build is for, for what depends on it"))
    .arg(value("target", None, "string", "Set the target build stage to build"))
    .arg(name("path", "PATH"))
}

pub fn execute(matches: &ArgMatches) -> Outcome {
    let call = Call::read(text(matches, "call"), is_on(matches, "check"), text(matches, "format"))?;
    let Some(call) = call else {
        let hint = not_built::way_out("build").map(str::to_owned);
        return Err(Failure { hint, ..Failure::not_built("building") });
    };
    let source = source::read(Path::new(required(matches, "path")), text(matches, "file"))?;
    let given = Given {
        arguments: build_arguments(&texts(matches, "build-arg"), &|name| std::env::var(name).ok()),
        build_platform: platform(&dozen_image::Platform::host()),
        target_platform: match text(matches, "platform") {
            None => platform(&dozen_image::Platform::host()),
            Some(text) => {
                let read: dozen_image::Platform =
                    text.parse().map_err(|error: dozen_image::PlatformError| Failure::new(error.to_string()))?;
                platform(&read)
            }
        },
        target_stage: text(matches, "target").unwrap_or_default().to_owned(),
    };
    let report = check(&source.text, &Options { given, ignore: source.ignore });
    match call.format {
        Format::Json => output::print_line(&report::json(&report, &source.name, &source.text))?,
        Format::Text => output::print(&report::text(&report, &source.name, &source.text))?,
    }
    if let Some(error) = &report.error {
        output::say(&report::error(error, &source.name, &source.text));
        return Err(Failure::silent(FAILED));
    }
    let is_bad = !report.findings.is_empty() && !call.ignores_status;
    Ok(if is_bad { FAILED } else { 0 })
}

/// `NAME=VALUE`; a name alone takes our own value, or is left out.
fn build_arguments(
    texts: &[&str],
    environment: &dyn Fn(&str) -> Option<String>,
) -> std::collections::BTreeMap<String, String> {
    let pair = |text: &&str| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => environment(text).map(|value| ((*text).to_owned(), value)),
    };
    texts.iter().filter_map(pair).collect()
}

fn platform(platform: &dozen_image::Platform) -> Platform {
    Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(line: &str) -> Outcome {
        let words = std::iter::once("build").chain(line.split_whitespace());
        execute(&command().try_get_matches_from(words).unwrap())
    }

    #[test]
    fn building_is_refused_by_name() {
        let failure = built("-f x .").unwrap_err();
        assert_eq!(failure.message, "building is not built yet");
        assert!(failure.hint.unwrap().contains("--check"));
    }

    #[test]
    fn the_exit_status_tells_what_was_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("Dockerfile");
        let status = |text: &str, flags: &str| {
            std::fs::write(&path, text).unwrap();
            built(&format!("{flags} {}", directory.path().display())).unwrap_or_else(|failure| failure.exit_code)
        };
        assert_eq!(status("FROM a\n", "--check"), 0);
        assert_eq!(status("FROM a\nCMD b\n", "--check"), 1);
        assert_eq!(status("FROM a\nCMD b\n", "--call check,ignorestatus=true"), 0);
        assert_eq!(status("FROM a\nCDM b\n", "--call check,ignorestatus=true"), 1);
        assert_eq!(status("ARG v\nFROM a:${v:?}\n", "--check"), 1);
        assert_eq!(status("ARG v\nFROM a:x${v:?}\n", "--check --build-arg v=1"), 0);
        assert_eq!(status("FROM a AS b\nFROM a\nCMD c\n", "--check --target b"), 0);
        assert_eq!(status("FROM a\n", "--check --target c"), 1);
        let ignored = "# check=experimental=all\nFROM a\nCOPY b c\n";
        assert_eq!(status(ignored, "--check"), 0);
        std::fs::write(directory.path().join(".dockerignore"), "b\n").unwrap();
        assert_eq!(status(ignored, "--check"), 1);
        std::fs::write(directory.path().join("Dockerfile.dockerignore"), "").unwrap();
        assert_eq!(status(ignored, "--check"), 0);
    }

    #[test]
    fn build_arguments_may_be_our_own() {
        let found = build_arguments(&["a=1", "b", "c", "d=", "e=f=g"], &|name| (name == "b").then(|| "ours".into()));
        let shown: Vec<_> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["a=1", "b=ours", "d=", "e=f=g"]);
    }
}
