//! What RUN mounts: where each comes from, and what it is for the container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_build::operation::{Mount as Asked, Origin, Run};
use dozen_dockerfile::{MountSpec, Owner, Sharing};
use dozen_model::{BindPropagation, BindRecursion, Mount, MountOwner, MountSource, TmpfsOptions};
use dozen_monitor::protocol::SecretEnvironment;

use super::agents::AgentSocket;
use super::caches::{self, Beginning, UsedCache};
use super::contexts::Taken;
use super::failure::StepError;
use super::graph::Graph;
use super::job::Job;
use super::step::part;
use super::variable;

/// Where secrets are, if nothing else is said (docs.docker.com/reference/dockerfile, "RUN --mount=type=secret").
const SECRETS: &str = "/run/secrets";

/// Where agents' sockets are, with their numbers, if nothing else is said, as BuildKit has it.
const AGENTS: &str = "/run/buildkit/ssh_agent";

/// Where the caller's certificate authorities are.
const AUTHORITIES: &str = "/run/dozen/ca-certificates.crt";
/// The variables by which programs are told of a file of certificate authorities: OpenSSL's, pip's, requests', curl's,
/// git's, cargo's; and node's, which adds it to its own.
const TRUSTING: [&str; 7] = [
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "NODE_EXTRA_CA_CERTS",
];

/// The variables of a command that is given certificate authorities.
pub(super) fn trust(job: &Job) -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_given = job.request.authorities.is_some();
    TRUSTING.into_iter().filter(move |_| is_given).map(|name| (name, AUTHORITIES))
}

/// What a step's container mounts, and what is to be held while it runs.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    pub(super) mounts: Vec<Mount>,
    caches: BTreeMap<String, UsedCache>,
    /// Secrets that are variables of the command, and of nobody else.
    pub(super) secret_environment: SecretEnvironment,
    /// Where the first agent's socket is: `SSH_AUTH_SOCK`.
    pub(super) agent: Option<String>,
    agents: Vec<AgentSocket>,
}

/// Looks everything up and unpacks what has to be.
pub(super) async fn prepare(job: &Arc<Job>, graph: &Graph, step: &Run) -> Result<Mounted, StepError> {
    let mut mounted = Mounted { caches: open_caches(job, graph, step).await?, ..Mounted::default() };
    let mut sockets = 0;
    for asked in &step.mounts {
        let spec = asked.spec();
        let (target, source, read_only) = match spec {
            MountSpec::Bind { target, is_writable, .. } => {
                let part = part(spec).trim_start_matches('/').to_owned();
                let source = match graph.taken(asked.origin().unwrap_or(&Origin::Context)).await {
                    Taken::Files(files) => {
                        let job = job.clone();
                        bind(job.shared.clone().blocking(move || job.unpack_part(&files, &part)).await?)
                    }
                    Taken::Layers(layers) => {
                        job.imported.bring(job, &layers).await?;
                        let subpath = (!part.is_empty()).then(|| PathBuf::from(&part));
                        // What is written goes with the build.
                        let scratch = match *is_writable {
                            true => {
                                let job = job.clone();
                                Some(job.shared.clone().blocking(move || job.site.scratch()).await?)
                            }
                            false => None,
                        };
                        MountSource::Layers { layers, subpath, scratch }
                    }
                };
                (target, source, !is_writable)
            }
            MountSpec::Cache { source: Some(source), from: None, .. } => {
                return Err(StepError::with_hint(
                    format!("a cache mount of a part of itself (source={source} without from=) is not built yet"),
                    "leave source= away, or say with from= what the cache begins with",
                ));
            }
            MountSpec::Cache { id, target, is_writable, .. } => {
                let name = beginning_of(graph, asked).await?.name(id.as_deref().unwrap_or(target));
                let cache = &mounted.caches[&name];
                (target, bind(cache.path.clone()), !is_writable)
            }
            MountSpec::Tmpfs { target, size_bytes } => {
                // As BuildKit mounts it: without noexec.
                let options =
                    TmpfsOptions { options: vec!["exec".into()], size_bytes: *size_bytes, mode: Some(0o1777) };
                (target, MountSource::Tmpfs(options), false)
            }
            MountSpec::Secret { id, target, env, is_required, owner } => {
                let Some(secret) = job.request.secrets.get(id) else {
                    if *is_required {
                        return Err(StepError::with_hint(
                            format!("secret {id}: not found"),
                            format!("give it to the build: --secret id={id},src=FILE"),
                        ));
                    }
                    continue;
                };
                if let Some(name) = env {
                    mounted.secret_environment.0.push(variable::of(id, name, secret)?);
                    if target.is_none() {
                        continue;
                    }
                }
                let Owner { mode, user, group } = *owner;
                let owner = (user.unwrap_or(0), group.unwrap_or(0));
                let (shared, job, secret, mode) = (&job.shared, job.clone(), secret.clone(), mode.unwrap_or(0o400));
                let made = move || job.site.secret(&secret.0, owner, mode);
                let path = shared.blocking(made).await?;
                mounted.push(target.clone().unwrap_or_else(|| format!("{SECRETS}/{id}")), bind(path), true);
                continue;
            }
            MountSpec::Ssh { id, target, is_required, owner } => {
                sockets += 1;
                let Some(agent) = job.request.agents.get(id) else {
                    if *is_required {
                        return Err(StepError::with_hint(
                            format!("no SSH key {id:?} forwarded from the client"),
                            format!("give the build your agent: --ssh {id}"),
                        ));
                    }
                    continue;
                };
                let target = target.clone().unwrap_or_else(|| format!("{AGENTS}.{}", sockets - 1));
                let owner_id = (owner.user.unwrap_or(0), owner.group.unwrap_or(0));
                let socket = job.site.agent(agent.clone(), owner_id, owner.mode.unwrap_or(0o600))?;
                mounted.push(target.clone(), bind(socket.path().to_owned()), true);
                mounted.agents.push(socket);
                mounted.agent.get_or_insert(target);
                continue;
            }
        };
        mounted.push(target.clone(), source, read_only);
    }
    if let Some(authorities) = &job.request.authorities {
        let (held, authorities) = (job.clone(), authorities.clone());
        let path = job.shared.blocking(move || held.site.secret(authorities.as_bytes(), (0, 0), 0o444)).await?;
        mounted.push(AUTHORITIES.to_owned(), bind(path), true);
    }
    if let Some(script) = &step.script {
        let (job, content) = (job.clone(), script.content.clone());
        let path = job.shared.clone().blocking(move || job.site.secret(content.as_bytes(), (0, 0), 0o755)).await?;
        mounted.push(script.path.clone(), bind(path), true);
    }
    Ok(mounted)
}

/// The caches of a step, by name: one that it mounts twice is the same, alone if it is so once. In the order of their names,
/// in which all steps wait for them: two of which each has what the other waits for would wait for ever.
async fn open_caches(job: &Arc<Job>, graph: &Graph, step: &Run) -> Result<BTreeMap<String, UsedCache>, StepError> {
    let mut wanted: BTreeMap<String, (&str, Sharing, Owner, Beginning)> = BTreeMap::new();
    for mount in &step.mounts {
        let MountSpec::Cache { id, target, sharing, owner, .. } = mount.spec() else { continue };
        let (name, beginning) = (id.as_deref().unwrap_or(target), beginning_of(graph, mount).await?);
        let known = wanted.entry(beginning.name(name)).or_insert((name, *sharing, *owner, beginning));
        if known.1 == Sharing::Shared || *sharing == Sharing::Locked {
            known.1 = *sharing;
        }
    }
    let mut caches = BTreeMap::new();
    for (whole, (name, sharing, owner, beginning)) in wanted {
        if let Beginning::Files { layers, .. } = &beginning {
            job.imported.bring(job, layers).await?;
        }
        caches.insert(whole, caches::open(&job.shared, name, sharing, owner, beginning).await?);
    }
    Ok(caches)
}

/// What a new cache begins with.
async fn beginning_of(graph: &Graph, mount: &Asked) -> Result<Beginning, StepError> {
    Ok(match mount.origin() {
        None => Beginning::Nothing,
        Some(origin) => match graph.taken(origin).await {
            Taken::Layers(layers) => Beginning::Files { layers, part: part(mount.spec()).trim_matches('/').to_owned() },
            Taken::Files(_) => {
                return Err(StepError::with_hint(
                    "a cache mount that begins with files of a named context is not built yet",
                    "let it begin with a stage that copies them: FROM scratch AS …, COPY --from=…",
                ));
            }
        },
    })
}

impl Mounted {
    /// These, and nothing that has to be held.
    pub(super) fn of(mounts: Vec<Mount>) -> Self {
        Self { mounts, ..Self::default() }
    }

    fn push(&mut self, target: String, source: MountSource, read_only: bool) {
        let (structured, owner, inherited) = (true, MountOwner::default(), false);
        // A later one of the same place takes it.
        self.mounts.retain(|mount| mount.target != Path::new(&target));
        self.mounts.push(Mount { target: target.into(), source, read_only, structured, owner, inherited });
    }
}

fn bind(path: PathBuf) -> MountSource {
    let (propagation, recursion) = (BindPropagation::default(), BindRecursion::default());
    MountSource::Bind { path, create_missing: false, propagation, recursion }
}
