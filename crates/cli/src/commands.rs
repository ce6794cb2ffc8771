//! The verbs: each module has the verb's definition and what it does.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::arguments::flags::{switch, value};
use crate::client::Client;
use crate::failure::{Failure, Outcome};

mod artifact;
mod attach;
mod build;
mod builder;
mod collect;
mod commit;
mod container;
mod context;
mod cp;
mod create;
mod debug;
mod dial_stdio;
mod diff;
mod disk_usage;
mod download;
mod events;
mod exec;
mod export;
mod generate;
mod history;
mod images;
mod import;
mod info;
mod inspect;
mod load;
mod login;
mod logs;
mod manifest;
mod network;
mod pause;
mod per_container;
mod pieces;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod reach;
mod rm;
mod rmi;
mod run;
mod save;
mod search;
mod sign;
mod start;
mod stats;
mod system_install;
mod tag;
mod top;
mod trust;
mod update;
mod upload;
mod version;
mod volume;
mod wait;

/// What every verb may use.
pub struct Context {
    /// The engine.
    pub client: Client,
}

/// The definition of all verbs.
pub fn command() -> Command {
    let in_main = |name: &'static str, about: &'static str| {
        // Picked by the binary's main before this crate sees the arguments; here only to be listed.
        Command::new(name)
            .about(about)
            .disable_help_flag(true)
            .arg(Arg::new("arguments").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true).hide(true))
    };
    Command::new("dozen")
        .about("Runs containers: Docker's commands, one binary, no set-up")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args_override_self(true)
        .after_help(
            "dozen run --rm -it debian:bookworm-slim sh     a shell in a new container\n\
             dozen run -d --name web -p 8080:80 nginx       a server in the background\n\
             dozen logs -f web                              what it says\n\
             dozen rm -f web                                away with it",
        )
        .arg(value(
            "host",
            'H',
            "string",
            "The engine to talk to: unix:///path, ssh://user@host, tcp://host:port (DOZEN_HOST, DOCKER_HOST)",
        ))
        .arg(value("context", 'c', "string", "Name of the context to use (DOCKER_CONTEXT; see 'dozen context')"))
        .arg(switch("tls", None, "Use TLS; implied by --tlsverify"))
        .arg(switch("tlsverify", None, "Use TLS and verify the engine (DOCKER_TLS_VERIFY)"))
        .arg(value("tlscacert", None, "string", "Trust certs signed only by this CA (default \"~/.docker/ca.pem\")"))
        .arg(value("tlscert", None, "string", "Path to TLS certificate file (default \"~/.docker/cert.pem\")"))
        .arg(value("tlskey", None, "string", "Path to TLS key file (default \"~/.docker/key.pem\")"))
        .arg(value("data-root", None, "directory", "Where an engine keeps its data (DOZEN_DATA_ROOT)"))
        .arg(value("run-root", None, "directory", "Where an engine keeps its sockets (DOZEN_RUN_ROOT)"))
        .arg(switch("debug", 'D', "Tell each request to the engine on stderr"))
        .arg(
            Arg::new("version")
                .long("version")
                .short('v')
                .action(ArgAction::Version)
                .help("Print the version and quit"),
        )
        .subcommands([
            run::command(),
            exec::command(),
            ps::command("ps"),
            images::command("images"),
            version::command(),
            info::command(),
        ])
        .subcommands([
            container::command(),
            builder::command(),
            builder::command_of_buildx(),
            Command::new("image")
                .about("Manage images")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommands([
                    build::command(),
                    history::command(),
                    import::command(),
                    inspect::command_for_images(),
                    load::command(),
                    images::command("ls").visible_alias("list"),
                    prune::images_command(),
                    pull::command(),
                    push::command(),
                    rmi::command("rm").visible_alias("remove"),
                    save::command(),
                    tag::command(),
                ]),
            Command::new("system")
                .about("Manage the engine")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommands([
                    dial_stdio::command(),
                    disk_usage::command(),
                    events::command(),
                    reach::firewall_command(),
                    collect::command(),
                    info::command(),
                    reach::ports_command(),
                    prune::system_command(),
                    system_install::install_command(),
                    system_install::uninstall_command(),
                ]),
            artifact::command(),
            context::command(),
            manifest::command(),
            network::command(),
            trust::command(),
            volume::command(),
        ])
        .subcommands([
            attach::command(),
            build::command(),
            commit::command(),
            cp::command(),
            create::command(),
            debug::command(),
            diff::command(),
            events::command(),
            export::command(),
            history::command(),
            import::command(),
            inspect::command(),
            per_container::kill_command(),
            load::command(),
            login::command(),
            login::logout_command(),
            logs::command(),
            pause::pause_command(),
            port::command(),
            pull::command(),
            push::command(),
            per_container::rename_command(),
            per_container::restart_command(),
            rm::command(),
            rmi::command("rmi"),
            save::command(),
            search::command(),
            start::command(),
            stats::command(),
            per_container::stop_command(),
            tag::command(),
            top::command(),
            pause::unpause_command(),
            update::command(),
            wait::command(),
        ])
        .subcommands([
            in_main("daemon", "Run the engine in the foreground"),
            in_main("registry", "A registry of images of one's own: serve, check, migrate"),
            in_main("runtime", "An OCI runtime: run, create, start, state, kill, delete"),
            generate::completion_command(),
            generate::man_command(),
            help_command(),
        ])
}

/// `dozen help run` is `dozen run --help`; [`crate::help::topic`] finds what is meant.
fn help_command() -> Command {
    Command::new("help")
        .about("Help about any command")
        .after_help("dozen help run\ndozen help volume create")
        .hide(true)
        .arg(Arg::new("topic").value_name("COMMAND").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true))
}

/// The verbs that need no engine.
pub fn without_engine(matches: &ArgMatches) -> Option<Outcome> {
    match matches.subcommand() {
        Some(("completion", matches)) => Some(generate::completion(matches)),
        Some(("logout", matches)) => Some(login::log_out(matches)),
        Some(("man", matches)) => Some(generate::man(matches)),
        Some(("build", matches)) => build::without_engine(matches),
        Some(("image" | "builder" | "buildx", group)) => match group.subcommand() {
            Some(("build", matches)) => build::without_engine(matches),
            _ => None,
        },
        Some(("context", verbs)) => Some(context::execute(crate::arguments::flags::text(matches, "context"), verbs)),
        Some(("trust", matches)) => Some(trust::execute(matches)),
        Some(("system", system)) => match system.subcommand() {
            Some(("install", matches)) => Some(system_install::install(matches)),
            _ => None,
        },
        Some((mode @ ("daemon" | "registry" | "runtime"), _)) => {
            Some(Err(Failure::new(format!("'dozen {mode}' has to be the first word of the command line"))
                .with_hint(format!("give its flags behind it: dozen {mode} --help"))))
        }
        _ => None,
    }
}

/// Runs the verb that was asked for.
pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let (verb, matches) = matches.subcommand().expect("clap refuses a command line without a verb");
    match (verb, matches.subcommand()) {
        ("container", Some((verb, matches))) => container_verb(context, verb, "container ", matches).await,
        ("image", Some((verb, matches))) => image_verb(context, verb, matches).await,
        ("builder" | "buildx", Some((verb, matches))) => builder::execute(context, verb, matches).await,
        ("system", Some(("df", matches))) => disk_usage::execute(context, matches).await,
        ("system", Some(("events", matches))) => events::execute(context, matches).await,
        ("system", Some(("gc", matches))) => collect::execute(context, matches).await,
        ("system", Some(("dial-stdio", matches))) => dial_stdio::execute(context, matches).await,
        ("system", Some(("uninstall", matches))) => system_install::uninstall(context, matches).await,
        ("system", Some(("ports", matches))) => reach::ports(context, matches).await,
        ("system", Some(("firewall", matches))) => {
            let (verb, matches) = matches.subcommand().expect("clap wants one");
            reach::firewall(context, verb, matches).await
        }
        ("system", Some(("prune", matches))) => prune::system(context, matches).await,
        ("system", Some((_, matches))) => info::execute(context, matches).await,
        ("network", Some((verb, matches))) => network::execute(context, verb, matches).await,
        ("volume", Some((verb, matches))) => volume::execute(context, verb, matches).await,
        ("artifact", _) => artifact::execute(context, matches).await,
        ("events", _) => events::execute(context, matches).await,
        ("info", _) => info::execute(context, matches).await,
        ("login", _) => login::execute(context, matches).await,
        ("manifest", _) => manifest::execute(context, matches).await,
        ("search", _) => search::execute(context, matches).await,
        ("version", _) => version::execute(context, matches).await,
        ("inspect", _) => inspect::execute(context, matches, None).await,
        ("images", _) => images::execute(context, matches).await,
        ("rmi", _) => rmi::execute(context, matches).await,
        ("debug", _) => debug::execute(context, matches).await,
        ("build" | "history" | "import" | "load" | "pull" | "push" | "save" | "tag", _) => {
            image_verb(context, verb, matches).await
        }
        (verb, _) => container_verb(context, verb, "", matches).await,
    }
}

/// `group` is `container ` or nothing: which of its two names the verb was called by.
async fn container_verb(context: &Context, verb: &str, group: &str, matches: &ArgMatches) -> Outcome {
    let full = format!("{group}{verb}");
    match verb {
        "attach" => attach::execute(context, matches).await,
        "commit" => commit::execute(context, matches).await,
        "cp" => cp::execute(context, matches).await,
        "create" => create::execute(context, matches, &full).await,
        "diff" => diff::execute(context, matches).await,
        "exec" => exec::execute(context, matches).await,
        "export" => export::execute(context, matches).await,
        "inspect" => inspect::execute(context, matches, Some("container")).await,
        "kill" => per_container::kill(context, matches).await,
        "logs" => logs::execute(context, matches).await,
        "pause" => pause::pause(context, matches).await,
        "port" => port::execute(context, matches).await,
        "prune" => prune::containers(context, matches).await,
        "ps" | "ls" => ps::execute(context, matches).await,
        "rename" => per_container::rename(context, matches).await,
        "restart" => per_container::restart(context, matches).await,
        "rm" => rm::execute(context, matches).await,
        "run" => run::execute(context, matches, &full).await,
        "start" => start::execute(context, matches).await,
        "stats" => stats::execute(context, matches).await,
        "stop" => per_container::stop(context, matches).await,
        "top" => top::execute(context, matches).await,
        "unpause" => pause::unpause(context, matches).await,
        "update" => update::execute(context, matches).await,
        "wait" => wait::execute(context, matches).await,
        _ => unreachable!("clap knows no other verb"),
    }
}

async fn image_verb(context: &Context, verb: &str, matches: &ArgMatches) -> Outcome {
    match verb {
        "build" => build::execute(context, matches).await,
        "history" => history::execute(context, matches).await,
        "import" => import::execute(context, matches).await,
        "inspect" => inspect::execute(context, matches, Some("image")).await,
        "load" => load::execute(context, matches).await,
        "ls" => images::execute(context, matches).await,
        "prune" => prune::images(context, matches).await,
        "pull" => pull::execute(context, matches).await,
        "push" => push::execute(context, matches).await,
        "rm" => rmi::execute(context, matches).await,
        "save" => save::execute(context, matches).await,
        "tag" => tag::execute(context, matches).await,
        _ => unreachable!("clap knows no other verb"),
    }
}

/// `/containers/NAME/suffix`.
fn container_path(name: &str, suffix: &str) -> String {
    format!("/containers/{}{suffix}", crate::client::encode_segment(name))
}

/// `/images/NAME/suffix`.
fn image_path(name: &str, suffix: &str) -> String {
    format!("/images/{}{suffix}", crate::client::encode_segment(name))
}

/// The time that an image is to say it was made at, in seconds since 1970, if the environment says so
/// (reproducible-builds.org, "SOURCE_DATE_EPOCH").
fn source_date_epoch() -> Result<Option<String>, Failure> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.to_str().map(str::parse::<u64>) {
        Some(Ok(seconds)) => Ok(Some(seconds.to_string())),
        _ => Err(Failure::new(format!("SOURCE_DATE_EPOCH is {text:?}, and no number of seconds"))),
    }
}

/// A file that the command line names; words on why it cannot be read.
fn read_file(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("open {path}: {}", system_words(&error)))
}

/// The kernel's words as C and Go have them, which scripts look for: without a capital and the number.
fn system_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Our directory, for relative paths.
fn directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}
