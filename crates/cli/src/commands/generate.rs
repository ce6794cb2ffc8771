//! `dozen completion` and `dozen man`, from the one definition of the verbs.

use std::path::Path;

use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

use crate::arguments::flags::{name, required, verb};
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn completion_command() -> Command {
    verb(
        "completion",
        "Print a shell's completion script",
        "completion bash|zsh|fish",
        "dozen completion bash > /etc/bash_completion.d/dozen",
    )
    .arg(Arg::new("shell").value_name("bash|zsh|fish").required(true).value_parser(["bash", "zsh", "fish"]))
}

pub fn man_command() -> Command {
    verb("man", "Write the manual pages into a directory", "man DIRECTORY", "dozen man /usr/local/share/man/man1")
        .arg(name("directory", "DIRECTORY"))
}

pub fn completion(matches: &ArgMatches) -> Outcome {
    let shell = match required(matches, "shell") {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "dozen", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

pub fn man(matches: &ArgMatches) -> Outcome {
    let directory = Path::new(required(matches, "directory"));
    let failed = |error| Failure::new(format!("cannot write manual pages into {}: {error}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(super::command(), directory).map_err(failed)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn scripts_and_pages_come_out_of_the_definition() {
        crate::command().debug_assert();
        for shell in [super::Shell::Bash, super::Shell::Zsh, super::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut crate::command(), "dozen", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("sig-proxy"));
        }
        let directory = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(crate::command(), directory.path()).unwrap();
        assert!(directory.path().join("dozen-run.1").exists());
    }
}
