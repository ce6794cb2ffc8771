//! `dozen container VERB`: the same verbs by their long names.

use clap::Command;

use super::{
    attach, commit, cp, create, diff, exec, export, inspect, logs, pause, per_container, port, prune, ps, rm, run,
    start, stats, top, update, wait,
};

pub fn command() -> Command {
    Command::new("container")
        .about("Manage containers")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            attach::command(),
            commit::command(),
            cp::command(),
            create::command(),
            diff::command(),
            exec::command(),
            export::command(),
            inspect::command_for_containers(),
            per_container::kill_command(),
            logs::command(),
            pause::pause_command(),
            port::command(),
            prune::containers_command(),
            ps::command("ls").visible_aliases(["ps", "list"]),
            per_container::rename_command(),
            per_container::restart_command(),
            rm::command(),
            run::command(),
            start::command(),
            stats::command(),
            per_container::stop_command(),
            top::command(),
            pause::unpause_command(),
            update::command(),
            wait::command(),
        ])
}
