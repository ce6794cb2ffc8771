//! Archives that were made to turn against the host. Each is loaded as a user would load it, into a store with a tree
//! beside it that must not change by a byte; what is refused says why, and leaves nothing.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use super::*;

mod attributes;
mod bombs;
mod documents;
mod forge;
mod headers;
mod memory;
mod names;
mod whiteouts;
mod whole;

/// A store, and a tree beside it.
struct Cell {
    place: tempfile::TempDir,
    store: ImageStore,
    before: BTreeMap<Vec<u8>, String>,
}

impl Cell {
    fn new() -> Self {
        // In memory: thousands of archives are loaded here, and each success is synced.
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::at(tempfile::tempdir_in(memory).unwrap()) } else { Self::on_disk() }
    }

    /// Where files have attributes of users: in memory they have none before Linux 6.6 (tmpfs(5)).
    fn on_disk() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(place: tempfile::TempDir) -> Self {
        let outside = place.path().join("outside");
        fs::create_dir_all(outside.join("directory")).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(outside.join("directory/file"), "file").unwrap();
        std::os::unix::fs::symlink("secret", outside.join("link")).unwrap();
        let root = place.path().join("root");
        fs::create_dir(&root).unwrap();
        let ledger = Ledger::open(&root.join("state.db"), &MIGRATIONS).unwrap();
        let store = ImageStore::open(&root, ledger).unwrap();
        let before = seen(&outside);
        Self { place, store, before }
    }

    fn outside(&self) -> String {
        self.place.path().join("outside").display().to_string()
    }

    fn load(&self, archive: impl std::io::Read) -> Result<Vec<Loaded>, ImageError> {
        let result = self.store.load(archive, &());
        self.is_intact();
        if result.is_err() {
            self.is_empty();
        }
        result
    }

    #[track_caller]
    fn refuses(&self, archive: impl std::io::Read, want: &str) {
        match self.load(archive) {
            Ok(loaded) => panic!("it was accepted, where {want:?} was to be said: {loaded:?}"),
            Err(error) => is_refusal(&error, want),
        }
    }

    /// Nothing beside the store has changed, and nothing has appeared.
    #[track_caller]
    fn is_intact(&self) {
        assert_eq!(seen(&self.place.path().join("outside")), self.before);
        let mut names: Vec<_> = fs::read_dir(self.place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["outside", "root"]);
    }

    #[track_caller]
    fn is_empty(&self) {
        let root = self.place.path().join("root");
        for name in ["content/sha256", "layers", "tmp"] {
            assert_eq!(fs::read_dir(root.join(name)).unwrap().count(), 0, "{name}");
        }
        let rows = self.store.0.ledger.read(|connection| schema::read(connection, None)).unwrap();
        assert_eq!((rows.layers.len(), rows.images.len(), rows.references.len()), (0, 0, 0));
        assert_eq!(self.store.list().unwrap().len(), 0);
    }

    /// The only layer's directory.
    fn layer(&self) -> PathBuf {
        let mut layers = fs::read_dir(self.place.path().join("root/layers")).unwrap();
        let layer = layers.next().unwrap().unwrap().path();
        assert!(layers.next().is_none());
        layer
    }

    fn remove_all(&self) {
        for image in self.store.list().unwrap() {
            self.store.remove(&image.id.to_string(), true, false, &nobody).unwrap();
        }
        self.is_empty();
    }
}

/// Everything below a directory: what it is, whose, and what is in it.
fn seen(directory: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let owner = (stat.uid(), stat.gid(), stat.mode(), stat.nlink());
        let times = (stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
        all.insert(path.as_os_str().as_bytes().to_vec(), format!("{owner:?} {times:?} {}", sha256(&content)));
        if stat.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all
}

/// An archive of one image with one layer, in bytes as they are.
fn image_of(layer: &[u8]) -> Vec<u8> {
    tarball(&docker_files(&[layer.to_vec()], &["hostile"], plain))
}

/// An archive whose one layer is the blob, which is the tar stream of the digest.
fn image_of_blob(blob: Vec<u8>, diff_id: &Digest) -> Vec<u8> {
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    let manifest = json!([{ "Config": "c", "Layers": ["l"] }]);
    tarball(&[
        ("c".into(), serde_json::to_vec(&config).unwrap()),
        ("l".into(), blob),
        ("manifest.json".into(), serde_json::to_vec(&manifest).unwrap()),
    ])
}

/// Loads what must be refused in these words, which are few and can be printed, as the archive's fault.
#[track_caller]
fn refuses_archive(archive: impl std::io::Read, want: &str) {
    Cell::new().refuses(archive, want);
}

#[track_caller]
fn is_refusal(error: &ImageError, want: &str) {
    let message = dozen_model::error_chain(error);
    assert!(message.contains(want), "{message:?} instead of {want:?}");
    assert!(message.len() < 2000, "an error of {} bytes", message.len());
    assert!(!message.contains(char::is_control), "{message:?}");
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotBuilt), "{error:?}");
}

#[track_caller]
fn refuses(layer: &[u8], want: &str) {
    refuses_archive(image_of(layer).as_slice(), want);
}

/// Loads what is to be contained: it is accepted, and what it does it does in the layer.
#[track_caller]
fn contains(layer: &[u8]) -> Cell {
    let cell = Cell::new();
    cell.load(image_of(layer).as_slice()).unwrap();
    cell
}

impl Drop for Cell {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.remove_all();
            self.is_intact();
        }
    }
}
