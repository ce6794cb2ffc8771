//! What is wrong with a command line, in Docker's words and with its exit codes.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};
use dozen_model::spelling::closest;

use crate::failure::{ENGINE_FAILED, FAILED, Failure};
use crate::help;
use crate::not_built;

/// The command that the arguments name, and its path: `container run`.
pub fn find<'a>(root: &'a Command, arguments: &[String]) -> (&'a Command, String) {
    let mut command = root;
    let mut path: Vec<&str> = Vec::new();
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        if let Some(found) = command.find_subcommand(word) {
            command = found;
            path.push(found.get_name());
        } else if word.starts_with('-') && path.is_empty() {
            let name = word.split('=').next().unwrap_or_default();
            let flag = command.get_arguments().find(|arg| {
                arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long))
                    || arg.get_short().is_some_and(|short| !name.starts_with("--") && name[1..].contains(short))
            });
            match flag {
                // A flag before the verb may have taken the next word.
                Some(flag) if name == word && flag.get_action().takes_values() && !flag.is_require_equals_set() => {
                    words.next();
                }
                Some(_) => {}
                None => break,
            }
        } else {
            break;
        }
    }
    (command, path.join(" "))
}

/// Turns clap's error into ours.
pub fn explain(error: &Error, root: &Command, arguments: &[String]) -> Failure {
    let (command, path) = find(root, arguments);
    let gap = if path.is_empty() { "" } else { " " };
    let name = format!("dozen{gap}{path}");
    let see = format!("Usage:  {}\n\nRun '{name} --help' for more information", help::usage(command, &path));
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let bad_flag =
        |message: String| Failure { see: Some(see.clone()), ..Failure::new(message) }.with_exit_code(ENGINE_FAILED);
    match error.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument
            if context(ContextKind::InvalidSubcommand).is_some() =>
        {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            unknown_verb(command, &path, &word)
        }
        ErrorKind::UnknownArgument => {
            let flag = context(ContextKind::InvalidArg).unwrap_or_default();
            let flag = flag.split('=').next().unwrap_or_default().to_owned();
            if !flag.starts_with('-') {
                return wrong_count(command, &path, &see);
            }
            if not_built::is_flag(&path, &flag) {
                return Failure::not_built(&format!("{flag} of '{name}'")).with_exit_code(ENGINE_FAILED);
            }
            let message = match flag.strip_prefix("--") {
                Some(_) => format!("unknown flag: {flag}"),
                None => format!("unknown shorthand flag: '{}' in {flag}", flag.trim_start_matches('-')),
            };
            let failure = bad_flag(message);
            match similar_flag(command, &flag) {
                Some(right) => failure.with_hint(format!("did you mean {right}?")),
                None => failure,
            }
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues
            if context(ContextKind::InvalidArg).is_some_and(|arg| !arg.starts_with('-')) =>
        {
            wrong_count(command, &path, &see)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::NoEquals | ErrorKind::TooManyValues => {
            let flag = context(ContextKind::InvalidArg).unwrap_or_default();
            let flag = flag.split([' ', '[', '=']).next().unwrap_or_default().to_owned();
            let value = context(ContextKind::InvalidValue).unwrap_or_default();
            if value.is_empty() && error.kind() == ErrorKind::InvalidValue {
                return bad_flag(format!("flag needs an argument: {flag}"));
            }
            let why = std::error::Error::source(error).map(|why| format!(": {why}")).unwrap_or_default();
            bad_flag(format!("invalid argument \"{value}\" for \"{flag}\" flag{why}"))
        }
        ErrorKind::InvalidUtf8 => bad_flag("an argument is not UTF-8".to_owned()),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            bad_flag(first.strip_prefix("error: ").unwrap_or(first).to_owned())
        }
    }
}

fn unknown_verb(command: &Command, path: &str, word: &str) -> Failure {
    let gap = if path.is_empty() { "" } else { " " };
    let full = format!("{path}{gap}{word}");
    if not_built::is_verb(&full) {
        return Failure::not_built(&format!("'dozen {full}'"));
    }
    let failure = Failure {
        is_prefixed: true,
        see: Some(format!("Run 'dozen{gap}{path} --help' for more information")),
        exit_code: FAILED,
        ..Failure::new(format!("unknown command: dozen {full}"))
    };
    let names = command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(Command::get_name);
    match closest(word, names) {
        Some(right) => failure.with_hint(format!("did you mean 'dozen {path}{gap}{right}'?")),
        None => failure,
    }
}

/// Too few words, or too many. The words are Docker's.
fn wrong_count(command: &Command, path: &str, see: &str) -> Failure {
    let positionals: Vec<_> = command.get_positionals().collect();
    let least = positionals.iter().filter(|arg| arg.is_required_set()).count();
    let has_no_end = positionals.iter().any(|arg| arg.get_num_args().is_some_and(|range| range.max_values() > 1));
    let most = positionals.len();
    // `IMAGE [COMMAND]` and `CONTAINER COMMAND` are one list of words for the parser.
    let least = match positionals.as_slice() {
        [only] if only.get_id() == "words" => only.get_num_args().map_or(least, |range| range.min_values()),
        _ => least,
    };
    let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
    let wants = match (least, most) {
        (least, _) if has_no_end => format!("requires at least {least} {}", plural(least)),
        (0, 0) => "accepts no arguments".to_owned(),
        (least, most) if least == most => format!("requires {least} {}", plural(least)),
        (0, most) => format!("accepts at most {most} {}", plural(most)),
        (least, most) => format!("requires {least} to {most} arguments"),
    };
    Failure { is_prefixed: true, see: Some(see.to_owned()), ..Failure::new(format!("'dozen {path}' {wants}")) }
}

fn similar_flag(command: &Command, flag: &str) -> Option<String> {
    let longs: Vec<String> =
        command.get_arguments().filter_map(clap::Arg::get_long).map(|long| format!("--{long}")).collect();
    closest(flag, longs.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(line: &str) -> (u8, String) {
        let arguments: Vec<String> = format!("dozen {line}").split_whitespace().map(str::to_owned).collect();
        let mut root = crate::command();
        let error = root.try_get_matches_from_mut(&arguments).unwrap_err();
        let failure = explain(&error, &root, &arguments);
        (failure.exit_code, failure.render())
    }

    #[test]
    fn first_lines_and_exit_codes_are_dockers() {
        for (line, exit_code, words) in [
            ("rn", 1, "dozen: unknown command: dozen rn\nhint: did you mean 'dozen run'?"),
            ("imgaes", 1, "dozen: unknown command: dozen imgaes\nhint: did you mean 'dozen images'?"),
            (
                "container strat x",
                1,
                "dozen: unknown command: dozen container strat\nhint: did you mean 'dozen container start'?",
            ),
            ("buildx bake", 1, "dozen: 'dozen buildx bake' is not built yet"),
            ("build --squash .", 125, "dozen: --squash of 'dozen build' is not built yet"),
            ("image build --squash .", 125, "dozen: --squash of 'dozen image build' is not built yet"),
            ("buildx build --squash .", 125, "dozen: --squash of 'dozen buildx build' is not built yet"),
            ("push --disable-content-trust x", 125, "dozen: --disable-content-trust of 'dozen push' is not built yet"),
            ("compose up", 1, "dozen: 'dozen compose' is not built yet"),
            ("run --kernel-memory 1g x", 125, "dozen: --kernel-memory of 'dozen run' is not built yet"),
            ("run --kernel-memory=1g x", 125, "dozen: --kernel-memory of 'dozen run' is not built yet"),
            ("container run --runtime x x", 125, "dozen: --runtime of 'dozen container run' is not built yet"),
            ("run --runtime runc x", 125, "dozen: --runtime of 'dozen run' is not built yet"),
            ("run --bogus x", 125, "unknown flag: --bogus\n"),
            ("run --nmae x y", 125, "unknown flag: --nmae\nhint: did you mean --name?"),
            ("ps -x", 125, "unknown shorthand flag: 'x' in -x"),
            (
                "run",
                1,
                "dozen: 'dozen run' requires at least 1 argument\n\nUsage:  dozen run [OPTIONS] IMAGE [COMMAND] [ARG...]",
            ),
            (
                "rm",
                1,
                "dozen: 'dozen rm' requires at least 1 argument\n\nUsage:  dozen rm [OPTIONS] CONTAINER [CONTAINER...]",
            ),
            ("rename a", 1, "dozen: 'dozen rename' requires 2 arguments"),
            ("rename a b c", 1, "dozen: 'dozen rename' requires 2 arguments"),
            ("exec a", 1, "dozen: 'dozen exec' requires at least 2 arguments"),
            ("ps x", 1, "dozen: 'dozen ps' accepts no arguments"),
            ("stop -t x a", 125, "invalid argument \"x\" for \"--timeout\" flag: invalid digit found in string"),
            ("run --rm=maybe x", 125, "invalid argument \"maybe\" for \"--rm\" flag: want true or false"),
            ("run -e", 125, "flag needs an argument: --env"),
            ("--config x ps", 125, "dozen: --config of 'dozen' is not built yet"),
        ] {
            let (code, text) = explained(line);
            assert!(text.starts_with(words) && code == exit_code, "{line}: {code} {text}");
        }
    }

    #[test]
    fn words_that_are_nothing_alike_get_no_suggestion() {
        assert_eq!(closest("rn", ["run", "rm"].into_iter()), Some("run"));
        assert_eq!(closest("frobnicate", ["run", "rm"].into_iter()), None);
    }
}
