//! The engine's end of the keeper: started when it is first needed, watched, and replaced when it has died.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use dozen_keeper::{Keeper, KeeperError, NameFailure, PortFailure, PortReservation, Snapshot};
use dozen_names::Zones;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::failpoint::failpoint;

/// How often a request that a dying keeper did not answer is made of a new one.
const RETRIES: u32 = 2;
/// A keeper that died sooner than this after its start is not replaced at once: something is wrong with it.
const SHORT_LIFE: Duration = Duration::from_millis(100);
/// Between attempts to replace one.
const PAUSE: Duration = Duration::from_secs(1);

/// One engine's keeper. Clones share it. All calls block.
#[derive(Clone)]
pub(crate) struct KeeperLink(Arc<Inner>);

struct Inner {
    program: PathBuf,
    run_root: PathBuf,
    /// Where it lives.
    cgroup: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With a number of its own, so that news of an earlier one's death is told from this one's.
    keeper: Option<(u64, Keeper)>,
    keepers_so_far: u64,
    /// What it holds, and what a new one is given: all ports, and our own copies of the API's sockets.
    wanted: Snapshot,
    listeners: BTreeMap<PathBuf, OwnedFd>,
    /// It was told to end.
    retired: bool,
}

impl KeeperLink {
    pub(crate) fn new(program: PathBuf, run_root: PathBuf, cgroup: String) -> Self {
        Self(Arc::new(Inner { program, run_root, cgroup, state: Mutex::default() }))
    }

    /// A socket of the API's, listening in the keeper, for root and this group.
    pub(crate) fn listener(&self, path: &Path, group: Option<u32>) -> Result<OwnedFd, KeeperError> {
        let mut state = self.0.lock();
        let listener = self.0.ask(&mut state, |keeper, _| keeper.listener(path, 0o660, group))?;
        // A keeper that has had it from an earlier engine left it the group that it had.
        let group = group.unwrap_or_else(|| rustix::process::getegid().as_raw());
        if let Err(error) = std::os::unix::fs::lchown(path, None, Some(group)) {
            tracing::warn!(%error, "cannot give {} to group {group}", path.display());
        }
        match listener.try_clone() {
            Ok(copy) => drop(state.listeners.insert(path.to_owned(), copy)),
            Err(error) => tracing::warn!(%error, "cannot keep a copy of the API's socket for the next keeper"),
        }
        Ok(listener)
    }

    /// Has it hold these ports and no others. Answers those that could not be had.
    pub(crate) fn hold(&self, ports: Vec<PortReservation>) -> Result<Vec<PortFailure>, KeeperError> {
        let mut state = self.0.lock();
        state.wanted.ports = ports;
        self.0.ask(&mut state, |keeper, state| keeper.apply(&state.wanted))
    }

    /// Has it answer for these names and no others. Answers the containers that cannot ask.
    pub(crate) fn name(&self, zones: &Zones) -> Result<Vec<NameFailure>, KeeperError> {
        let mut state = self.0.lock();
        self.0.ask(&mut state, |keeper, _| keeper.name(zones))
    }

    /// Whether an engine has told it any names, this one or one before it.
    pub(crate) fn has_names(&self) -> bool {
        Keeper::has_names(&self.0.run_root)
    }

    /// Ends it.
    pub(crate) fn retire(&self) -> Result<(), KeeperError> {
        let mut state = self.0.lock();
        let ended = self.0.ask(&mut state, |keeper, _| keeper.clone().shutdown());
        // Who watches it finds that its end was wanted.
        (state.keeper, state.retired) = (None, true);
        ended
    }
}

impl Inner {
    /// Makes a request; if the keeper turns out to be dead, of a new one. One that hangs is killed first: it holds the
    /// ports and the API's socket, and whoever comes to `[::1]` waits for it in vain.
    fn ask<T>(
        self: &Arc<Self>,
        state: &mut State,
        request: impl Fn(&Keeper, &State) -> Result<T, KeeperError>,
    ) -> Result<T, KeeperError> {
        let mut retries_left = RETRIES;
        loop {
            match self.keeper(state).and_then(|keeper| request(&keeper, state)) {
                Err(KeeperError::Talk { .. } | KeeperError::NotReady { .. }) if retries_left > 0 => {
                    retries_left -= 1;
                    state.keeper = None;
                }
                Err(hangs @ KeeperError::Hangs { .. }) if retries_left > 0 => {
                    tracing::error!("{hangs}: it is killed, and another takes its place");
                    retries_left -= 1;
                    state.keeper = None;
                    failpoint("keeper.hangs");
                    Keeper::kill(&self.run_root)?;
                    failpoint("keeper.killed");
                }
                other => return other,
            }
        }
    }

    fn keeper(self: &Arc<Self>, state: &mut State) -> Result<Keeper, KeeperError> {
        if let Some((_, keeper)) = &state.keeper {
            return Ok(keeper.clone());
        }
        let keeper = Keeper::connect_or_spawn(&self.program, &self.run_root, Some(&self.cgroup))?;
        failpoint("keeper.spawned");
        if !keeper.runs(&self.program) {
            self.upgrade(&keeper)?;
        }
        match keeper.settle(&self.cgroup) {
            Ok(true) => failpoint("keeper.settled"),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                error = dozen_model::error_chain(&error),
                "the keeper stays in the cgroup of whoever started it, and ends with that"
            ),
        }
        for (path, listener) in &state.listeners {
            keeper.adopt(path, listener.as_fd())?;
        }
        state.keepers_so_far += 1;
        state.keeper = Some((state.keepers_so_far, keeper.clone()));
        self.watch(&keeper, state.keepers_so_far);
        Ok(keeper)
    }

    /// The keeper is of another build than this engine: has it become this one's.
    fn upgrade(&self, keeper: &Keeper) -> Result<(), KeeperError> {
        let upgraded = keeper.upgrade(&self.program);
        failpoint("keeper.upgraded");
        match upgraded {
            Ok(()) => tracing::info!("the keeper of another build has become this one's"),
            // It is killed and replaced, as one that died of it is.
            Err(error @ KeeperError::Hangs { .. }) => return Err(error),
            Err(error) if !keeper.is_alive() => return Err(error),
            Err(error) => {
                let error = dozen_model::error_chain(&error);
                tracing::warn!(error, "the keeper of another build cannot become this one's, and goes on as it is");
            }
        }
        Ok(())
    }

    /// Waits in a thread of its own for the keeper's end, so that published ports are held again and `[::1]` answers
    /// without anyone having asked.
    fn watch(self: &Arc<Self>, keeper: &Keeper, number: u64) {
        let (link, process, begun) = (Arc::downgrade(self), keeper.process(), Instant::now());
        let watch = move || {
            // Without a process it is dead already.
            if let Some(process) = process {
                let mut ended = [PollFd::new(&process, PollFlags::IN)];
                while rustix::event::poll(&mut ended, None) == Err(Errno::INTR) {}
            }
            if begun.elapsed() < SHORT_LIFE {
                std::thread::sleep(PAUSE);
            }
            while let Some(link) = link.upgrade() {
                match link.replace(number) {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(error = dozen_model::error_chain(&error), "cannot replace the keeper");
                    }
                }
                drop(link);
                std::thread::sleep(PAUSE);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("keeper-watch".into()).spawn(watch) {
            tracing::error!(%error, "cannot watch the keeper: should it die, the next request finds out");
        }
    }

    /// This keeper has died. Gives all that it held to a new one, unless that has been done, or the end was wanted.
    fn replace(self: &Arc<Self>, number: u64) -> Result<(), KeeperError> {
        let mut state = self.lock();
        match &state.keeper {
            Some((present, _)) if *present == number => {
                tracing::warn!("the keeper has died: starting another");
                state.keeper = None;
            }
            // An attempt before this one got no further.
            None if state.keepers_so_far == number && !state.retired => {}
            _ => return Ok(()),
        }
        for failure in self.ask(&mut state, |keeper, state| keeper.apply(&state.wanted))? {
            tracing::error!(
                container = failure.container_id,
                "port {}:{} was taken by another program while the keeper was dead",
                failure.host_address,
                failure.host_port
            );
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
