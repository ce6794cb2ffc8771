//! `dozen context create|inspect|ls|rm|show|update|use`.

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::inspect;
use crate::arguments::flags::{format, inspect_format, is_on, name, names, required, switch, text, texts, value, verb};
use crate::context::current;
use crate::context::store::{Certificates, DEFAULT, FILES, Store, StoredContext, check_name};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output::listing::{self, Layout};
use crate::template::Row;

const LAYOUT: Layout = Layout {
    table: "{{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    quiet: "Name",
    headings: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
        ("Current", "CURRENT"),
    ],
};

pub fn command() -> Command {
    let settings = |command: Command| {
        command.arg(value("description", None, "string", "Description of the context")).arg(value(
            "docker",
            None,
            "stringToString",
            "Set the docker endpoint: host=ssh://user@host, or host=tcp://host:port,ca=,cert=,key=",
        ))
    };
    Command::new("context").about("Manage contexts").subcommand_required(true).arg_required_else_help(true).subcommands(
        [
            settings(verb(
                "create",
                "Create a context",
                "context create [OPTIONS] CONTEXT",
                "dozen context create far --docker host=ssh://me@there",
            ))
            .arg(value("from", None, "string", "Create it from this one"))
            .arg(name("context", "CONTEXT")),
            verb(
                "inspect",
                "Display detailed information on one or more contexts",
                "context inspect [OPTIONS] [CONTEXT] [CONTEXT...]",
                "dozen context inspect far",
            )
            .arg(inspect_format())
            .arg(Arg::new("names").value_name("CONTEXT").num_args(0..)),
            verb("ls", "List contexts", "context ls [OPTIONS]", "dozen context ls")
                .visible_alias("list")
                .arg(format())
                .arg(switch("quiet", 'q', "Only show context names")),
            verb(
                "rm",
                "Remove one or more contexts",
                "context rm [OPTIONS] CONTEXT [CONTEXT...]",
                "dozen context rm far",
            )
            .visible_alias("remove")
            .arg(switch("force", 'f', "Force the removal of a context in use"))
            .arg(names("CONTEXT")),
            verb("show", "Print the name of the current context", "context show", "dozen context show"),
            settings(verb(
                "update",
                "Update a context",
                "context update [OPTIONS] CONTEXT",
                "dozen context update far --description 'over there'",
            ))
            .arg(name("context", "CONTEXT")),
            verb("use", "Set the current context", "context use CONTEXT", "dozen context use far")
                .arg(name("context", "CONTEXT")),
        ],
    )
}

/// Needs no engine. `named`: what `--context` says.
pub fn execute(named: Option<&str>, matches: &ArgMatches) -> Outcome {
    let environment = |name: &str| std::env::var(name).ok();
    let store = Store::of(&environment);
    let current = current(named, &environment, &store);
    let (verb, matches) = matches.subcommand().expect("clap refuses the group without a verb");
    match verb {
        "create" => create(&store, matches),
        "inspect" => inspect_them(&store, &current, matches),
        "ls" => list(&store, &current, &environment, matches),
        "rm" => remove(&store, &current, matches),
        "show" => {
            output::print_line(&current)?;
            Ok(0)
        }
        "update" => update(&store, matches),
        "use" => choose(&store, matches),
        _ => unreachable!("clap knows no other verb"),
    }
}

fn create(store: &Store, matches: &ArgMatches) -> Outcome {
    let name = required(matches, "context");
    check_name(name)?;
    if store.get(name).is_ok() {
        return Err(Failure::new(format!("context \"{name}\" already exists")));
    }
    let mut context = match text(matches, "from") {
        None => StoredContext::new(name),
        Some(from) => {
            let mut context = store.get(from)?;
            context.0["Name"] = json!(name);
            context
        }
    };
    let mut certificates = text(matches, "from").map_or_else(|| Ok(Vec::new()), |from| store.certificates_of(from))?;
    apply(&mut context, &mut certificates, matches)?;
    if context.host().is_none() {
        return Err(Failure::new("docker endpoint configuration is required").with_hint(
            "say --docker host=ssh://user@host, host=tcp://host:port,ca=,cert=,key=, or host=unix:///path",
        ));
    }
    store.put_certificates(name, &certificates)?;
    store.put(&context)?;
    output::print_line(name)?;
    output::say(&format!("Successfully created context \"{name}\""));
    Ok(0)
}

fn update(store: &Store, matches: &ArgMatches) -> Outcome {
    let name = required(matches, "context");
    check_name(name)?;
    let mut context = store.get(name)?;
    let mut certificates = store.certificates_of(name)?;
    apply(&mut context, &mut certificates, matches)?;
    store.put_certificates(name, &certificates)?;
    store.put(&context)?;
    output::print_line(name)?;
    output::say(&format!("Successfully updated context \"{name}\""));
    Ok(0)
}

/// Certificates that are named are read now.
fn apply(context: &mut StoredContext, certificates: &mut Certificates, matches: &ArgMatches) -> Result<(), Failure> {
    if let Some(description) = text(matches, "description") {
        context.set_description(description);
    }
    for option in text(matches, "docker").into_iter().flat_map(|options| options.split(',')) {
        match option.split_once('=') {
            Some(("host", host)) => {
                crate::host::parse(host)?;
                context.set_host(host);
            }
            Some((kind @ ("ca" | "cert" | "key"), path)) => {
                let file = format!("{kind}.pem");
                certificates.retain(|(other, _)| *other != file);
                certificates.push((file, super::read_file(path).map_err(Failure::new)?));
            }
            Some(("skip-tls-verify", "false")) => {}
            Some(("skip-tls-verify", _)) => {
                return Err(Failure::new("skip-tls-verify is refused: anybody on the way could be the engine"));
            }
            _ => return Err(Failure::new(format!("unrecognized config key: {option}"))),
        }
    }
    if !certificates.is_empty() && certificates.len() < FILES.len() {
        return Err(Failure::new("an engine over TLS takes all three: ca=, cert= and key="));
    }
    Ok(())
}

fn inspect_them(store: &Store, current: &str, matches: &ArgMatches) -> Outcome {
    let mut names = texts(matches, "names");
    if names.is_empty() {
        names.push(current);
    }
    let mut documents = Vec::new();
    for name in names {
        let is_default = name == DEFAULT;
        let mut context =
            if is_default { default_context(&|name| std::env::var(name).ok()) } else { store.get(name)? };
        let mut files = if is_default { Vec::new() } else { store.names_of_certificates(name) };
        files.sort();
        context.0["TLSMaterial"] = if files.is_empty() { json!({}) } else { json!({ "docker": files }) };
        let [metadata, tls] =
            if is_default { ["<IN MEMORY>".to_owned(), "<IN MEMORY>".to_owned()] } else { store.places(name) };
        context.0["Storage"] = json!({ "MetadataPath": metadata, "TLSPath": tls });
        documents.push(context.0.to_string());
    }
    output::print(&inspect::show(&documents, text(matches, "format"))?)?;
    Ok(0)
}

/// What is meant without any: not stored anywhere.
fn default_context(environment: &dyn Fn(&str) -> Option<String>) -> StoredContext {
    let mut context = StoredContext::new(DEFAULT);
    let host = crate::host::decide(&crate::host::HostChoice::default(), environment);
    let address = host.map(|host| host.address()).unwrap_or_default();
    context.set_description("Current DOCKER_HOST based configuration");
    context.set_host(&address);
    context
}

fn list(store: &Store, current: &str, environment: &dyn Fn(&str) -> Option<String>, matches: &ArgMatches) -> Outcome {
    let contexts = [default_context(environment)].into_iter().chain(store.list());
    let is_quiet = is_on(matches, "quiet");
    let is_plain = text(matches, "format").is_none() && !is_quiet;
    let row = |context: StoredContext| {
        let is_current = context.name() == current;
        // In docker's table a star marks it; a format of one's own asks for .Current.
        let star = if is_current && is_plain { " *" } else { "" };
        let columns = vec![
            ("Name", format!("{}{star}", context.name())),
            ("Description", context.description().to_owned()),
            ("DockerEndpoint", context.host().unwrap_or_default()),
            ("Error", String::new()),
            ("Current", is_current.to_string()),
        ];
        Row { columns, labels: None }
    };
    output::print(&listing::render(&LAYOUT, text(matches, "format"), is_quiet, contexts.map(row).collect())?)?;
    Ok(0)
}

fn remove(store: &Store, current: &str, matches: &ArgMatches) -> Outcome {
    let mut failures = Vec::new();
    for name in texts(matches, "names") {
        let removed = match name {
            DEFAULT => Err(Failure::new("context \"default\" cannot be removed")),
            _ if name == current && !is_on(matches, "force") => {
                Err(Failure::new(format!("context \"{name}\" is in use, set -f flag to force remove")))
            }
            _ => store.remove(name),
        };
        match removed {
            Ok(()) => {
                if store.chosen().as_deref() == Some(name) {
                    store.choose(DEFAULT)?;
                }
                output::print_line(name)?;
            }
            Err(failure) => failures.push(failure),
        }
    }
    Failure::all(failures)
}

fn choose(store: &Store, matches: &ArgMatches) -> Outcome {
    let name = required(matches, "context");
    if name != DEFAULT {
        check_name(name)?;
        store.get(name)?;
    }
    store.choose(name)?;
    output::print_line(name)?;
    output::say(&format!("Current context is now \"{name}\""));
    let overruling = ["DOZEN_HOST", "DOCKER_HOST", "DOCKER_CONTEXT"]
        .into_iter()
        .find(|variable| name != DEFAULT && std::env::var_os(variable).is_some_and(|value| !value.is_empty()));
    if let Some(variable) = overruling {
        output::say(&format!("Warning: {variable} environment variable overrides the active context."));
    }
    Ok(0)
}
