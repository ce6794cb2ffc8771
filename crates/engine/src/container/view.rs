//! A container's root as the container sees it, by descriptor, whether it runs or not: for `cp`.
//!
//! Of one that runs it is the root of its process 1, in that process's mount namespace. Of one that does not, it is its
//! overlay with what would be mounted in it, on a mount of the engine's that nobody else sees. An overlay's upper directory
//! must not be mounted twice: all who look at a container at the same time share one view, and a start waits until
//! nobody has it any more.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use dozen_model::{ContainerId, VolumeName};
use dozen_runtime::{ViewedBind, ViewedSource};
use rustix::fs::{Mode, OFlags};

use crate::EngineError;
use crate::container::mounts::{self, Origin};
use crate::container::snapshot::{Phase, Run, Snapshot};
use crate::container::{Container, WaitCondition, files, upper};
use crate::engine::volumes_of;
use crate::failpoint::failpoint;
use crate::shared::Shared;
use crate::volumes::Visit;

/// How long a start waits for those who copy.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container's root. As long as it is held, it is that root.
#[derive(Debug)]
pub(crate) enum View {
    /// Root and mount namespace, without which the root would lose what is mounted in it when the container ends.
    Running {
        root: OwnedFd,
        _namespace: OwnedFd,
    },
    Stopped(Arc<Stopped>),
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Running { root, .. } => root.as_fd(),
            Self::Stopped(stopped) => stopped.root.as_ref().expect("it is taken only when nobody has it").as_fd(),
        }
    }
}

/// The root of a container that does not run.
#[derive(Debug)]
pub(crate) struct Stopped {
    root: Option<OwnedFd>,
    /// Its volumes, which nobody unmounts meanwhile.
    visits: Vec<Visit>,
    id: ContainerId,
    views: Arc<Views>,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.root.take());
        // Before a start that waits for us looks for them.
        self.visits.clear();
        self.views.lock().remove(&self.id);
        self.views.closed.notify_all();
    }
}

/// The roots of containers that do not run and are looked at.
#[derive(Debug, Default)]
pub(crate) struct Views {
    /// `None`: being mounted.
    open: Mutex<HashMap<ContainerId, Option<Weak<Stopped>>>>,
    closed: Condvar,
}

impl Views {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, Option<Weak<Stopped>>>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Returns once nobody looks at a container, whose phase has been published as starting before: from then on nobody
    /// begins to. Blocks.
    pub(crate) fn wait_until_closed(&self, snapshot: &Snapshot) -> Result<(), EngineError> {
        let (mut open, give_up) = (self.lock(), Instant::now() + PATIENCE);
        while open.contains_key(&snapshot.id) {
            let Some(left) = give_up.checked_duration_since(Instant::now()) else {
                return Err(EngineError::Conflict {
                    message: format!("cannot start container {}: it is being copied from or to", snapshot.name),
                    hint: Some("start it when the copying is over".into()),
                });
            };
            open = self.closed.wait_timeout(open, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        Ok(())
    }

    /// Whether somebody looks at a container that does not run.
    pub(crate) fn has(&self, id: &ContainerId) -> bool {
        self.lock().contains_key(id)
    }

    /// The view that there is, or one that `mount` makes while `is_at_rest`. Blocks.
    fn share(
        self: &Arc<Self>,
        id: &ContainerId,
        is_at_rest: impl Fn() -> bool,
        mount: impl FnOnce() -> Result<(OwnedFd, Vec<Visit>), EngineError>,
    ) -> Result<Option<Arc<Stopped>>, EngineError> {
        let mut open = self.lock();
        loop {
            match open.get(id) {
                Some(Some(known)) => {
                    if let Some(stopped) = known.upgrade() {
                        return Ok(Some(stopped));
                    }
                }
                Some(None) => {}
                None => break,
            }
            // Being mounted, or being unmounted.
            open = self.closed.wait(open).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        open.insert(id.clone(), None);
        drop(open);
        let mut stopped = Stopped { root: None, visits: Vec::new(), id: id.clone(), views: self.clone() };
        // Asked only now: a start that has not seen us is seen by us.
        if !is_at_rest() {
            return Ok(None);
        }
        let (root, visits) = mount()?;
        (stopped.root, stopped.visits) = (Some(root), visits);
        let stopped = Arc::new(stopped);
        self.lock().insert(id.clone(), Some(Arc::downgrade(&stopped)));
        self.closed.notify_all();
        Ok(Some(stopped))
    }
}

impl Container {
    /// Its root as it is now: one that starts or ends meanwhile is waited for.
    pub(crate) async fn view(&self) -> Result<View, EngineError> {
        loop {
            let snapshot = self.settled().await;
            let shared = self.shared.clone();
            match &snapshot.phase {
                Phase::Removing { .. } => return Err(self.is_going(&snapshot)),
                Phase::Running(run) => {
                    let (id, run) = (self.id.clone(), run.clone());
                    let ended = self.wait(WaitCondition::NotRunning);
                    if let Some(view) = self.shared.blocking(move || running(&id, &run)).await? {
                        return Ok(view);
                    }
                    // Its process has ended, and soon it is said so.
                    ended.wait().await;
                }
                _ => {
                    let seen = snapshot.clone();
                    let stopped = self.shared.blocking(move || {
                        let is_at_rest = || {
                            let entry = shared.registry.get(&seen.id);
                            entry.is_some_and(|entry| !is_busy(&entry.snapshot().phase))
                        };
                        shared.views.share(&seen.id, is_at_rest, || mount(&shared, &seen))
                    });
                    if let Some(stopped) = stopped.await? {
                        return Ok(View::Stopped(stopped));
                    }
                    if self.shared.registry.get(&self.id).is_none() {
                        return Err(self.is_going(&snapshot));
                    }
                }
            }
        }
    }

    fn is_going(&self, snapshot: &Snapshot) -> EngineError {
        EngineError::Conflict {
            message: format!("container {} is being removed: nothing is copied from or to it", snapshot.name),
            hint: None,
        }
    }
}

/// Somebody else has its upper directory, or takes it away.
fn is_busy(phase: &Phase) -> bool {
    matches!(phase, Phase::Starting { .. } | Phase::Running(_) | Phase::Removing { .. })
}

/// Root and mount namespace of a process that is the container's by its cgroup; `None` if it is gone. All of it is
/// looked up below one descriptor, which goes on meaning that process and no other with its number.
fn running(id: &ContainerId, run: &Run) -> Result<Option<View>, EngineError> {
    let path = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(process) = rustix::fs::open(format!("/proc/{}", run.pid), path | OFlags::DIRECTORY, Mode::empty()) else {
        return Ok(None);
    };
    let open = |name: &str, flags| rustix::fs::openat(&process, name, flags | OFlags::CLOEXEC, Mode::empty());
    let Ok(namespace) = open("ns/mnt", OFlags::RDONLY) else { return Ok(None) };
    let Ok(root) = open("root", OFlags::PATH | OFlags::DIRECTORY) else { return Ok(None) };
    let mut cgroups = String::new();
    let read = open("cgroup", OFlags::RDONLY).map(File::from);
    if !read.is_ok_and(|mut file| file.read_to_string(&mut cgroups).is_ok()) {
        return Ok(None);
    }
    let is_ours = cgroups.lines().any(|line| line.contains(id.as_str()));
    Ok(is_ours.then_some(View::Running { root, _namespace: namespace }))
}

fn mount(shared: &Shared, snapshot: &Snapshot) -> Result<(OwnedFd, Vec<Visit>), EngineError> {
    upper::check_is_there(snapshot)?;
    let spec = &snapshot.spec;
    let visit = |name: VolumeName| shared.volumes.visit(&shared.volumes.find(name.as_str())?);
    let visits = volumes_of(spec).map(visit).collect::<Result<Vec<_>, _>>()?;
    let origins = mounts::origins(shared, snapshot)?;
    let own = files::directory(shared, snapshot);
    let mut binds: Vec<ViewedBind> = files::BOUND
        .iter()
        .map(|(name, target)| (own.join(name), PathBuf::from(target)))
        // They are made by the first start.
        .filter(|(source, _)| source.exists())
        .map(|(source, target)| {
            let source = ViewedSource::Path(source);
            ViewedBind { source, part: None, owner: (None, None), target, read_only: false }
        })
        .collect();
    for (mount, origin) in spec.mounts.iter().zip(origins) {
        let places = mount.places();
        binds.retain(|bind| places.iter().all(|(target, _)| bind.target != *target));
        let source = match origin {
            Origin::Path(source) => ViewedSource::Path(source),
            Origin::Layers(layers) => ViewedSource::Layers(layers),
            // A tmpfs is empty whenever the container does not run.
            Origin::New => continue,
        };
        let owner = (mount.owner.user, mount.owner.group);
        binds.extend(places.into_iter().map(|(target, part)| ViewedBind {
            source: source.clone(),
            part,
            owner,
            target,
            read_only: mount.read_only,
        }));
    }
    binds.sort_by_key(|bind| bind.target.components().count());
    let lower = shared.lower_directories(spec)?;
    let (upper, work) = (snapshot.directory.join("upper"), snapshot.directory.join("work"));
    let root = dozen_runtime::view(&lower, &upper, &work, &binds, spec.isolation.read_only_root)?;
    failpoint("view.mounted");
    Ok((root, visits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> Result<(OwnedFd, Vec<Visit>), EngineError> {
        Ok((File::open("/dev/null").unwrap().into(), Vec::new()))
    }

    #[test]
    fn a_view_is_shared_and_gone_with_the_last_who_has_it() {
        let (views, id) = (Arc::new(Views::default()), ContainerId::random());
        let first = views.share(&id, || true, null).unwrap().unwrap();
        let second = views.share(&id, || true, || panic!("there is one")).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        drop(first);
        assert!(views.lock().contains_key(&id));
        drop(second);
        assert!(views.lock().is_empty());
    }

    #[test]
    fn what_starts_or_cannot_be_mounted_leaves_no_view() {
        let (views, id) = (Arc::new(Views::default()), ContainerId::random());
        assert!(views.share(&id, || false, || panic!("it starts")).unwrap().is_none());
        assert!(views.lock().is_empty());
        let failed = || Err(EngineError::ShuttingDown);
        assert!(views.share(&id, || true, failed).is_err());
        assert!(views.lock().is_empty());
    }
}
