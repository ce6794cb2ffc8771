//! `dozen manifest`: what a registry has by a name, and lists of manifests: made here ([`list`]), annotated, pushed.

mod document;
mod list;
mod platform;

use clap::{ArgMatches, Command};
use dozen_model::Reference;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::list::{Lists, Member};
use self::platform::Annotation;
use super::Context;
use super::sign::{self, Signer};
use crate::arguments::flags::{is_on, name, names, required, switch, text, texts, value, verb};
use crate::client::{ClientError, Query, encode_segment};
use crate::context::store::Store;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn command() -> Command {
    Command::new("manifest")
        .about("Manage image manifests and manifest lists")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            verb(
                "annotate",
                "Add additional information to a local image manifest",
                "manifest annotate [OPTIONS] MANIFEST_LIST MANIFEST",
                "dozen manifest annotate --arch arm64 --variant v8 registry.example:5000/app:1 registry.example:5000/app:arm",
            )
            .arg(value("arch", None, "string", "Set architecture"))
            .arg(value("os", None, "string", "Set operating system"))
            .arg(value("os-features", None, "strings", "Set operating system feature").action(clap::ArgAction::Append))
            .arg(value("os-version", None, "string", "Set operating system version"))
            .arg(value("variant", None, "string", "Set architecture variant"))
            .arg(name("list", "MANIFEST_LIST"))
            .arg(name("manifest", "MANIFEST")),
        )
        .subcommand(
            verb(
                "create",
                "Create a local manifest list for annotating and pushing to a registry",
                "manifest create MANIFEST_LIST MANIFEST [MANIFEST...]",
                "dozen manifest create registry.example:5000/app:1 registry.example:5000/app:amd registry.example:5000/app:arm",
            )
            .arg(switch("amend", 'a', "Amend an existing manifest list"))
            .arg(switch("insecure", None, "Allow communication with an insecure registry"))
            .arg(name("list", "MANIFEST_LIST"))
            .arg(names("MANIFEST")),
        )
        .subcommand(
            verb(
                "inspect",
                "Display an image manifest, or manifest list",
                "manifest inspect [OPTIONS] [MANIFEST_LIST] MANIFEST",
                "dozen manifest inspect debian:bookworm-slim\ndozen manifest inspect -v registry.example:5000/team/app:1",
            )
            .arg(switch("insecure", None, "Allow communication with an insecure registry"))
            .arg(switch("verbose", 'v', "Output additional info including layers and platform"))
            .arg(names("MANIFEST").num_args(1..=2)),
        )
        .subcommand(sign::flags(
            verb(
                "push",
                "Push a manifest list to a repository",
                "manifest push [OPTIONS] MANIFEST_LIST",
                "dozen manifest push --purge registry.example:5000/app:1\n\
                 dozen manifest push --sign-by-sigstore-private-key team.key registry.example:5000/app:1",
            )
            .arg(switch("insecure", None, "Allow push to an insecure registry"))
            .arg(switch("purge", 'p', "Remove the local manifest list after push"))
            .arg(name("list", "MANIFEST_LIST")),
        ))
        .subcommand(
            verb(
                "rm",
                "Delete one or more manifest lists from local storage",
                "manifest rm MANIFEST_LIST [MANIFEST_LIST...]",
                "dozen manifest rm registry.example:5000/app:1",
            )
            .arg(names("MANIFEST_LIST")),
        )
}

/// As the engine tells it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    descriptor: Map<String, Value>,
    platforms: Option<Vec<Value>>,
    raw: String,
    is_index: bool,
    manifests: Vec<Manifest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    descriptor: Map<String, Value>,
    raw: String,
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let (verb, matches) = matches.subcommand().expect("clap wants one");
    let store = Store::of(&|name| std::env::var(name).ok());
    let work = Work { context, lists: Lists::of(store.directory()), store, is_insecure: is_insecure(verb, matches) };
    match verb {
        "annotate" => annotate(&work.lists, matches)?,
        "create" => work.create(matches).await?,
        "inspect" => work.inspect(matches).await?,
        "push" => work.push(matches).await?,
        _ => remove(&work.lists, matches)?,
    }
    Ok(0)
}

fn is_insecure(verb: &str, matches: &ArgMatches) -> bool {
    matches!(verb, "create" | "inspect" | "push") && is_on(matches, "insecure")
}

fn reference(name: &str) -> Result<Reference, Failure> {
    name.parse().map_err(|error| Failure::new(format!("{error}")))
}

/// In docker's words.
fn no_such(name: &Reference) -> Failure {
    Failure::new(format!("No such manifest: {name}"))
}

fn annotate(lists: &Lists, matches: &ArgMatches) -> Result<(), Failure> {
    let (list, manifest) = (required(matches, "list"), required(matches, "manifest"));
    let parsed = |what: &str, name: &str| {
        let failed = |error| Failure::new(format!("annotate: error parsing name for {what} {name}: {error}"));
        name.parse::<Reference>().map_err(failed)
    };
    let (list_name, name) = (parsed("manifest list", list)?, parsed("manifest", manifest)?);
    let Some(mut member) = lists.member(&list_name, &name)? else {
        return Err(Failure::new(format!("manifest for image {manifest} does not exist in {list}")));
    };
    let value = |name| text(matches, name).unwrap_or_default();
    let features = texts(matches, "os-features");
    let annotation = Annotation {
        architecture: value("arch"),
        os: value("os"),
        os_version: value("os-version"),
        variant: value("variant"),
        os_features: features.iter().flat_map(|all| all.split(',')).filter(|one| !one.is_empty()).collect(),
    };
    annotation.apply(&mut member).map_err(Failure::new)?;
    lists.write(&list_name, &name, &member)
}

/// All that are there; the others are named.
fn remove(lists: &Lists, matches: &ArgMatches) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for name in texts(matches, "names") {
        let name = reference(name)?;
        if !lists.remove(&name)? {
            missing.push(no_such(&name).message);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Failure::new(missing.join("\n"))) }
}

/// What asks a registry.
struct Work<'a> {
    context: &'a Context,
    store: Store,
    lists: Lists,
    is_insecure: bool,
}

impl Work<'_> {
    async fn create(&self, matches: &ArgMatches) -> Result<(), Failure> {
        let list = reference(required(matches, "list"))?;
        if self.lists.read(&list)?.is_some() && !is_on(matches, "amend") {
            return Err(Failure::new("refusing to amend an existing manifest list with no --amend flag"));
        }
        // All or none: a list that is half made would have to be removed by hand.
        let mut members = Vec::new();
        for name in texts(matches, "names") {
            let name = reference(name)?;
            let member = match self.lists.member(&list, &name)? {
                Some(member) => member,
                None => self.fetch_member(&name).await?,
            };
            members.push((name, member));
        }
        for (name, member) in &members {
            self.lists.write(&list, name, member)?;
        }
        output::print_line(&format!("Created manifest list {list}"))?;
        Ok(())
    }

    async fn fetch_member(&self, name: &Reference) -> Result<Member, Failure> {
        let mut answer = self.fetch(name).await?;
        if answer.is_index {
            return Err(Failure::new(format!("{name} is a manifest list"))
                .with_hint(format!("name what is in it, by digest: dozen manifest inspect {name}")));
        }
        if let Some(platform) = answer.platforms.take().and_then(|all| all.into_iter().next()) {
            answer.descriptor.insert("platform".to_owned(), platform);
        }
        Ok(Member { name: name.clone(), descriptor: answer.descriptor, raw: answer.raw })
    }

    async fn inspect(&self, matches: &ArgMatches) -> Result<(), Failure> {
        let is_verbose = is_on(matches, "verbose");
        let text = match texts(matches, "names")[..] {
            [list, name] => {
                let name = reference(name)?;
                let member = match self.lists.member(&reference(list)?, &name)? {
                    Some(member) => member,
                    None => self.fetch_member(&name).await?,
                };
                document::member(&member, is_verbose)
            }
            [name, ..] => {
                let name = reference(name)?;
                match self.lists.read(&name)? {
                    Some(members) if is_verbose => document::verbose_list(&members),
                    Some(members) => Some(document::list(&descriptors(&members)).1),
                    None => {
                        let answer = self.fetch(&name).await?;
                        if is_verbose { document::verbose(&name, &answer) } else { document::plain(&answer) }
                    }
                }
            }
            [] => None,
        };
        output::print_line(&text.ok_or_else(|| Failure::new("what is said of the manifest cannot be read"))?)?;
        Ok(())
    }

    /// What a registry has by a name.
    async fn fetch(&self, name: &Reference) -> Result<Answer, Failure> {
        let query = Query::new().with("manifests", "1").with_flag("insecure", self.is_insecure);
        let auth = credentials::of_registry(self.store.directory(), name.registry())?;
        let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
        let path = format!("/distribution/{}/json{query}", encode_segment(&name.to_string()));
        let found = self.context.client.read_with(Method::GET, &path, &fields).await;
        found.map_err(|error: ClientError| match error.is_not_found() {
            true => {
                let hint = error.to_string();
                Failure::new(format!("no such manifest: {name}")).with_hint(hint)
            }
            false => error.into(),
        })
    }

    async fn push(&self, matches: &ArgMatches) -> Result<(), Failure> {
        let list = reference(required(matches, "list"))?;
        // A key that cannot be used pushes nothing.
        let signer = Signer::of(matches)?;
        let members = self.lists.read(&list)?.filter(|members| !members.is_empty()).ok_or_else(|| no_such(&list))?;
        let mut named = Vec::new();
        for member in &members {
            if member.platform("os").is_empty() || member.platform("architecture").is_empty() {
                let words = "must have an OS and Architecture to be pushed to a registry";
                return Err(Failure::new(format!("manifest {} {words}", member.name))
                    .with_hint("say them: dozen manifest annotate --os OS --arch ARCHITECTURE LIST MANIFEST"));
            }
            let (of_member, of_list) = (member.name.registry(), list.registry());
            if of_member != of_list {
                let words = "cannot use source images from a different registry than the target image";
                return Err(Failure::new(format!("{words}: {of_member} != {of_list}")));
            }
            let digest = member.digest().ok_or_else(|| {
                Failure::new(format!(
                    "digest parse of image {:?} failed: {list} is to be made anew",
                    member.name.to_string()
                ))
            })?;
            named.push(format!("{}/{}@{digest}", member.name.registry(), member.name.path()));
        }
        let (media_type, text) = document::list(&descriptors(&members));
        let body = json!({ "MediaType": media_type, "List": text, "Manifests": named });
        let query = Query::new().with_flag("insecure", self.is_insecure);
        let auth = credentials::of_registry(self.store.directory(), list.registry())?;
        let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
        let path = format!("/distribution/{}/list{query}", encode_segment(&list.to_string()));
        let pushed: Pushed = self.context.client.post_with(&path, &body, &fields).await?;
        for digest in pushed.manifests {
            let name = format!("{}/{}@{digest}", list.registry(), list.path());
            output::print_line(&format!("Pushed ref {name} with digest: {digest}"))?;
        }
        let signed = match &signer {
            Some(signer) => signer.sign(self.context, &list, &pushed.digest, self.is_insecure).await,
            None => Ok(Vec::new()),
        };
        for digest in signed.iter().flatten() {
            output::print_line(&format!("{}: signed: {digest}", list.tag().unwrap_or("latest")))?;
        }
        // The last line, for those who read it.
        output::print_line(&pushed.digest)?;
        signed.map_err(|failure| sign::after_push(&list, failure))?;
        if is_on(matches, "purge") {
            self.lists.remove(&list)?;
        }
        Ok(())
    }
}

/// What the engine says of a list that went.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pushed {
    digest: String,
    /// Those that came from other repositories.
    manifests: Vec<String>,
}

fn descriptors(members: &[Member]) -> Vec<&Map<String, Value>> {
    members.iter().map(|member| &member.descriptor).collect()
}
