//! A build's places on the disk: what came with it, what is unpacked for a mount, and, on the run root, its secrets. All
//! of it goes with the build; what a dead engine has left goes at the next start.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use dozen_model::{ContainerId, Digest, error_chain};

use super::agents::{AgentSocket, SshAgent};
use crate::EngineError;
use crate::failpoint::failpoint;
use crate::shared::Shared;

/// Below the data root and below the run root.
const NAME: &str = "builds";

/// See the module.
#[derive(Debug)]
pub(crate) struct Site {
    data: PathBuf,
    run: PathBuf,
    made: AtomicUsize,
}

impl Site {
    /// Makes the directories. Blocks.
    pub(crate) fn new(shared: &Shared) -> Result<Self, EngineError> {
        let id = ContainerId::random();
        let place = |root: &Path| root.join(NAME).join(id.short());
        let config = &shared.config;
        let site = Self { data: place(&config.data_root), run: place(&config.run_root), made: AtomicUsize::new(0) };
        for directory in [&site.data, &site.run] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(EngineError::system(|| format!("make the directory {}", directory.display())))?;
            failpoint("build.site.made");
        }
        Ok(site)
    }

    /// A file that only its descriptor leads to. Blocks.
    pub(crate) fn nameless_file(&self) -> Result<File, EngineError> {
        let flags = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).expect("flags are an int");
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o600).open(&self.data);
        opened.map_err(EngineError::system(|| format!("make a file in {}", self.data.display())))
    }

    /// A new directory on the data root: 0755, root's. Blocks.
    pub(crate) fn directory(&self) -> Result<PathBuf, EngineError> {
        let path = self.data.join(self.number());
        let made = DirBuilder::new().mode(0o755).create(&path);
        made.map_err(EngineError::system(|| format!("make the directory {}", path.display())))?;
        failpoint("build.site.directory");
        Ok(path)
    }

    /// A new directory on the data root for what is written above layers: with `upper` and `work` in it. Blocks.
    pub(crate) fn scratch(&self) -> Result<PathBuf, EngineError> {
        let path = self.directory()?;
        for name in ["upper", "work"] {
            let made = DirBuilder::new().mode(0o755).create(path.join(name));
            made.map_err(EngineError::system(|| format!("make the directory {}", path.join(name).display())))?;
        }
        Ok(path)
    }

    /// A new file on the run root with these contents, for these eyes only. Blocks.
    pub(crate) fn secret(&self, contents: &[u8], owner: (u32, u32), mode: u32) -> Result<PathBuf, EngineError> {
        let path = self.run.join(self.number());
        let failed = || format!("write a file in {}", self.run.display());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(contents)?;
            std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        });
        written.map_err(EngineError::system(failed))?;
        failpoint("build.site.secret");
        Ok(path)
    }

    /// A new socket on the run root, behind which an agent is.
    pub(super) fn agent(&self, agent: SshAgent, owner: (u32, u32), mode: u32) -> Result<AgentSocket, EngineError> {
        let socket = AgentSocket::new(&self.run, &self.number(), agent, owner, mode);
        socket.map_err(EngineError::system(|| format!("make a socket in {}", self.run.display())))
    }

    /// The root that layers make, on a mount that nobody else sees and nobody can write to. Blocks.
    pub(crate) fn root_of(&self, shared: &Shared, layers: &[Digest]) -> Result<OwnedFd, EngineError> {
        let mut lower = shared.images.directories_of(layers)?;
        // An overlay that nobody writes to has two of them at least.
        while lower.len() < 2 {
            lower.push(self.directory()?);
        }
        Ok(dozen_runtime::overlay::mount_detached(&lower, None)?)
    }

    /// Takes the secrets away. Blocks.
    pub(crate) fn clear_secrets(&self) {
        clear(&self.run);
    }

    fn number(&self) -> String {
        self.made.fetch_add(1, Ordering::Relaxed).to_string()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        clear(&self.run);
        clear(&self.data);
    }
}

fn clear(directory: &Path) {
    failpoint("build.site.clear");
    if let Err(error) = dozen_image::remove_tree(directory) {
        let error = error_chain(&error);
        tracing::warn!(path = %directory.display(), error, "cannot delete; the next start tries again");
    }
    failpoint("build.site.cleared");
}

/// Where sites are, for who takes away what a dead engine has left.
pub(crate) fn places(data_root: &Path, run_root: &Path) -> [PathBuf; 2] {
    [data_root.join(NAME), run_root.join(NAME)]
}
