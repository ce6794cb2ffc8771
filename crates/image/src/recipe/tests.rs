use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::tree::open_root;

/// The stream that a recipe gives.
pub(crate) fn reproduced(recipe: &Path, root: BorrowedFd<'_>) -> Result<Vec<u8>, RecipeError> {
    let mut bytes = Vec::new();
    reproduce(File::open(recipe).unwrap(), root, &Pool::default(), |chunk| {
        bytes.extend_from_slice(chunk.bytes());
        Ok(())
    })?;
    Ok(bytes)
}

/// A layer with a recipe of its own.
struct Layer(tempfile::TempDir);

impl Layer {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("root/a/b")).unwrap();
        Self(place)
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    fn recipe(&self, write: impl FnOnce(&mut Writer) -> io::Result<()>) {
        let path = self.0.path().join("recipe");
        let mut writer = Writer::new(File::create(&path).unwrap()).unwrap();
        write(&mut writer).unwrap();
        let size = writer.finish().unwrap();
        assert_eq!(size, std::fs::metadata(path).unwrap().len());
    }

    fn raw(&self, steps: &[u8]) {
        let plain = [MAGIC, steps].concat();
        std::fs::write(self.0.path().join("recipe"), zstd::encode_all(plain.as_slice(), 1).unwrap()).unwrap();
    }

    fn give(&self) -> Result<Vec<u8>, String> {
        let root = open_root(&self.root()).unwrap();
        reproduced(&self.0.path().join("recipe"), root.as_fd()).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn is_damaged(&self, want: &str) {
        let what = self.give().unwrap_err();
        assert!(what.contains(want), "{what:?} instead of {want:?}");
    }
}

#[test]
fn own_bytes_and_pieces_of_files_come_in_their_order() {
    let layer = Layer::new();
    let large: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(layer.root().join("a/b/large"), &large).unwrap();
    std::fs::write(layer.root().join("small"), "small").unwrap();
    layer.recipe(|recipe| {
        recipe.bytes(&vec![7; 200_000])?;
        recipe.content(b"a/b/large", 0, 600_000)?;
        recipe.bytes(b"!")?;
        recipe.content(b"a/b/large", 300_000, 10)?;
        recipe.content(b"small", 1, 3)?;
        recipe.content(b"a/b/large", 1, 2)
    });
    let want = [&vec![7; 200_000], large.as_slice(), b"!", &large[300_000..300_010], b"mal", &large[1..3]].concat();
    assert!(layer.give().unwrap() == want);
    layer.recipe(|_| Ok(()));
    assert_eq!(layer.give().unwrap(), b"");
}

#[test]
fn a_file_that_is_no_more_what_it_was_is_damage() {
    let layer = Layer::new();
    let recipe = |path: &[u8]| layer.recipe(|recipe| recipe.content(path, 0, 5));
    recipe(b"file");
    layer.is_damaged("\"file\"");
    std::fs::write(layer.root().join("file"), "1234").unwrap();
    layer.is_damaged("\"file\"");
    std::fs::write(layer.root().join("file"), "12345").unwrap();
    assert_eq!(layer.give().unwrap(), b"12345");
    symlink("file", layer.root().join("link")).unwrap();
    recipe(b"link");
    layer.is_damaged("\"link\"");
    rustix::fs::mknodat(
        open_root(&layer.root()).unwrap(),
        "pipe",
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    recipe(b"pipe");
    layer.is_damaged("\"pipe\"");
    // A link to a directory is one of the layer's own, and leads nowhere but into it.
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("12345"), "12345").unwrap();
    symlink(outside.path(), layer.root().join("out")).unwrap();
    symlink("/a/b", layer.root().join("in")).unwrap();
    std::fs::write(layer.root().join("a/b/file"), "54321").unwrap();
    recipe(b"out/12345");
    layer.is_damaged("\"out/12345\"");
    recipe(b"../recipe");
    layer.is_damaged("\"../recipe\"");
    recipe(b"in/file");
    assert_eq!(layer.give().unwrap(), b"54321");
}

#[test]
fn a_damaged_recipe_is_said_to_be_one() {
    let layer = Layer::new();
    layer.recipe(|recipe| recipe.bytes(b"bytes"));
    let path = layer.0.path().join("recipe");
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        layer.is_damaged("the recipe cannot be read");
    }
    std::fs::write(&path, zstd::encode_all(&b"dozen recipe 9\n\0"[..], 1).unwrap()).unwrap();
    layer.is_damaged("none that this dozen knows");
    for (steps, want) in [
        (&[][..], "cannot be read"),
        (&[8, 1, 2], "malformed"),
        (&[0, 0], "malformed"),
        (&[0xff; 20], "malformed"),
        (&[3, 0, 0], "malformed"),
        (&[3, 0, 0xff, 0xff, 0xff, 0x7f], "malformed"),
        (&[3, 0, 5, b'x'], "cannot be read"),
    ] {
        layer.raw(steps);
        layer.is_damaged(want);
    }
}
