//! `dozen system install` and `dozen system uninstall`.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::{ArgMatches, Command};
use clap_complete::Shell;
use serde_json::Value;

use super::Context;
use crate::arguments::flags::{is_on, switch, text, value, verb};
use crate::failure::{Failure, Outcome};
use crate::host::DEFAULT_RUN_ROOT;
use crate::install::apply;
use crate::install::group;
use crate::install::manifest::{Manifest, below};
use crate::install::plan::{self, Choice, Kind, UNIT_NAMES};
use crate::output;

const PREFIX: &str = "/usr/local";
/// There while systemd is process 1 (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// What an engine writes outside its roots, and whoever configures it.
const CONFIGURATION: &str = "/etc/dozen";

fn common(command: Command) -> Command {
    command
        .arg(value("root", None, "directory", "The machine's root, if it is not the one that runs"))
        .arg(value("prefix", None, "directory", "Where programs and manual pages go (default /usr/local)"))
        .arg(switch("dry-run", None, "Say what would be done, and do nothing"))
}

pub fn install_command() -> Command {
    common(verb(
        "install",
        "Install dozen for good: program, units of systemd, completions, manual pages",
        "system install [OPTIONS]",
        "dozen system install --group docker --docker-socket\ndozen system install --dry-run",
    ))
    .arg(value(
        "group",
        None,
        "name",
        "Group that may use the socket; made if it is missing (by default root alone may)",
    ))
    .arg(switch("docker-socket", None, "Listen on /run/docker.sock too"))
    .arg(switch("no-start", None, "Do not start the engine"))
}

pub fn uninstall_command() -> Command {
    common(verb(
        "uninstall",
        "Remove what install has put on this machine",
        "system uninstall [OPTIONS]",
        "dozen system uninstall\ndozen system uninstall --purge --yes",
    ))
    .arg(switch("purge", None, "Images, containers, volumes and the configuration go too"))
    .arg(switch("yes", 'y', "Do not ask before data is removed"))
    .arg(switch("force", 'f', "Kill what runs"))
}

struct Target {
    root: PathBuf,
    prefix: PathBuf,
    is_dry: bool,
}

impl Target {
    fn of(matches: &ArgMatches) -> Result<Self, Failure> {
        let path = |name: &str, default: &str| {
            let path = text(matches, name).unwrap_or(default);
            std::path::absolute(path).map_err(|error| Failure::new(format!("cannot tell where {path} is: {error}")))
        };
        Ok(Self { root: path("root", "/")?, prefix: path("prefix", PREFIX)?, is_dry: is_on(matches, "dry-run") })
    }

    fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// This machine's systemd is asked; that of another root reads its units when it starts.
    fn has_systemd(&self) -> bool {
        self.is_this_machine() && Path::new(SYSTEMD).is_dir()
    }

    /// Says a step, and does it unless this is only a rehearsal.
    fn step(&self, words: &str, act: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        output::print_line(&if self.is_dry { format!("would {words}") } else { words.to_owned() })?;
        if self.is_dry { Ok(()) } else { act() }
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<(), Failure> {
        self.step(&format!("run systemctl {}", arguments.join(" ")), || run("systemctl", arguments))
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(format!("{program} {}: {why}", arguments.join(" ")));
    let output = Process::new(program).args(arguments).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

pub fn install(matches: &ArgMatches) -> Outcome {
    let target = Target::of(matches)?;
    let choice = Choice {
        prefix: target.prefix.clone(),
        group: text(matches, "group").filter(|group| !group.is_empty()).map(str::to_owned),
        docker_socket: is_on(matches, "docker-socket"),
    };
    if let Some(group) = &choice.group {
        check_group(group)?;
    }
    let files = plan::files(&choice, manual_pages()?, [Shell::Bash, Shell::Zsh, Shell::Fish].map(completion));
    let noted = |error: std::io::Error| {
        let path = Manifest::path(&target.root, &target.prefix);
        Failure::new(format!("cannot note what is installed in {}: {error}", path.display()))
    };
    let mut manifest = Manifest::read(&target.root, &target.prefix).map_err(noted)?.unwrap_or_default();
    let before = manifest.clone();
    for file in &files {
        if !manifest.files.contains(&file.path) {
            manifest.files.push(file.path.clone());
        }
    }
    if !target.is_dry && manifest != before {
        // First of all: what is begun can be undone.
        let place = Manifest::path(Path::new("/"), &target.prefix);
        apply::make_directories(&target.root, &place, &mut manifest).map_err(noted)?;
        manifest.write(&target.root, &target.prefix).map_err(noted)?;
    }
    let mut is_changed = false;
    if let Some(name) = choice.group.as_ref().filter(|name| !group::is_there(&target.root, name)) {
        is_changed = true;
        target.step(&format!("make the group {name}"), || group::add(&target.root, name))?;
        manifest.group = Some(name.clone());
    }
    let mut units_changed = false;
    for file in files.iter().filter(|file| !apply::is_done(&target.root, file)) {
        is_changed = true;
        units_changed |= file.path.starts_with(plan::UNITS) || file.kind == Kind::Program;
        target.step(&format!("write {}", file.path.display()), || apply::make(&target.root, file, &mut manifest))?;
    }
    if !target.is_dry && is_changed {
        manifest.write(&target.root, &target.prefix).map_err(noted)?;
    }
    if target.has_systemd() {
        if units_changed {
            target.systemctl(&["daemon-reload"])?;
        }
        if !is_on(matches, "no-start") && (units_changed || !is_active()) {
            // Restarted, or new sockets and a new program would wait for the next boot. Containers go on meanwhile.
            target.systemctl(&["stop", UNIT_NAMES[1]])?;
            target.systemctl(&["restart", UNIT_NAMES[0]])?;
            target.systemctl(&["start", UNIT_NAMES[1]])?;
        }
    } else if target.is_this_machine() {
        output::say("no systemd runs here: nothing starts the engine at boot; run 'dozen daemon' by your own means");
    }
    if !is_changed {
        output::print_line("everything is in place")?;
    }
    Ok(0)
}

fn is_active() -> bool {
    Process::new("systemctl")
        .args(["is-active", "--quiet", UNIT_NAMES[1]])
        .status()
        .is_ok_and(|status| status.success())
}

/// groupadd(8), "CAVEATS": what a name may be; a unit's line has room for no other.
fn check_group(group: &str) -> Result<(), Failure> {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let is_fit = group.len() <= 32
        && group.starts_with(is_letter)
        && group.chars().all(|letter| is_letter(letter) || letter.is_ascii_digit() || letter == '-');
    if is_fit { Ok(()) } else { Err(Failure::new(format!("{group:?} cannot be the name of a group"))) }
}

fn completion(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "dozen", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// All pages, by their names.
fn manual_pages() -> Result<Vec<(String, String)>, Failure> {
    fn pages_of(command: &Command, pages: &mut Vec<(String, String)>) -> std::io::Result<()> {
        let page = clap_mangen::Man::new(command.clone());
        let mut text = Vec::new();
        page.render(&mut text)?;
        pages.push((page.get_filename(), String::from_utf8_lossy(&text).into_owned()));
        command.get_subcommands().filter(|verb| !verb.is_hide_set()).try_for_each(|verb| pages_of(verb, pages))
    }
    let mut pages = Vec::new();
    let mut command = super::command().disable_help_subcommand(true);
    // Gives each verb its full name.
    command.build();
    pages_of(&command, &mut pages).map_err(|error| Failure::new(format!("cannot make the manual pages: {error}")))?;
    Ok(pages)
}

pub async fn uninstall(context: &Context, matches: &ArgMatches) -> Outcome {
    let target = Target::of(matches)?;
    let path = Manifest::path(&target.root, &target.prefix);
    let unreadable = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let manifest = Manifest::read(&target.root, &target.prefix).map_err(unreadable)?;
    let is_purge = is_on(matches, "purge");
    if manifest.is_none() && !is_purge {
        output::print_line("nothing is installed")?;
        return Ok(0);
    }
    let roots = context.client.roots().cloned().ok_or_else(|| {
        Failure::new("uninstall is for this machine's own engine, and the environment or a flag names another one")
            .with_hint("say --context default")
    })?;
    let data_root = below(&target.root, &roots.data_root);
    if is_purge && !target.is_dry && !is_on(matches, "yes") {
        confirm(&data_root)?;
    }
    if target.is_this_machine() {
        end_what_runs(context, &roots.run_root, &target, is_on(matches, "force")).await?;
    }
    let mut failures = Vec::new();
    let mut note = |result: Result<(), Failure>| failures.extend(result.err());
    let has_units = manifest.is_some() && target.has_systemd();
    let mut is_ended = true;
    if has_units {
        let stopped = target.systemctl(&["stop", UNIT_NAMES[0], UNIT_NAMES[1]]);
        is_ended = stopped.is_ok();
        note(stopped);
    }
    if let Some(manifest) = manifest {
        for file in manifest.files.iter().rev().filter(|file| below(&target.root, file).symlink_metadata().is_ok()) {
            note(target.step(&format!("remove {}", file.display()), || Ok(())));
        }
        if let Some(name) = manifest.group.as_ref().filter(|name| group::is_there(&target.root, name)) {
            note(target.step(&format!("remove the group {name}"), || group::remove(&target.root, name)));
        }
        if !target.is_dry {
            let mut rest =
                apply::remove(&target.root, &Manifest { directories: Vec::new(), ..manifest.clone() }, |_| {});
            // What could not be removed is still noted.
            if rest.is_empty() {
                let _ = std::fs::remove_file(&path);
                rest = apply::remove(&target.root, &Manifest { files: Vec::new(), ..manifest }, |_| {});
            }
            for failure in rest {
                note(Err(failure));
            }
        }
    }
    if has_units {
        note(target.systemctl(&["daemon-reload"]));
    }
    // Nothing runs any more: what is in the service's run root says nothing to anybody. One that an environment names may
    // be a directory of something else as well.
    let mut directories = Vec::new();
    if is_ended && roots.run_root == Path::new(DEFAULT_RUN_ROOT) {
        directories.push(below(&target.root, &roots.run_root));
    }
    if is_purge {
        directories.extend([data_root, below(&target.root, Path::new(CONFIGURATION))]);
    }
    for directory in directories.iter().filter(|directory| directory.symlink_metadata().is_ok()) {
        note(target.step(&format!("remove {}", directory.display()), || remove_all(directory)));
    }
    Failure::all(failures)
}

fn remove_all(directory: &Path) -> Result<(), Failure> {
    std::fs::remove_dir_all(directory)
        .map_err(|error| Failure::new(format!("cannot remove {}: {error}", directory.display())))
}

fn confirm(data_root: &Path) -> Result<(), Failure> {
    let refused = || Failure::new("nothing was removed");
    if !std::io::stdin().is_terminal() {
        return Err(refused().with_hint("--yes says that images, containers and volumes shall go"));
    }
    output::say(&format!(
        "All images, containers and volumes in {} will be gone. Continue? [y/N]",
        data_root.display()
    ));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::new(error.to_string()))?;
    if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) { Ok(()) } else { Err(refused()) }
}

/// Nothing may run when the program that watches it goes away. `is_forced`: it is killed.
async fn end_what_runs(context: &Context, run_root: &Path, target: &Target, is_forced: bool) -> Result<(), Failure> {
    if !context.client.is_listened_to().await {
        // No engine: what it left running is below its run root, a directory each.
        let left = std::fs::read_dir(run_root.join("c")).map(|entries| entries.count()).unwrap_or(0);
        return match left {
            0 => Ok(()),
            _ => Err(Failure::new(format!("containers may run ({left} of them), and no engine answers"))
                .with_hint("start it, 'dozen daemon', so that it can end them")),
        };
    }
    let running: Vec<Value> = context.client.get("/containers/json").await?;
    if !running.is_empty() && !is_forced && !target.is_dry {
        return Err(Failure::new(format!("{} containers run", running.len()))
            .with_hint("stop them, or have them killed with --force"));
    }
    for container in &running {
        let id = container["Id"].as_str().unwrap_or_default();
        target.step(&format!("kill container {}", output::short_id(id)), || Ok(()))?;
        if !target.is_dry {
            context.client.post_for_nothing(&super::container_path(id, "/kill"), None).await?;
            match context.client.post::<Value>(&super::container_path(id, "/wait"), None).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
    }
    if !target.has_systemd() && !target.is_dry {
        return Err(Failure::new("an engine runs, and no systemd that would end it")
            .with_hint("end it with SIGTERM, and ask again"));
    }
    Ok(())
}
