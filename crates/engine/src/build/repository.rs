//! Repositories of git, for ADD and for contexts: which commit is meant, and its files. The host's git asks and fetches, in
//! a container (`sandbox`); what it leaves is an archive, which is read like any other context: nothing of a repository is
//! ever a file of the host's. Its submodules are fetched in the same way, one after the other, and stand in their places.

mod sandbox;
mod settings;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_build::context::Context;
use dozen_build::operation::{Copy, Source};
use dozen_build::repository::listing::{self, Chosen};
use dozen_build::repository::submodules::{Submodule, submodules};
use dozen_build::repository::{Location, Repository, RepositoryError, Scheme, is_commit};
use dozen_image::beneath;
use dozen_model::error_chain;
use dozen_monitor::protocol::SecretEnvironment;
use rustix::fs::{CWD, FileType, Mode, OFlags};

use self::sandbox::{Errand, Ran};
use self::settings::Settings;
use super::failure::StepError;
use super::job::Job;
use super::remote;
use crate::EngineError;

/// Submodules of submodules and so on, all together.
const MOST_SUBMODULES: usize = 256;
/// The largest `.gitmodules`.
const LARGEST_CONFIGURATION_BYTES: u64 = 1 << 20;

/// A repository, and the commit of it that is meant.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) repository: Repository,
    pub(super) chosen: Chosen,
}

/// The files of a commit.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) files: Context,
    /// What of them is meant: a clean path, empty for all.
    pub(super) directory: String,
}

/// Which commits an instruction means, by asking their servers; in order.
pub(super) async fn resolve_all(job: &Arc<Job>, copy: &Copy) -> Result<Vec<Resolved>, StepError> {
    let mut all = Vec::new();
    for source in &copy.sources {
        let Source::Git(text) = source else { continue };
        let repository = Repository::parse(text).map_err(refused)?;
        let checksum = copy.add.as_ref().and_then(|add| add.checksum.as_deref());
        all.push(resolve(job, repository, checksum).await?);
    }
    Ok(all)
}

/// What no name of a repository is.
pub(super) fn refused(error: RepositoryError) -> StepError {
    let message = format!("cannot fetch the repository: {error}");
    match error.hint() {
        Some(hint) => StepError::with_hint(message, hint),
        None => StepError::said(message),
    }
}

/// Which commit is meant. `checksum`: what it has to be besides, or the beginning of that.
pub(super) async fn resolve(
    job: &Arc<Job>,
    repository: Repository,
    checksum: Option<&str>,
) -> Result<Resolved, StepError> {
    let wanted = repository.reference.as_deref();
    let expected: Vec<String> =
        repository.commit.iter().cloned().chain(checksum.map(str::to_ascii_lowercase)).collect();
    let chosen = match wanted.and_then(Chosen::by_number) {
        Some(chosen) => chosen,
        None => {
            let location = &repository.location;
            let is_pinned = expected.iter().any(|commit| is_commit(commit));
            let errand = errand(job, location, &location.host, is_pinned, settings::LIST).await?;
            let ran = sandbox::run(job, Errand { arguments: listing::patterns(wanted), ..errand }).await?;
            if !ran.is_well {
                return Err(failed(location, &ran));
            }
            listing::choose(&String::from_utf8_lossy(&ran.output), wanted).ok_or_else(|| {
                let wanted = wanted.unwrap_or("HEAD");
                StepError::with_hint(
                    format!("repository does not contain ref {wanted}: {location}"),
                    "it is a branch, a tag, a reference in full (refs/pull/1/head), or all 40 digits of a commit",
                )
            })?
        }
    };
    let is = |expected: &str| chosen.commit.starts_with(expected) || chosen.object.starts_with(expected);
    if let Some(other) = expected.iter().find(|expected| !is(expected)) {
        return Err(StepError::with_hint(
            format!("expected checksum to match {other}, got {}", chosen.commit),
            "what is promised is not what is there now",
        ));
    }
    Ok(Resolved { repository, chosen })
}

/// Fetches a commit with its submodules. `keep`: with `.git`, unless only a part is meant, as with BuildKit.
pub(super) async fn fetch(job: &Arc<Job>, resolved: Resolved, keep: bool) -> Result<Checkout, StepError> {
    let Resolved { repository, chosen } = resolved;
    let keep = repository.keep_git_directory.unwrap_or(keep) && repository.directory.is_empty();
    let whole = Wanted {
        place: Vec::new(),
        location: repository.location.clone(),
        chosen: chosen.clone(),
        has_submodules: repository.submodules,
        keep,
        trusted_host: repository.location.host.clone(),
    };
    let mut parts = Vec::new();
    let mut waiting = VecDeque::from([whole]);
    let mut left = MOST_SUBMODULES;
    while let Some(wanted) = waiting.pop_front() {
        let Fetched { archive, git_directory, submodules } = fetch_one(job, &wanted).await?;
        parts.push((wanted.place.clone(), archive));
        parts.extend(git_directory.map(|git_directory| (b".git".to_vec(), git_directory)));
        left = left.checked_sub(submodules.len()).ok_or_else(|| {
            StepError::said(format!("{} has more than {MOST_SUBMODULES} submodules", repository.location))
        })?;
        waiting.extend(submodules.into_iter().map(|Submodule { path, location, commit }| Wanted {
            place: if wanted.place.is_empty() { path } else { [wanted.place.as_slice(), &path].join(&b'/') },
            location,
            chosen: Chosen { name: None, object: commit.clone(), commit },
            has_submodules: true,
            keep: false,
            trusted_host: wanted.trusted_host.clone(),
        }));
    }
    let (site, directory) = (job.clone(), repository.directory.clone());
    let read = move || {
        let spool = site.site.nameless_file()?;
        let files = Context::read_parts(parts, spool).map_err(super::context_failed)?;
        let is_there = files.below(&directory).map_err(super::context_failed)?.is_some();
        Ok((files, is_there))
    };
    let (files, is_there) = job.shared.blocking(read).await?;
    let directory = repository.directory;
    if !is_there {
        return Err(StepError::said(format!(
            "failed to open subdir {directory}: {} has no such directory at {}",
            repository.location, chosen.commit
        )));
    }
    Ok(Checkout { files, directory })
}

/// A commit that is to be fetched, and where it goes.
struct Wanted {
    place: Vec<u8>,
    location: Location,
    chosen: Chosen,
    has_submodules: bool,
    keep: bool,
    /// Who may hear of a secret that is for no named host: not whoever a submodule comes from.
    trusted_host: String,
}

/// What came of it: files that nobody else has.
struct Fetched {
    archive: File,
    git_directory: Option<File>,
    submodules: Vec<Submodule>,
}

async fn fetch_one(job: &Arc<Job>, wanted: &Wanted) -> Result<Fetched, StepError> {
    let (mut ran, mut directory) = attempt(job, wanted, false).await?;
    if !ran.is_well && settings::wants_whole(&ran.errors) {
        let first = directory;
        job.shared.blocking(move || clear(&first)).await?;
        (ran, directory) = attempt(job, wanted, true).await?;
    }
    if !ran.is_well {
        return Err(failed(&wanted.location, &ran));
    }
    let (held, location, keep) = (job.clone(), wanted.location.clone(), wanted.keep);
    let taken = move || {
        let taken = take(&held, &directory, &location, keep);
        clear(&directory)?;
        Ok(taken)
    };
    job.shared.blocking(taken).await?
}

/// What git has left takes no room any more. Blocks.
fn clear(directory: &Path) -> Result<(), EngineError> {
    dozen_image::remove_tree(directory).map_err(|error| EngineError::System {
        action: format!("remove {}", directory.display()),
        source: io::Error::other(error_chain(&error)),
    })
}

/// Into a new directory.
async fn attempt(job: &Arc<Job>, wanted: &Wanted, whole: bool) -> Result<(Ran, PathBuf), StepError> {
    let Wanted { location, chosen, has_submodules, keep, trusted_host, .. } = wanted;
    let held = job.clone();
    let directory = job.shared.blocking(move || held.site.directory()).await?;
    // The commit's number is what is asked for.
    let errand = errand(job, location, trusted_host, true, settings::FETCH).await?;
    let flag = |is_on: bool| if is_on { "1".to_owned() } else { String::new() };
    let format = if chosen.commit.len() == 64 { "sha256" } else { "" };
    let variables = [
        ("OBJECT", chosen.object.clone()),
        ("COMMIT", chosen.commit.clone()),
        ("NAME", chosen.name.clone().unwrap_or_default()),
        ("FORMAT", format.to_owned()),
        ("WHOLE", flag(whole)),
        ("SUBMODULES", flag(*has_submodules)),
        ("KEEP", flag(*keep)),
        ("ORIGIN", location.url()),
    ];
    let variables = errand.variables.into_iter().chain(variables).collect();
    let ran = sandbox::run(job, Errand { variables, directory: Some(directory.clone()), ..errand }).await?;
    Ok((ran, directory))
}

/// What every errand to a server has.
async fn errand(
    job: &Arc<Job>,
    location: &Location,
    trusted_host: &str,
    is_pinned: bool,
    script: &'static str,
) -> Result<Errand, StepError> {
    let held = job.clone();
    let (programs, authorities) = job.shared.blocking(move || Ok((sandbox::find_git(), authorities(&held)?))).await?;
    let programs = programs?;
    remote::check_host(job, location).await?;
    let settings = Settings {
        location,
        is_pinned,
        authorization: authorization(job, location, trusted_host)?,
        has_authorities: !authorities.is_empty(),
    };
    let secrets = SecretEnvironment(remote::proxies(job).variables());
    let variables = vec![("LOCATION", location.url())];
    Ok(Errand {
        script,
        programs,
        variables,
        secrets,
        configuration: settings.text(),
        authorities,
        ..Errand::default()
    })
}

/// Those of the host and of the caller, in PEM. Blocks.
fn authorities(job: &Job) -> Result<Vec<u8>, EngineError> {
    let unusable = |error| EngineError::Invalid { message: error_chain(&error), hint: None };
    let mut all = dozen_fetch::certificates_of_host().map_err(unusable)?;
    if let Some(more) = &job.request.authorities {
        all.push(b'\n');
        all.extend(more.as_bytes());
    }
    Ok(all)
}

/// What a server is told of who asks: the URL's own name and password, or the secrets that BuildKit knows
/// (docs.docker.com/build/building/secrets, "Git authentication for remote contexts").
fn authorization(job: &Job, location: &Location, trusted_host: &str) -> Result<Option<String>, StepError> {
    if location.scheme == Scheme::Git {
        return Ok(None);
    }
    if let Some(credentials) = &location.credentials {
        return Ok(Some(settings::basic(credentials)));
    }
    let host = &location.host;
    for (id, is_token) in [
        (format!("GIT_AUTH_HEADER.{host}"), false),
        (format!("GIT_AUTH_TOKEN.{host}"), true),
        ("GIT_AUTH_HEADER".to_owned(), false),
        ("GIT_AUTH_TOKEN".to_owned(), true),
    ] {
        let Some(secret) = job.request.secrets.get(&id).filter(|_| id.contains('.') || host == trusted_host) else {
            continue;
        };
        let value = std::str::from_utf8(&secret.0).map(str::trim).ok().filter(|it| !it.contains(char::is_control));
        let Some(value) = value else {
            return Err(StepError::said(format!("secret {id}: it is not a line of text")));
        };
        let header = if is_token { settings::basic(&format!("x-access-token:{value}")) } else { value.to_owned() };
        return Ok(Some(header));
    }
    Ok(None)
}

fn failed(location: &Location, ran: &Ran) -> StepError {
    let message = format!("failed to fetch remote {location}: {}", settings::reason(&ran.errors));
    match settings::hint(&ran.errors) {
        Some(hint) => StepError::with_hint(message, hint),
        None => StepError::said(message),
    }
}

/// Takes over what git has left. Nobody writes to it any more, and it may be anything all the same. Blocks.
fn take(job: &Job, directory: &Path, location: &Location, keep: bool) -> Result<Fetched, StepError> {
    let unreadable = |source| EngineError::System { action: format!("read {}", directory.display()), source };
    let archive = left(directory, "archive.tar").map_err(unreadable)?;
    let archive = archive.ok_or_else(|| StepError::said(format!("git has made no archive of {location}")))?;
    let mut found = Vec::new();
    if let (Some(modules), Some(tree)) =
        (left(directory, "modules").map_err(unreadable)?, left(directory, "tree").map_err(unreadable)?)
    {
        let mut configuration = Vec::new();
        modules.take(LARGEST_CONFIGURATION_BYTES).read_to_end(&mut configuration).map_err(unreadable)?;
        let links = links(tree).map_err(unreadable)?;
        found = submodules(&configuration, &links, location).map_err(|error| {
            StepError::said(format!("failed to update submodules for {location}: {}", error_chain(&error)))
        })?;
    }
    let git_directory = if keep { Some(git_directory(job, directory)?) } else { None };
    Ok(Fetched { archive, git_directory, submodules: found })
}

/// A file that git has written; a link or a pipe in its place is none.
fn left(directory: &Path, name: &str) -> io::Result<Option<File>> {
    let opened = rustix::fs::openat(CWD, directory, beneath::DIRECTORY, Mode::empty())?;
    let is_file = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
    match beneath::stat(opened.as_fd(), name.as_bytes())? {
        Some(found) if is_file(found.st_mode) => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            Ok(Some(File::from(beneath::open_no_links(opened.as_fd(), name.as_bytes(), flags)?)))
        }
        _ => Ok(None),
    }
}

/// Of a listing of a tree, which has a line for each file, those that are commits of other repositories.
fn links(tree: File) -> io::Result<Vec<u8>> {
    let mut links = Vec::new();
    for (count, entry) in BufReader::new(tree).split(0).enumerate() {
        let entry = entry?;
        if entry.starts_with(b"160000 ") {
            links.extend(entry);
            links.push(0);
        }
        if count > MOST_ENTRIES || links.len() > MOST_LINKS_BYTES {
            return Err(io::Error::other("there is too much in the tree"));
        }
    }
    Ok(links)
}

const MOST_ENTRIES: usize = 4_000_000;
const MOST_LINKS_BYTES: usize = 4 << 20;

/// `.git` as an archive.
fn git_directory(job: &Job, directory: &Path) -> Result<File, StepError> {
    let path = directory.join(".git");
    let found = path.symlink_metadata().map_err(EngineError::system(|| format!("look at {}", path.display())))?;
    if !found.is_dir() {
        return Err(StepError::said("git has made no directory .git"));
    }
    let mut file = job.site.nameless_file()?;
    dozen_image::export_directory(&path, &mut file)?;
    file.rewind().map_err(EngineError::system(|| "read what git has made".into()))?;
    Ok(file)
}
