//! Layers that are made here, of files that come into an image or of what a container has changed, and images of them.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use dozen_model::{Digest, ImageId, Reference};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::ImageError;
use crate::chunks::Pool;
use crate::install::{NewImage, Staged};
use crate::manifest::LAYERS_LIMIT;
use crate::names::shown;
use crate::pack::{Description, PackError, TarWriter, pack};
use crate::scratch::Scratch;
use crate::store::ImageStore;
use crate::tree;
use crate::unpack::{Feeder, Place, Unpacking};

/// Two blocks of zeros: a tree without a change.
pub(crate) const EMPTY_TAR_BYTES: u64 = 1024;

/// A layer that is on the disk and belongs to nobody yet: dropped, it is deleted.
pub struct NewLayer {
    pub(crate) staged: Staged,
    /// Where it lies.
    pub(crate) _scratch: Scratch,
}

impl std::fmt::Debug for NewLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NewLayer").field(self.diff_id()).finish()
    }
}

impl NewLayer {
    /// Of its plain tar stream.
    pub fn diff_id(&self) -> &Digest {
        &self.staged.row.diff_id
    }

    /// There is no entry in it.
    pub fn is_empty(&self) -> bool {
        self.staged.row.tar_size_bytes == EMPTY_TAR_BYTES
    }
}

/// An entry of a layer. Paths are relative to the root, without `.` and `..`.
#[derive(Debug, Clone)]
pub struct LayerEntry<'a> {
    /// Where it is.
    pub path: &'a [u8],
    /// What it is.
    pub kind: LayerEntryKind<'a>,
    /// The twelve bits of the permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes, by name.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy)]
pub enum LayerEntryKind<'a> {
    /// A directory.
    Directory,
    /// A file of so many bytes.
    File(u64),
    /// A symbolic link, and where to.
    Link(&'a [u8]),
    /// One more name of a file that came before.
    HardLink(&'a [u8]),
    /// A named pipe.
    Pipe,
    /// A character device, by major and minor number.
    CharacterDevice(u32, u32),
    /// A block device, by major and minor number.
    BlockDevice(u32, u32),
}

/// Takes a layer's entries, each directory before what is in it.
pub struct LayerWriter<'a>(TarWriter<Feeder<'a>>);

impl LayerWriter<'_> {
    /// The next entry. Of a file the contents: shorter ones are filled with zeros, longer ones cut.
    pub fn entry(&mut self, entry: &LayerEntry<'_>, contents: impl Read) -> Result<(), ImageError> {
        let name = tree::split(entry.path).1;
        let refuse = |why: &str| Err(ImageError::Commit(format!("{} cannot be in a layer: {why}", shown(entry.path))));
        // This one says of its directory that nothing below it is in it (OCI image-spec, layer.md, "Opaque Whiteout").
        if name.starts_with(b".wh.") && name != b".wh..wh..opq" {
            return refuse("a name that begins with .wh. means that another file is gone");
        }
        if entry.path.len() > tree::PATH_LIMIT - 4 {
            return refuse("its path is too long");
        }
        let (kind, size, link, device): (_, _, &[u8], _) = match entry.kind {
            LayerEntryKind::Directory => (EntryType::Directory, 0, b"", (0, 0)),
            LayerEntryKind::File(size) => (EntryType::Regular, size, b"", (0, 0)),
            LayerEntryKind::Link(to) => (EntryType::Symlink, 0, to, (0, 0)),
            LayerEntryKind::HardLink(to) => (EntryType::Link, 0, to, (0, 0)),
            LayerEntryKind::Pipe => (EntryType::Fifo, 0, b"", (0, 0)),
            LayerEntryKind::CharacterDevice(major, minor) => (EntryType::Char, 0, b"", (major, minor)),
            LayerEntryKind::BlockDevice(major, minor) => (EntryType::Block, 0, b"", (major, minor)),
        };
        let directory = [entry.path, b"/"].concat();
        let header = Description {
            path: if kind == EntryType::Directory { &directory } else { entry.path },
            link,
            kind,
            size,
            mode: entry.mode & 0o7777,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            device,
            attributes: entry.attributes.clone(),
        };
        let written = self.0.header(&header).and_then(|()| match kind {
            EntryType::Regular => self.0.data(contents, size),
            _ => Ok(()),
        });
        // The extractor has the reason, if it is one of its own.
        written.map_err(ImageError::io("write a layer with", shown(entry.path)))
    }
}

impl ImageStore {
    /// Makes a layer of the entries that `write` gives. With `latest`, in seconds since 1970, later times become that one.
    pub fn write_layer<E: From<ImageError>>(
        &self,
        latest: Option<i64>,
        write: impl FnOnce(&mut LayerWriter<'_>) -> Result<(), E>,
    ) -> Result<NewLayer, E> {
        let scratch = self.0.scratch()?;
        let pool = Pool::default();
        let mut unpacking = Unpacking::start(Place::new(&scratch.0, 0)?, None, true)?;
        let mut writer = LayerWriter(TarWriter::ending(Feeder::new(&mut unpacking, &pool), latest));
        let written = write(&mut writer)
            .and_then(|()| writer.0.finish().map_err(|error| E::from(ImageError::io("write", "a layer")(error))));
        drop(writer);
        match (written, unpacking.finish()) {
            // Who was interrupted by the extractor has nothing else to say.
            (Ok(()), Ok(unpacked)) => Ok(NewLayer { staged: Staged::plain(unpacked), _scratch: scratch }),
            (_, Err(error)) => Err(ImageError::layer("that is made", error).into()),
            (Err(error), _) => Err(error),
        }
    }

    /// Makes a layer of an overlay's upper directory, as [`ImageStore::commit`] does. It must not change meanwhile.
    pub fn layer_of(&self, upper: &Path, latest: Option<i64>) -> Result<NewLayer, ImageError> {
        let scratch = self.0.scratch()?;
        let staged = pack_and_unpack(upper, latest, &scratch)?;
        Ok(NewLayer { staged, _scratch: scratch })
    }

    /// Makes an image of layers that are held, and gives it its names.
    pub fn add_image(
        &self,
        configuration: &Value,
        diff_ids: Vec<Digest>,
        references: Vec<Reference>,
    ) -> Result<ImageId, ImageError> {
        check_new(&diff_ids, &references)?;
        let config = serde_json::to_vec(configuration).expect("a JSON value serializes");
        let id = ImageId::new(Digest::from_sha256(Sha256::digest(&config).into()));
        let scratch = self.0.scratch()?;
        let image = NewImage { id: id.clone(), config, diff_ids, parent: None, references };
        self.0.install(&scratch, Vec::new(), &[image])?;
        Ok(id)
    }

    /// The directories of layers for an overlay, top first.
    pub fn directories_of(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>, ImageError> {
        self.0.stack(&self.0.read_state(), diff_ids)
    }
}

/// Whether there can be an image of these layers by these names.
pub(crate) fn check_new(diff_ids: &[Digest], references: &[Reference]) -> Result<(), ImageError> {
    if references.iter().any(|reference| reference.digest().is_some()) {
        return Err(ImageError::TagWithDigest);
    }
    if diff_ids.len() > LAYERS_LIMIT {
        return Err(ImageError::Commit(format!(
            "it would have {} layers, and the kernel stacks {LAYERS_LIMIT} at the most; join steps, or begin a stage \
             from scratch and copy what is needed into it",
            diff_ids.len()
        )));
    }
    Ok(())
}

/// Packs a tree into a layer of the scratch directory.
pub(crate) fn pack_and_unpack(upper: &Path, latest: Option<i64>, scratch: &Scratch) -> Result<Staged, ImageError> {
    let root = tree::open_root(upper).map_err(ImageError::io("open", upper.display()))?;
    let pool = Pool::default();
    let mut unpacking = Unpacking::start(Place::new(&scratch.0, 0)?, None, true)?;
    let packed = pack(root.as_fd(), latest, Feeder::new(&mut unpacking, &pool));
    match (packed, unpacking.finish()) {
        // One that stops early is the extractor's, which has the reason.
        (Ok(()) | Err(PackError::Write(_)), Err(error)) => Err(ImageError::layer("of the container", error)),
        (Err(error), _) => Err(ImageError::packing(error)),
        (Ok(()), Ok(unpacked)) => Ok(Staged::plain(unpacked)),
    }
}
