//! What is saved is what was loaded.

use super::*;

#[test]
fn what_is_saved_loads_again_and_is_the_same_to_the_byte() {
    let (first, second) = (Home::new(), Home::new());
    let (one, two) = (first.open(), second.open());
    let loaded = load(&one, &tarball(&docker_files(&two_layers(), &["a:1", "a:2", "b"], gzip)));
    one.tag(&loaded.id, &reference("localhost:5000/x/y:z")).unwrap();
    let bytes = save(&one, "a");
    let again = load(&two, &bytes);
    assert_eq!((&again.id, again.references.as_slice()), (&loaded.id, &[reference("a:1"), reference("a:2")][..]));
    assert!(save(&two, "a") == bytes, "a second save differs");
    assert_eq!(load(&two, &save(&one, "a:2")).references, [reference("a:2")]);
    assert_eq!(load(&two, &save(&one, loaded.id.short())).references, []);
    // Without manifest.json the same archive is a plain OCI layout.
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if entry.header().entry_type() == EntryType::Regular && name != "manifest.json" {
            files.push((name, content));
        }
    }
    let third = Home::new();
    let as_oci = load(&third.open(), &tarball(&files));
    assert_eq!((as_oci.id, as_oci.references), (loaded.id, vec![reference("a:1"), reference("a:2")]));
}

#[test]
fn a_damaged_store_says_so_and_opens() {
    let home = Home::new();
    let store = home.open();
    let layers = two_layers();
    let id = load(&store, &tarball(&docker_files(&layers, &["a"], plain))).id;
    let recipe = home.0.path().join("content/sha256").join(format!("{}.recipe", sha256(&layers[0]).hex()));
    let lower = store.lower_directories(&id).unwrap();
    for file in [recipe, lower[0].join("etc/name"), lower[1].join("data/a")] {
        let whole = fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for bytes in [damaged.as_slice(), &whole[..whole.len() - 1], b""] {
            fs::write(&file, bytes).unwrap();
            let error = store.save(&["a".into()], &mut std::io::sink()).unwrap_err();
            assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
        }
        fs::remove_file(&file).unwrap();
        store.save(&["a".into()], &mut std::io::sink()).unwrap_err();
        fs::write(&file, whole).unwrap();
        store.save(&["a".into()], &mut std::io::sink()).unwrap();
    }
}
