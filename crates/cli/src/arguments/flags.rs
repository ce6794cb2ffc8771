//! The kinds of flags that Docker's commands have, and how to read them back.
//!
//! Docker's flags follow GNU with two turns of their own: a switch may be given a value after `=` (`--rm=false`), and
//! a flag that wants a value takes the next argument, whatever it looks like.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::failure::Failure;

/// A switch: `--rm`, `--rm=false`.
pub fn switch(name: &'static str, short: impl Into<Option<char>>, help: &'static str) -> Arg {
    let arg = Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_name("bool")
        .value_parser(boolean);
    match short.into() {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// A flag with one value; given again, the last one counts.
pub fn value(name: &'static str, short: impl Into<Option<char>>, value_name: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::Set)
        .num_args(1)
        .allow_hyphen_values(true)
        .value_name(value_name);
    match short.into() {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// A flag that may be given again and again.
pub fn list(name: &'static str, short: impl Into<Option<char>>, help: &'static str) -> Arg {
    value(name, short, "list", help).action(ArgAction::Append)
}

/// `--filter`/`-f`.
pub fn filter() -> Arg {
    list("filter", 'f', "Show only what matches these conditions (NAME=VALUE)")
}

/// `--format` of a listing.
pub fn format() -> Arg {
    value("format", None, "string", "'table', 'table TEMPLATE', 'json', or a Go template")
}

/// `--format`/`-f` of something that is no table.
pub fn inspect_format() -> Arg {
    value("format", 'f', "string", "'json', or a Go template")
}

/// One or more names.
pub fn names(name: &'static str) -> Arg {
    Arg::new("names").value_name(name).num_args(1..).required(true)
}

/// Exactly one name.
pub fn name(id: &'static str, value_name: &'static str) -> Arg {
    Arg::new(id).value_name(value_name).required(true)
}

/// Everything from the first word that is no flag: the container or image, then the command, taken as it is.
pub fn words(value_name: &'static str, at_least: usize) -> Arg {
    Arg::new("words").value_name(value_name).num_args(at_least..).required(at_least > 0).trailing_var_arg(true)
}

/// A verb: name, what it does, and what follows it in the usage line.
pub fn verb(name: &'static str, about: &'static str, usage: &'static str, examples: &'static str) -> Command {
    Command::new(name).about(about).override_usage(usage).after_help(examples).args_override_self(true)
}

/// The switch is on.
pub fn is_on(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one::<bool>(name).copied().unwrap_or(false)
}

/// The switch as given: `None` if it was not.
pub fn switch_value(matches: &ArgMatches, name: &str) -> Option<bool> {
    matches.get_one::<bool>(name).copied()
}

/// The value, if there is one.
pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

/// All values.
pub fn texts<'a>(matches: &'a ArgMatches, name: &str) -> Vec<&'a str> {
    matches.get_many::<String>(name).into_iter().flatten().map(String::as_str).collect()
}

/// All values, owned.
pub fn owned(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
}

/// A positional that is required and therefore there.
pub fn required<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    text(matches, name).expect("clap refuses a command line without a required argument")
}

/// It was typed, and is not a default.
pub fn is_given(matches: &ArgMatches, name: &str) -> bool {
    matches.value_source(name) == Some(ValueSource::CommandLine)
}

/// An `invalid argument` in Docker's words, with the exit code of a bad flag.
pub fn invalid(value: &str, flag: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(format!("invalid argument \"{value}\" for \"--{flag}\" flag: {why}"))
        .with_exit_code(crate::failure::ENGINE_FAILED)
}

/// What Go's strconv.ParseBool takes.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("want true or false".to_owned()),
    }
}
