//! `dozen build`: a directory or an archive goes to the engine with a Dockerfile, and becomes an image. With `--check`
//! nothing is built: the build checks need no engine.

mod agents;
mod cache;
mod call;
mod contexts;
mod events;
mod frames;
mod layout;
mod packing;
mod product;
mod progress;
mod registries;
mod report;
mod request;
mod results;
mod secrets;
mod send;
mod shell;
mod source;
mod statements;
pub(super) mod tar;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::{ArgMatches, Command, value_parser};
use dozen_dockerfile::lint::{Options, check};
use dozen_dockerfile::scope::{Given, Platform};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval};

use super::Context;
use crate::arguments::flags::{is_on, list, name, required, switch, text, texts, value, verb};
use crate::client::JsonLines;
use crate::failure::{FAILED, Failure, Outcome};
use crate::output;
use cache::Caches;
use call::{Call, Format};
use events::Event;
use product::Product;
use progress::{Mode, Progress};
use results::Results;
use statements::Statements;

/// How often what runs is shown anew.
const TICK: Duration = Duration::from_millis(100);

pub fn command() -> Command {
    let integer = |name, short: Option<char>, help| value(name, short, "int", help).value_parser(value_parser!(i64));
    verb(
        "build",
        "Build an image from a Dockerfile",
        "build [OPTIONS] PATH | URL | -",
        "dozen build -t web:1.0 .\n\
         dozen build -f deploy/web.Dockerfile --target test --build-arg VERSION=2 .\n\
         dozen build --secret id=token,src=token.txt -t web .\n\
         dozen build --ssh default .\n\
         dozen build --ca-bundle /etc/ssl/certs/ca-certificates.crt .\n\
         dozen build --cache-from type=local,src=cache --cache-to type=local,dest=cache,mode=max .\n\
         dozen build --cache-from registry.example/web:cache --cache-to type=registry,ref=registry.example/web:cache,mode=max .\n\
         dozen build --build-context shared=../shared --build-context alpine=docker-image://alpine:3.20 .\n\
         dozen build -o type=local,dest=out .\n\
         dozen build --debug-shell .\n\
         dozen build --sbom=true --provenance=mode=max -t web .\n\
         dozen build https://example.org/app.git#v1.2:deploy\n\
         id=$(dozen build -q .)\n\
         dozen build --check .",
    )
    .arg(list("add-host", None, "Add a custom host-to-IP mapping (host:ip)"))
    .arg(list("allow", None, "Allow extra privileged entitlement (\"network.host\", \"security.insecure\")"))
    .arg(list("attest", None, "Statements about the image (\"type=provenance,mode=max\", \"type=sbom\")"))
    .arg(list("build-arg", None, "Set build-time variables"))
    .arg(list("build-context", None, "Additional build contexts (e.g., name=path)"))
    .arg(value("ca-bundle", None, "file", "Certificate authorities that \"RUN\" trusts, too; no part of the image"))
    .arg(list("cache-from", None, "External cache sources (\"user/app:cache\", \"type=local,src=path/to/dir\")"))
    .arg(list("cache-to", None, "Cache export destinations (\"user/app:cache\", \"type=local,dest=path/to/dir\", \"type=inline\")"))
    .arg(value("call", None, "string", "Set method for evaluating build (\"check\")"))
    .arg(value("cgroup-parent", None, "string", "Set the parent cgroup for the \"RUN\" instructions during build"))
    .arg(switch("check", None, "Shorthand for \"--call=check\""))
    .arg(switch("compress", None, "Compress the build context using gzip"))
    .arg(integer("cpu-period", None, "Limit the CPU CFS (Completely Fair Scheduler) period"))
    .arg(integer("cpu-quota", None, "Limit the CPU CFS (Completely Fair Scheduler) quota"))
    .arg(integer("cpu-shares", Some('c'), "CPU shares (relative weight)"))
    .arg(value("cpuset-cpus", None, "string", "CPUs in which to allow execution (0-3, 0,1)"))
    .arg(value("cpuset-mems", None, "string", "MEMs in which to allow execution (0-3, 0,1)"))
    .arg(value("file", 'f', "string", "Name of the Dockerfile (default: \"PATH/Dockerfile\"); \"-\" reads stdin"))
    .arg(switch("debug-shell", None, "Open a shell where a \"RUN\" fails, before the build ends"))
    .arg(switch("force-rm", None, "Always remove intermediate containers, as is done anyway"))
    .arg(value("format", None, "string", "Format of what a check finds: \"text\" or \"json\""))
    .arg(value("iidfile", None, "string", "Write the image ID to a file"))
    .arg(list("label", None, "Set metadata for an image"))
    .arg(switch("load", None, "Shorthand for \"--output=type=docker\", as is done anyway"))
    .arg(value("memory", 'm', "bytes", "Memory limit"))
    .arg(value("memory-swap", None, "bytes", "Swap limit equal to memory plus swap: -1 to enable unlimited swap"))
    .arg(value("metadata-file", None, "string", "Write build result metadata to a file"))
    .arg(value("network", None, "string", "Set the networking mode for the \"RUN\" instructions during build"))
    .arg(switch("no-cache", None, "Do not use cache when building the image"))
    .arg(list("no-cache-filter", None, "Do not cache specified stages"))
    .arg(list("output", 'o', "Output destination (\"type=local,dest=path\")"))
    .arg(value("platform", None, "string", "Platform that the build is for"))
    .arg(value(
        "progress",
        None,
        "string",
        "Type of progress output (\"auto\", \"plain\", \"tty\", \"quiet\", \"rawjson\"; BUILDKIT_PROGRESS)",
    ))
    .arg(value("provenance", None, "string", "Say with the image where it comes from (\"true\", \"mode=max\")"))
    .arg(switch("pull", None, "Always attempt to pull all referenced images"))
    .arg(switch("push", None, "Shorthand for \"--output=type=registry\""))
    .arg(switch("quiet", 'q', "Suppress the build output and print image ID on success"))
    .arg(switch("rm", None, "Remove intermediate containers after a build, as is done anyway"))
    .arg(value("sbom", None, "string", "Say with the image which packages are in it (\"true\")"))
    .arg(list("secret", None, "Secret to expose to the build (\"id=mysecret[,src=/local/secret][,env=NAME]\")"))
    .arg(value("shm-size", None, "bytes", "Shared memory size for build containers"))
    .arg(list("ssh", None, "SSH agent socket to expose to the build (\"default|<id>[=<socket>]\")"))
    .arg(list("tag", 't', "Image identifier (\"[REGISTRY/]REPOSITORY[:TAG]\")"))
    .arg(value("target", None, "string", "Set the target build stage to build"))
    .arg(list("ulimit", None, "Ulimit options"))
    .arg(name("path", "PATH"))
}

/// Checks, if that is what is asked for; `None`: to build.
pub fn without_engine(matches: &ArgMatches) -> Option<Outcome> {
    match Call::read(text(matches, "call"), is_on(matches, "check"), text(matches, "format")) {
        Ok(None) => None,
        Ok(Some(call)) => Some(checked(call, matches)),
        Err(failure) => Some(Err(failure)),
    }
}

/// Builds.
pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let environment = |name: &str| std::env::var(name).ok();
    let is_quiet = is_on(matches, "quiet");
    let mode = Mode::read(text(matches, "progress"), environment("BUILDKIT_PROGRESS").as_deref(), is_quiet)?;
    let product = Product::read(matches)?;
    if is_on(matches, "debug-shell") {
        shell::check_terminal(&product)?;
    }
    let request = request::read(matches, &product, &environment)?;
    product.check_names(&request.tags)?;
    let secrets = secrets::read(&texts(matches, "secret"), &environment)?;
    let agents = agents::read(&texts(matches, "ssh"), &environment)?;
    let authorities = text(matches, "ca-bundle").map(authorities).transpose()?;
    let results = Results::prepare(matches, &product)?;
    let is_data_on_stdout = product.is_on_stdout();
    let prepared = product.prepare()?;
    let caches = Caches::prepare(&texts(matches, "cache-from"), &texts(matches, "cache-to"))?;
    let mut contexts = contexts::read(&texts(matches, "build-context"))?;
    let from = source::context(required(matches, "path"), text(matches, "file"))?;
    if let source::Context::Directory { source, .. } | source::Context::Nothing(source) = &from {
        contexts::leave_out_unused(&mut contexts, &source.text, &given(matches)?);
    }
    let text = from.dockerfile().map(|source| source.text.as_str());
    let auth = registries::credentials(text, &given(matches)?, &contexts, caches.registries())?;
    send::check(context).await?;
    let agents = agents::open(context, agents).await?;
    let mut progress = Progress::new(mode);
    let compress = is_on(matches, "compress");
    let query = caches.ask(request.query);
    let said = caches.described();
    let sending = send::Sending { query, secrets, agents, authorities, contexts, caches: said, from, compress, auth };
    let response = send::send(context, sending, &mut progress).await?;
    caches.warnings.iter().for_each(|warning| progress.warn(warning));
    let mut statements = Statements::default();
    let lines = JsonLines::new(response, "POST /build");
    let id = follow(context, lines, &caches, &mut progress, &mut statements).await?;
    progress.built(&id, &request.tags);
    let digest = prepared.take(context, &id, &request.tags, statements, mode.is_quiet()).await?;
    results.write(&id, digest.as_deref(), &request.tags)?;
    if is_quiet && !is_data_on_stdout {
        output::print_line(&id)?;
    }
    Ok(0)
}

/// Certificates in PEM.
fn authorities(path: &str) -> Result<String, Failure> {
    let failed = |why: String| Failure::new(format!("ERROR: failed to read the certificate authorities {path}: {why}"));
    let text = std::fs::read_to_string(path).map_err(|error| failed(super::system_words(&error)))?;
    if text.contains("-----BEGIN CERTIFICATE-----") { Ok(text) } else { Err(failed("no certificate is in it".into())) }
}

/// Shows what the engine tells, and brings and takes what of caches it wants and gives; the image's id in the end.
async fn follow(
    context: &Context,
    mut lines: JsonLines,
    caches: &Caches,
    progress: &mut Progress,
    statements: &mut Statements,
) -> Result<String, Failure> {
    let mut bringing = FuturesUnordered::new();
    let mut exports: BTreeMap<String, usize> = BTreeMap::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let line = tokio::select! {
            line = lines.next() => line?,
            Some(()) = bringing.next() => continue,
            _ = ticks.tick() => {
                progress.tick();
                continue;
            }
        };
        let Some(line) = line else {
            let failed =
                events::Failed { message: "the engine ended the build without a result".into(), ..Default::default() };
            return Err(progress.failed(failed).with_hint("the engine's log may say more"));
        };
        match Event::read(line) {
            Some(Event::Built(id)) => return Ok(id),
            Some(Event::Failed(failed)) => return Err(progress.failed(failed)),
            Some(Event::Shell(it)) => {
                progress.make_way();
                shell::open(context, &it.container, progress.title(it.step)).await;
            }
            Some(Event::Statement(part)) => statements.add(part),
            Some(Event::Exporting(it)) => {
                let begin = || progress.begin(&format!("exporting cache to registry {}", it.name));
                let shown = *exports.entry(it.name.clone()).or_insert_with(begin);
                match it.line {
                    Some(line) => progress.say(shown, &line),
                    None => progress.end(shown),
                }
            }
            Some(Event::WantsLayer(layer)) => bringing.push(caches.bring(context, layer)),
            Some(Event::CacheReady(done)) => caches.take(context, &done.steps, progress).await?,
            Some(event) => progress.tell(&event),
            None => {}
        }
    }
}

fn checked(call: Call, matches: &ArgMatches) -> Outcome {
    let source = source::read(Path::new(required(matches, "path")), text(matches, "file"))?;
    let report = check(&source.text, &Options { given: given(matches)?, ignore: source.ignore });
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

/// What the flags say to the Dockerfile.
fn given(matches: &ArgMatches) -> Result<Given, Failure> {
    let host = dozen_image::Platform::host();
    let wanted = match text(matches, "platform") {
        Some(text) => text.parse().map_err(|error: dozen_image::PlatformError| Failure::new(error.to_string()))?,
        None => host.clone(),
    };
    Ok(Given {
        arguments: request::build_arguments(&texts(matches, "build-arg"), &|name| std::env::var(name).ok()),
        build_platform: platform(&host),
        target_platform: platform(&wanted),
        target_stage: text(matches, "target").unwrap_or_default().to_owned(),
    })
}

fn platform(platform: &dozen_image::Platform) -> Platform {
    Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
