//! `--help`, in Docker's shape, from the one definition of the commands.

use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::failure::Failure;
use crate::not_built;

/// The verbs that the first screen shows first.
const COMMON: [&str; 6] = ["run", "exec", "ps", "images", "version", "info"];
/// The verbs that are groups of verbs.
const GROUPS: [&str; 6] = ["container", "context", "image", "network", "system", "volume"];
/// Where the engine's own modes are listed.
const ENGINE: [&str; 5] = ["daemon", "registry", "runtime", "completion", "man"];
const MIN_WIDTH: usize = 40;

/// Help on `command`, reached by `path` ("container run"; empty for dozen itself), for a terminal `width` wide.
pub fn render(command: &Command, path: &str, width: usize) -> String {
    let width = width.max(MIN_WIDTH);
    let mut text = format!("Usage:  {}\n", usage(command, path));
    if let Some(about) = command.get_about() {
        let _ = write!(text, "\n{about}\n");
    }
    let verbs: Vec<&Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
    let mut section = |title: &str, keep: &dyn Fn(&str) -> bool| {
        let lines: Vec<(String, String)> = verbs
            .iter()
            .filter(|verb| keep(verb.get_name()))
            .map(|verb| (verb.get_name().to_owned(), verb.get_about().map(ToString::to_string).unwrap_or_default()))
            .collect();
        if !lines.is_empty() {
            let _ = write!(text, "\n{title}:\n{}", columns(&lines, width));
        }
    };
    if path.is_empty() {
        section("Common Commands", &|name| COMMON.contains(&name));
        section("Management Commands", &|name| GROUPS.contains(&name));
        section("Commands", &|name| !COMMON.contains(&name) && !GROUPS.contains(&name) && !ENGINE.contains(&name));
        section("The Engine and Its Tools", &|name| ENGINE.contains(&name));
    } else {
        section("Commands", &|_| true);
    }
    let options: Vec<(String, String)> = command
        .get_arguments()
        .filter(|arg| !arg.is_positional() && !arg.is_hide_set())
        .map(|arg| (option(arg), arg.get_help().map(ToString::to_string).unwrap_or_default()))
        .collect();
    if !options.is_empty() {
        let title = if path.is_empty() { "Global Options" } else { "Options" };
        let _ = write!(text, "\n{title}:\n{}", columns(&options, width));
    }
    if let Some(examples) = command.get_after_help() {
        let _ = write!(text, "\nExamples:\n");
        for line in examples.to_string().lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    if !verbs.is_empty() {
        let gap = if path.is_empty() { "" } else { " " };
        let _ = write!(text, "\nRun 'dozen {path}{gap}COMMAND --help' for more information on a command.\n");
    }
    text
}

/// The command that `dozen help WORDS` asks about, and its path. Flags among the words are passed over.
pub fn topic<'a>(root: &'a Command, words: &[&str]) -> Result<(&'a Command, String), Failure> {
    let (mut command, mut path) = (root, String::new());
    for word in words.iter().filter(|word| !word.starts_with('-')) {
        let gap = if path.is_empty() { "" } else { " " };
        let Some(found) = command.find_subcommand(word) else {
            let wanted = format!("{path}{gap}{word}");
            return Err(match not_built::is_verb(&wanted) {
                true => Failure::not_built(&format!("'dozen {wanted}'")),
                false => Failure::new(format!("unknown help topic: {}", words.join(" "))),
            });
        };
        path.push_str(gap);
        path.push_str(found.get_name());
        command = found;
    }
    // These are not of this command line: their flags are told by whoever parses them.
    if ENGINE[..3].contains(&path.as_str()) {
        return Err(
            Failure::new(format!("'dozen {path}' has a help of its own")).with_hint(format!("dozen {path} --help"))
        );
    }
    Ok((command, path))
}

/// `dozen run [OPTIONS] IMAGE [COMMAND] [ARG...]`.
pub fn usage(command: &Command, path: &str) -> String {
    if command.has_subcommands() {
        return if path.is_empty() { "dozen [OPTIONS] COMMAND".to_owned() } else { format!("dozen {path} COMMAND") };
    }
    let mut text = format!("dozen {path}");
    if command.get_arguments().any(|arg| !arg.is_positional() && arg.get_id() != "help") {
        text.push_str(" [OPTIONS]");
    }
    for arg in command.get_positionals() {
        let names: Vec<&str> =
            arg.get_value_names().unwrap_or_default().iter().map(clap::builder::Str::as_str).collect();
        let name = names.join(" ");
        let is_many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
        // A list of words describes itself.
        let is_described = arg.get_id() == "words";
        let _ = match (arg.is_required_set(), is_many && !is_described) {
            (true, true) => write!(text, " {name} [{name}...]"),
            (true, false) => write!(text, " {name}"),
            (false, true) => write!(text, " [{name}...]"),
            (false, false) => write!(text, " [{name}]"),
        };
    }
    text
}

/// `-e, --env list`.
fn option(arg: &Arg) -> String {
    let short = arg.get_short().map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let long = arg.get_long().unwrap_or_default();
    let value = match arg.get_value_names() {
        Some([name]) if name.as_str() != "bool" => format!(" {name}"),
        _ => String::new(),
    };
    format!("{short}--{long}{value}")
}

fn columns(lines: &[(String, String)], width: usize) -> String {
    let left = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 3;
    let room = width.saturating_sub(left + 2).max(20);
    let mut text = String::new();
    for (name, help) in lines {
        let mut is_first = true;
        for part in wrap(help, room) {
            let name = if is_first { name.as_str() } else { "" };
            let _ = writeln!(text, "{}", format!("  {name:left$}{part}").trim_end());
            is_first = false;
        }
    }
    text
}

fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("it begins with one line");
        if !line.is_empty() && line.len() + 1 + word.len() > room {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_dockers_in_shape() {
        let root = crate::command();
        for path in ["", "run", "ps", "images", "exec", "logs", "load", "commit", "build", "container", "volume ls"] {
            let command = path
                .split(' ')
                .filter(|word| !word.is_empty())
                .fold(&root, |command, word| command.find_subcommand(word).unwrap());
            let name = if path.is_empty() { "dozen".to_owned() } else { path.replace(' ', "_") };
            insta::assert_snapshot!(name, render(command, path, 100));
        }
    }

    #[test]
    fn every_verb_says_what_it_does_and_shows_an_example() {
        fn check(command: &Command, path: &str) {
            assert!(command.get_about().is_some(), "{path}");
            for verb in command.get_subcommands() {
                check(verb, &format!("{path} {}", verb.get_name()));
            }
            let is_leaf = !command.has_subcommands() && !ENGINE[..3].contains(&command.get_name());
            assert!(!is_leaf || command.get_after_help().is_some(), "{path}");
        }
        check(&crate::command(), "dozen");
    }

    #[test]
    fn help_is_a_verb_too() {
        let root = crate::command();
        let path = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            topic(&root, &words).map(|(command, path)| (command.get_name(), path)).map_err(|failure| failure.render())
        };
        assert_eq!(path(""), Ok(("dozen", String::new())));
        assert_eq!(path("run"), Ok(("run", "run".to_owned())));
        assert_eq!(path("volume remove --force"), Ok(("rm", "volume rm".to_owned())));
        assert_eq!(path("rnu"), Err("unknown help topic: rnu\n".to_owned()));
        assert_eq!(path("run x"), Err("unknown help topic: run x\n".to_owned()));
        assert_eq!(path("volume update"), Err("dozen: 'dozen volume update' is not built yet\n".to_owned()));
        assert!(path("daemon").unwrap_err().contains("hint: dozen daemon --help"));
        let matches = crate::command().try_get_matches_from(["dozen", "help", "volume", "ls"]).unwrap();
        let (_, help) = matches.subcommand().unwrap();
        assert_eq!(crate::arguments::flags::texts(help, "topic"), ["volume", "ls"]);
    }

    #[test]
    fn usage_lines_count_arguments() {
        let root = crate::command();
        for (path, line) in [
            ("run", "dozen run [OPTIONS] IMAGE [COMMAND] [ARG...]"),
            ("exec", "dozen exec [OPTIONS] CONTAINER COMMAND [ARG...]"),
            ("rm", "dozen rm [OPTIONS] CONTAINER [CONTAINER...]"),
            ("wait", "dozen wait CONTAINER [CONTAINER...]"),
            ("rename", "dozen rename CONTAINER NEW_NAME"),
            ("commit", "dozen commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]"),
            ("top", "dozen top CONTAINER [ps OPTIONS]"),
            ("images", "dozen images [OPTIONS] [REPOSITORY[:TAG]]"),
            ("inspect", "dozen inspect [OPTIONS] NAME|ID [NAME|ID...]"),
            ("load", "dozen load [OPTIONS]"),
        ] {
            assert_eq!(usage(root.find_subcommand(path).unwrap(), path), line);
        }
    }
}
