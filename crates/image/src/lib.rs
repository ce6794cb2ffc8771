//! Images: the content store, unpacked layers, names; load, save, commit; what may be deleted.
//!
//! Below the data root, `layers/` holds each layer unpacked once, in the form an overlay stacks, and `content/sha256/`
//! (also of what has a digest by sha512: such a name has 128 digits) configurations and for each layer what `save` reproduces it with to the byte: its [`recipe`], or its blob as it came
//! where a recipe could not give it (compressed ones, and those in which entries replace others); and what else an image
//! came with, other platforms and artifacts among it (`target`); and artifacts that have names of their own (`artifact`).
//! `tmp/` is for what is not finished. The ledger's rows own the files ([`MIGRATION`], [`RECIPES`], [`TARGETS`],
//! [`ARTIFACTS`]).
//!
//! An archive is hostile until proven: it is parsed by `tarball`, extracted by `extract` beneath a directory
//! descriptor, and bounded in every direction; all digests are verified before a row is written. The bounds: 100,000
//! files in an archive and 16 MiB of their names, 1000 images with 10,000 names, 500 layers in an image and 50,000 in all,
//! 2,000,000 entries in a layer and directories that they imply, 4 MiB for a manifest or configuration and 16 MiB for all configurations, 1 MiB for the
//! names and attributes of one entry, 4095 bytes for a path. What is compressed may swell to 1 GiB, or to 200 times its
//! size if that is more, and all layers of an archive together to as much of the archive's (`budget`); the holes
//! of sparse files, which take nothing of the disk, are 16 TiB in a layer at the most; a zstd window is 32 MiB at the most. Thus a load takes less than 64 MiB of memory whatever it is given: JSON is weighed before it is
//! parsed (`document`). `tests/hostile` holds all this against archives that were made to get by.
//! What lies on the disk is hostile too, once a container has been there: `tree` walks it and removes it.

mod adopt;
pub mod archive;
mod arrival;
mod artifact;
mod attested;
pub mod beneath;
mod budget;
mod build_cache;
mod change;
mod chunks;
mod collect;
mod commit;
mod compression;
mod copy_up;
mod difference;
mod digesting;
mod directory;
mod error;
mod export;
mod extract;
mod failpoint;
mod find;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hashing;
mod history;
mod image;
mod import;
mod install;
mod inventory;
mod leftovers;
mod live;
mod load;
mod manifest;
mod mend;
mod names;
mod new_layer;
mod outgoing;
mod pack;
mod pins;
mod places;
mod platform;
mod recipe;
mod recording;
mod remove;
mod save;
mod schema;
mod scratch;
mod select;
mod single;
mod snapshot;
mod space;
mod state;
mod store;
mod stored_layer;
mod tarball;
mod target;
#[cfg(test)]
mod tests;
mod tree;
mod union;
mod unpack;
mod unreadable;
mod uses;

pub use adopt::Taken;
pub use arrival::{Arrival, DOCUMENT_BYTES, Kept, LayersBudget, Needed, NeededLayer};
pub use artifact::{
    ARTIFACTS, AddedFiles, AdditionTo, Artifact, ArtifactAddition, ArtifactBlob, ArtifactDocument, ArtifactFile,
    ArtifactUsage, MANIFEST_BYTES, NameTaken, NewArtifact, NewDocument, OutgoingArtifact, Selection, Subject,
};
pub use attested::Attestation;
pub use build_cache::{BUILD_CACHE, CachedStep, HeldLayers, KeptStep, StepLayer};
pub use commit::CommitRequest;
pub use copy_up::{PlaceInImage, pour};
pub use difference::ChangeKind;
pub use directory::{export_directory, import_directory};
pub use error::ImageError;
pub use failpoint::{FAILPOINTS, TRANSFER_FAILPOINTS};
pub use history::HistoryEntry;
pub use image::{Image, ImageConfig, ImageConfiguration};
pub use import::ImportRequest;
pub use inventory::{Inventory, InventoryImage};
pub use live::{CopyIn, LiveError, LivePath, Owner, PathStat, copy_in, copy_out, path_stat};
pub use load::{Loaded, Progress, ProgressEvent};
pub use manifest::{ManifestKind, ManifestSummary};
pub use new_layer::{LayerEntry, LayerEntryKind, LayerWriter, NewLayer};
pub use outgoing::{
    LayerForm, Outgoing, OutgoingBlob, OutgoingBlobs, OutgoingManifest, OutgoingPart, Packing, Recompression,
};
pub use places::{LayerBlob, LayerPlace, PLACES};
pub use platform::{Platform, PlatformError};
pub use remove::{Removal, SeenImage, Use};
pub use schema::{MIGRATION, MIGRATIONS, RECIPES, SUMS, TARGETS};
pub use snapshot::{can_share_blocks, share_directory};
pub use store::{DiskUsage, ImageStore, ImageUsage};
pub use tree::{NotRemoved, bytes_beside, disk_bytes, remove_tree, written_bytes};
pub use uses::{USES, write_use};
