//! What a save has found to be damaged, a load mends: in place, because containers stand on it.

use super::targets::many;
use super::*;

type Damage = (&'static str, fn(&Path));

/// What may happen to a file.
const OF_A_FILE: [Damage; 4] = [
    ("another byte", |path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }),
    ("cut short", |path| fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap()),
    ("gone", |path| fs::remove_file(path).unwrap()),
    ("something else", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
];

fn save_of(store: &ImageStore, name: &str) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    store.save(&[name.to_owned()], &mut bytes).map(|()| bytes)
}

/// Everything of a tree that a container sees, but what it is kept in.
fn seen(layer: &Path) -> String {
    let script = r#"cd "$0"; find . -printf '%P|%y|%m|%U|%G|%n|%T@|%l\n' | sort; find . -type f -size -9 -print0 | sort -z | xargs -0r sha256sum"#;
    let output = Command::new("bash").args(["-c", script]).arg(layer).output().unwrap();
    let bin = crate::tree::open_root(&layer.join("bin")).unwrap();
    let attributes = crate::tree::xattrs(std::os::fd::AsFd::as_fd(&bin), b"ping");
    format!("{}{attributes:?}", String::from_utf8(output.stdout).unwrap())
}

fn layer() -> Vec<u8> {
    let mut capable = file("bin/ping", "#!");
    capable.0.attributes = vec![
        (b"security.capability".to_vec(), [&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat()),
        (b"user.note".to_vec(), b"mine".to_vec()),
    ];
    (capable.0.mode, capable.0.uid, capable.0.mtime) = (0o4755, 7, (1_000_000_000, 123_456_789));
    let mut above = directory("bin");
    above.0.mtime = (2_000_000_000, 5);
    archive(&[
        above,
        capable,
        link(EntryType::Link, "bin/alias", "bin/ping"),
        directory("etc/deep"),
        file("etc/deep/name", "name"),
        file("etc/deep/.wh.gone", ""),
        link(EntryType::Symlink, "etc/link", "deep"),
    ])
}

#[test]
fn a_damaged_layer_is_mended_where_it_lies() {
    let layers = [layer(), two_layers().remove(0)];
    let home = Home::new();
    let store = home.open();
    let bytes = tarball(&docker_files(&layers, &["a"], plain));
    let id = load(&store, &bytes).id;
    // Another image and a container stand on it: it cannot be removed and loaded again.
    load(&store, &tarball(&docker_files(&layers[..1], &["b"], plain)));
    let (saved, lower, counts) = (save(&store, "a"), store.lower_directories(&id).unwrap(), home.counts());
    let lower = &lower[1];
    let (before, root) = (seen(lower), fs::metadata(lower).unwrap().ino());
    let recipe = home.0.path().join("content/sha256").join(format!("{}.recipe", sha256(&layers[0]).hex()));
    let files = [recipe, lower.join("bin/ping"), lower.join("etc/deep/name")];
    let in_use = fs::File::open(lower.join("etc/deep/name")).unwrap();
    for damaged in &files {
        for (what, damage) in &OF_A_FILE {
            let is_recipe = *damaged == files[0];
            if is_recipe && *what == "something else" {
                continue;
            }
            // Nothing is mended that nobody has found to be damaged.
            damage(damaged);
            assert!(store.known_contents(vec![sha256(&layers[0])]).len() == 1);
            save_of(&store, "a").unwrap_err();
            assert_eq!(store.known_contents(vec![sha256(&layers[0])]), []);
            load(&store, &bytes);
            assert!(save(&store, "a") == saved, "{what}, {}", damaged.display());
            // A name of two that was lost comes back as a name of its own.
            if *what == "another byte" || *what == "cut short" {
                assert_eq!(seen(lower), before, "{what}, {}", damaged.display());
            }
            assert_eq!(fs::metadata(lower).unwrap().ino(), root);
            assert_eq!((home.counts(), store.known_contents(vec![sha256(&layers[0])]).len()), (counts, 1));
        }
        if *damaged == files[1] {
            assert_eq!(fs::metadata(lower.join("etc/deep/name")).unwrap().ino(), in_use.metadata().unwrap().ino());
        }
    }
    fs::remove_dir_all(lower.join("etc")).unwrap();
    save_of(&store, "a").unwrap_err();
    load(&store, &bytes);
    assert!(save(&store, "a") == saved && seen(lower).contains("etc/link|l|777"));
    // In another form it is not mended, and nothing else is wrong with that.
    fs::remove_file(lower.join("etc/deep/name")).unwrap();
    save_of(&store, "a").unwrap_err();
    load(&store, &tarball(&docker_files(&layers, &["a"], gzip)));
    save_of(&store, "a").unwrap_err();
    load(&store, &bytes);
    assert!(save(&store, "a") == saved && home.counts() == counts);
}

#[test]
fn what_is_kept_beside_layers_is_mended() {
    let twice = archive(&[file("a/f", "one"), file("b", "two"), file("b", "three")]);
    let (layout, _) = many();
    for (bytes, name) in [
        (tarball(&docker_files(&[twice], &["a:1"], plain)), "a:1"),
        (tarball(&docker_files(&two_layers(), &["a:1"], gzip)), "a:1"),
        (layout.archive(), "many:1"),
    ] {
        let home = Home::new();
        let store = home.open();
        load(&store, &bytes);
        let (saved, counts) = (save(&store, name), home.counts());
        for kept in home.names("content/sha256") {
            for (what, damage) in &OF_A_FILE[..3] {
                // Several at once, and one at a time.
                damage(&kept);
                for _ in 0..counts[0] {
                    match save_of(&store, name) {
                        Ok(again) => assert!(again == saved),
                        Err(_) => drop(load(&store, &bytes)),
                    }
                }
                assert!(save_of(&store, name).is_ok_and(|again| again == saved), "{what}, {}", kept.display());
                assert_eq!(home.counts(), counts);
            }
        }
    }
}

#[test]
fn a_file_of_terabytes_is_mended_where_it_holds_something() {
    const SIZE: u64 = 10 << 40;
    let home = Home::new();
    let store = home.open();
    let upper = tempfile::tempdir().unwrap();
    let large = fs::File::create(upper.path().join("large")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&large, b"in the middle", SIZE / 2).unwrap();
    large.set_len(SIZE).unwrap();
    let base = load(&store, &tarball(&docker_files(&two_layers(), &["base"], plain))).id;
    let id = super::commit::commit(&store, &base, upper.path(), Some("large")).unwrap();
    let saved = save(&store, "large");
    let there = store.lower_directories(&id).unwrap().remove(0).join("large");
    let damaged = fs::File::options().write(true).open(&there).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&damaged, b"somewhere", SIZE / 2).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&damaged, b"else", SIZE / 4).unwrap();
    save_of(&store, "large").unwrap_err();
    load(&store, &saved);
    let mut quarter = [7; 4];
    let mended = fs::File::open(&there).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&mended, &mut quarter, SIZE / 4).unwrap();
    assert_eq!((quarter, save(&store, "large") == saved), ([0; 4], true));
    assert!(mended.metadata().unwrap().blocks() < 1000);
}
