//! What an archive may not be, and may not take.

use super::*;

#[test]
fn damaged_and_hostile_archives_are_refused_and_leave_nothing() {
    let layers = two_layers();
    let docker = || docker_files(&layers, &["a"], plain);
    let with = |change: &dyn Fn(&mut Files)| {
        let mut files = docker();
        change(&mut files);
        tarball(&files)
    };
    refused(b"this is no archive at all", "it is no tar archive");
    refused(&[b'x'; 2048], "it is no tar archive");
    refused(&gzip(&[b'x'; 2048]), "it is no tar archive");
    refused(b"", "it is empty");
    refused(&[0; 1024], "neither manifest.json");
    refused(&tarball(&[]), "neither manifest.json");
    let of_old_docker =
        ["VERSION", "json", "layer.tar"].map(|name| (format!("{}/{name}", "a1".repeat(32)), vec![b'1']));
    refused(&tarball(&of_old_docker), "of the first format, of Docker before 1.10, which is not built");
    refused(&tarball(&[("manifest.json".into(), b"{".to_vec())]), "manifest.json is malformed");
    refused(&tarball(&[("manifest.json".into(), b"[]".to_vec())]), "holds no image");
    refused(&with(&|files| drop(files.remove(0))), "is missing");
    refused(&with(&|files| drop(files.remove(1))), "0/layer.tar: it is missing");
    refused(&with(&|files| files[1].1 = archive(&[file("other", "")])), "the configuration wants sha256:");
    refused(&with(&|files| files[1].1.truncate(700)), "it is cut short");
    refused(&with(&|files| files[1].1 = archive(&[file("../out", "")])), "leads out");
    refused(&with(&|files| files[1].1 = b"BZh91AY".to_vec()), "bzip2 compression is not built yet");
    refused(&with(&|files| files[0].1.push(b' ')), "is damaged");
    refused(&with(&|files| files[0].0 = "c".into()), "is missing");
    refused(&with(&|files| files.push(("../out".into(), vec![]))), "leads out");
    refused(&with(&|files| files.push(("manifest.json".into(), vec![b' '; 5 << 20]))), "larger than");
    let mut gz = gzip(&tarball(&docker()));
    gz.truncate(gz.len() / 2);
    refused(&gz, "damaged or cut short");
    let cut = tarball(&docker_files(&layers, &["a"], gzip));
    for length in [600, 1100, 1600, 3000] {
        refused(&cut[..length], "");
    }
    let tags = |tag: &str| {
        let mut files = docker();
        let manifest = String::from_utf8(files[3].1.clone()).unwrap().replace("\"a\"", &json!(tag).to_string());
        files[3].1 = manifest.into_bytes();
        tarball(&files)
    };
    refused(&tags("UPPER"), "names an image wrongly");
    refused(&tags(&format!("a@{}", sha256(b""))), "by a digest");
    let mut windows: Value = serde_json::from_slice(&config(&[])).unwrap();
    windows["os"] = json!("windows");
    let manifest = json!([{ "Config": "c", "RepoTags": null, "Layers": null }]);
    refused(
        &tarball(&[
            ("c".into(), serde_json::to_vec(&windows).unwrap()),
            ("manifest.json".into(), serde_json::to_vec(&manifest).unwrap()),
        ]),
        "image for windows",
    );
}

/// Whatever an archive says a thousand times is in memory once.
#[test]
fn one_configuration_with_many_entries_is_one_image() {
    let home = Home::new();
    let store = home.open();
    let mut files = docker_files(&two_layers(), &[], plain);
    let entries: Vec<Value> = serde_json::from_slice(&files[3].1).unwrap();
    let mut entries = vec![entries[0].clone(); 1000];
    for (number, entry) in entries.iter_mut().enumerate() {
        entry["RepoTags"] = json!([format!("a:{number}")]);
    }
    files[3].1 = serde_json::to_vec(&entries).unwrap();
    assert_eq!(load(&store, &tarball(&files)).references.len(), 1000);
    assert_eq!((home.counts(), store.list().unwrap()[0].references.len()), ([3, 2, 0], 1000));
}

#[test]
fn what_an_archive_may_take_of_memory_is_bounded() {
    let large = |number: usize| {
        let mut config = config(&[]);
        config.resize((4 << 20) - number, b' ');
        (format!("c{number}"), config)
    };
    let mut files: Files = (0..9).map(large).collect();
    let entries: Vec<_> = files.iter().map(|(name, _)| json!({ "Config": name })).collect();
    files.push(("manifest.json".into(), serde_json::to_vec(&entries).unwrap()));
    refused(&tarball(&files), "configurations of its images are larger than 16777216 bytes together");

    let many = json!([{ "Config": "c0", "Layers": vec!["l"; 501] }]);
    refused(&tarball(&[large(0), ("manifest.json".into(), serde_json::to_vec(&many).unwrap())]), "has 501 layers");

    let links = |count: usize, length: usize| {
        let mut bytes = Vec::new();
        let mut writer = TarWriter::new(&mut bytes);
        let link = vec![b'l'; length];
        for number in 0..count {
            let name = format!("{number}");
            let plain = Description::plain(name.as_bytes(), EntryType::Symlink, 0o777, 0);
            writer.header(&Description { link: &link, ..plain }).unwrap();
        }
        writer.finish().unwrap();
        bytes
    };
    refused(&links(1, 4096), "its target is longer than 4095 bytes");
    refused(&links(4200, 4000), "the names of its files are longer than 16777216 bytes");
}

#[test]
fn damaged_oci_layouts_are_refused() {
    let layers = two_layers();
    let with = |at: usize, bytes: &[u8]| {
        let mut files = oci_files(&layers, "a:1", gzip);
        files[at].1 = bytes.to_vec();
        tarball(&files)
    };
    for at in 1..5 {
        refused(&with(at, b"{}"), "is damaged: its bytes have the digest");
    }
    refused(&with(0, br#"{"imageLayoutVersion":"2.0.0"}"#), "OCI layout 2.0.0 is not built yet");
    refused(&with(5, br#"{"manifests":[{"digest":"sha256:../../x"}]}"#), "index.json is malformed");
    let absent = json!({ "manifests": [{ "digest": sha256(b"absent") }] });
    refused(&with(5, &serde_json::to_vec(&absent).unwrap()), "is missing");
}

#[test]
fn a_bomb_is_refused() {
    // 1.1 GiB of zeros in one file; zstd makes it a few ten kilobytes.
    let size = 1_150_000_000u64;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut writer = TarWriter::new(&mut encoder);
    writer.header(&Description::plain(b"zeros", EntryType::Regular, 0o644, size)).unwrap();
    writer.data(std::io::empty(), size).unwrap();
    let bomb = encoder.finish().unwrap();
    let manifest = json!([{ "Config": "c", "Layers": ["l"] }]);
    let files = [
        ("c".to_owned(), config(&[vec![]])),
        ("l".to_owned(), bomb),
        ("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()),
    ];
    refused(&tarball(&files), "far more than its archive explains");
}

/// `zstd --long=27`: what its decoder would take of memory is what we must not.
#[test]
fn a_window_larger_than_memory_may_be_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, &archive(&[file("a", "1")])).unwrap();
    let layer = encoder.finish().unwrap();
    let mut files = docker_files(&[archive(&[file("a", "1")])], &["a"], plain);
    files[1].1 = layer;
    refused(&tarball(&files), "zstd windows of more than 32 MiB");
}
