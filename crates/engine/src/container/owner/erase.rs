//! The last of a container. Blocking.

use dozen_model::{Classified, ErrorKind, MountSource, VolumeName, error_chain};
use jiff::Timestamp;

use crate::EngineError;
use crate::container::snapshot::Snapshot;
use crate::engine::images_of;
use crate::events::EventKind;
use crate::failpoint::failpoint;
use crate::rows;
use crate::shared::Shared;
use crate::volumes::{Claim, remove_tree, warn_and_go_on};

/// The row, with those of its own volumes, and then the files: a crash in between leaves garbage, which the next start
/// collects, and never a container without its files.
///
/// Of the volumes, which are claimed, those go along that no other container has.
pub(super) fn erase(
    shared: &Shared,
    snapshot: &Snapshot,
    volumes: Vec<VolumeName>,
    claim: Claim,
) -> Result<(), EngineError> {
    failpoint("erase.before");
    // One of which somebody has made snapshots is not thrown away with them.
    let only_its_own = |name: &VolumeName| {
        shared.volume_users(name).iter().all(|user| *user == snapshot.id)
            && shared.volumes.check_no_snapshots(name).is_ok()
    };
    let orphans: Vec<VolumeName> = volumes.into_iter().filter(only_its_own).collect();
    let (images, now_s): (Vec<_>, _) = (images_of(&snapshot.spec).cloned().collect(), Timestamp::now().as_second());
    let used = || (images.clone(), now_s);
    let delete = || rows::delete_container(&shared.ledger, snapshot.id.clone(), orphans.clone(), used());
    if let Err(error) = delete() {
        // The reserve is used up, too: what is to go anyway makes room.
        if error.kind() != ErrorKind::Exhausted {
            return Err(error.into());
        }
        let (what, path) = ("not all of a container's files can be deleted", &snapshot.directory);
        warn_and_go_on(what, path, remove_tree(path));
        delete()?;
    }
    failpoint("erase.row");
    images.iter().for_each(|image| shared.images.note_use_in_memory(image, now_s));
    shared.registry.remove(&snapshot.id);
    shared.volumes.forget(&orphans);
    for name in &orphans {
        shared.emit(EventKind::Volume, "destroy", name.to_string(), [("driver".into(), "local".into())].into());
    }
    drop(claim);
    for directory in [&snapshot.directory, &shared.run_directory(&snapshot.id)] {
        warn_and_go_on(
            "cannot delete a container's files; the next start tries again",
            directory,
            remove_tree(directory),
        );
        failpoint("erase.files");
    }
    // An image that was removed by force while this container had it can go now.
    if let Err(error) = shared.images.collect(&|image| shared.image_user(image)) {
        tracing::error!(error = error_chain(&error), "cannot collect removed images");
    }
    Ok(())
}

/// The volumes that were made for this container alone.
pub(super) fn anonymous_volumes(snapshot: &Snapshot) -> Vec<VolumeName> {
    let name = |source: &MountSource| match source {
        MountSource::Volume { name, anonymous: true, .. } => Some(name.clone()),
        _ => None,
    };
    snapshot.spec.mounts.iter().filter_map(|mount| name(&mount.source)).collect()
}
