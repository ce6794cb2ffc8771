//! The command line: Docker's verbs, flags, output and exit codes.
//!
//! It reaches the engine only through the Docker Engine API ([`client`]), so it also works against any other engine
//! that speaks it. [`command`] is the one definition of all verbs; from it come parsing, `--help`, completions and
//! manual pages. What people type is parsed by pure code ([`arguments`]), what the engine says is shown by pure code
//! ([`output`], [`template`]), and [`commands`] are the thin edges between the two.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line is for")]

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

pub mod absence;
pub mod arguments;
pub mod attach;
pub mod client;
pub mod commands;
pub mod context;
pub mod credentials;
pub mod demultiplex;
pub mod failure;
pub mod help;
pub mod host;
pub mod install;
pub mod not_built;
pub mod output;
pub mod remote;
pub mod signals;
pub mod start_engine;
pub mod tcp;
pub mod template;
pub mod terminal;
pub mod usage_error;

pub use commands::command;

use clap::error::ErrorKind;

use crate::arguments::flags::{is_on, switch_value, text, texts};
use crate::client::Client;
use crate::commands::Context;
use crate::failure::{Failure, Outcome};
use crate::host::HostChoice;

/// Runs the command line; `arguments` begin with the program's name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let exit_code = run(&arguments).unwrap_or_else(|failure| {
        let _ = std::io::stderr().write_all(failure.render().as_bytes());
        failure.exit_code
    });
    ExitCode::from(exit_code)
}

fn run(arguments: &[OsString]) -> Outcome {
    let mut root = command();
    let matches = match root.try_get_matches_from_mut(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            let (asked, path) = usage_error::find(&root, &words);
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    output::print(&help::render(asked, &path, width()))?;
                    Ok(0)
                }
                ErrorKind::DisplayVersion => {
                    output::print_line(&format!("dozen version {}", env!("CARGO_PKG_VERSION")))?;
                    Ok(0)
                }
                _ => Err(usage_error::explain(&error, &root, &words)),
            };
        }
    };
    if let Some(("help", topic)) = matches.subcommand() {
        // Parsing completes only the verb that was called: the others lack what all have, --help itself.
        root.build();
        let (asked, path) = help::topic(&root, &texts(topic, "topic"))?;
        output::print(&help::render(asked, &path, width()))?;
        return Ok(0);
    }
    if let Some(outcome) = commands::without_engine(&matches) {
        return outcome;
    }
    let environment = |name: &str| std::env::var(name).ok().or_else(|| implied(name));
    let choice = HostChoice {
        host: text(&matches, "host").map(str::to_owned),
        run_root: text(&matches, "run-root").map(PathBuf::from),
        data_root: text(&matches, "data-root").map(PathBuf::from),
        is_default: false,
        tls: {
            let path = |name| text(&matches, name).map(PathBuf::from);
            let is_on = [switch_value(&matches, "tlsverify"), switch_value(&matches, "tls")];
            let flags = tcp::TlsFlags {
                is_on: is_on.contains(&Some(true)).then_some(true).or(is_on[0]).or(is_on[1]),
                authority: path("tlscacert"),
                certificate: path("tlscert"),
                key: path("tlskey"),
            };
            flags.files(&environment, context::store::Store::of(&environment).directory())
        },
    };
    let choice = context::apply(choice, text(&matches, "context"), &environment)?;
    let host = host::decide(&choice, &environment)?;
    let api_version = environment("DOCKER_API_VERSION").filter(|version| !version.is_empty());
    let context = Context { client: Client::new(host, api_version, is_on(&matches, "debug")) };
    // One thread: a command is one conversation, and threads cost more than it does.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot begin: {error}")))?;
    // In a box: as itself it would be compiled into each of the places where a runtime polls what it blocks on.
    let command: Pin<Box<dyn Future<Output = Outcome> + '_>> = Box::pin(commands::execute(&context, &matches));
    let outcome = runtime.block_on(command);
    // A thread may be waiting for a key that nobody presses: it is left behind.
    runtime.shutdown_background();
    outcome
}

/// Where `dozen system install` has made the engine a service, commands wait for that one and start none in its place.
fn implied(name: &str) -> Option<String> {
    let is_service = || {
        let unit = std::path::Path::new(install::plan::UNITS).join(install::plan::UNIT_NAMES[1]);
        std::path::Path::new("/run/systemd/system").is_dir() && unit.exists()
    };
    (name == "DOZEN_AUTOSTART" && is_service()).then(|| "0".to_owned())
}

fn width() -> usize {
    terminal::size().map_or(80, |size| usize::from(size.columns))
}
