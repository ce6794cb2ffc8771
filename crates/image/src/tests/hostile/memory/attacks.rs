//! Archives that would take much memory.

use std::io::Write;

use super::super::forge::Forge;
use super::*;

fn of_configuration(config: Vec<u8>) -> Vec<u8> {
    tarball(&[("c".to_owned(), config), ("manifest.json".to_owned(), br#"[{"Config":"c"}]"#.to_vec())])
}

/// A configuration with this in it.
fn configuration_with(rest: &str) -> Vec<u8> {
    format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"x":{rest}}}"#)
        .into_bytes()
}

fn repeated(open: &str, piece: &str, close: &str, bytes: usize) -> String {
    let count = (bytes - 200) / (piece.len() + 1);
    format!("{open}{}{close}", vec![piece; count].join(","))
}

pub(super) fn long_directories() -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let above = "n".repeat(250);
    for number in 0..20_000 {
        let path = format!("{}/{number}\0", vec![above.as_str(); 15].join("/"));
        let directory =
            Forge::new().special(b'L', path.as_bytes()).header(|header| header.set_entry_type(EntryType::Directory));
        encoder.write_all(&directory.0).unwrap();
    }
    image_of_blob(encoder.finish().unwrap(), &sha256(b""))
}

pub(super) fn small_objects() -> Vec<u8> {
    of_configuration(configuration_with(&repeated("[", r#"{"":0}"#, "]", 4 << 20)))
}

pub(super) fn small_values() -> Vec<u8> {
    of_configuration(configuration_with(&repeated("[", "0", "]", 4 << 20)))
}

pub(super) fn many_configurations() -> Vec<u8> {
    let mut files: Files = Vec::new();
    for number in 0..1000 {
        let padding = repeated("[", r#"{"":[]}"#, "]", 32_000);
        files.push((format!("c{number}"), configuration_with(&format!("[{number},{padding}]"))));
    }
    let entries: Vec<_> = (0..1000).map(|number| json!({ "Config": format!("c{number}") })).collect();
    files.push(("manifest.json".into(), serde_json::to_vec(&entries).unwrap()));
    tarball(&files)
}

pub(super) fn many_layers() -> Vec<u8> {
    let mut files: Files = vec![("l".into(), b"x".to_vec())];
    let mut entries = Vec::new();
    for number in 0..1000 {
        files.push((format!("c{number}"), number.to_string().into_bytes()));
        entries.push(json!({ "Config": format!("c{number}"), "Layers": vec!["l"; 500] }));
    }
    files.push(("manifest.json".into(), serde_json::to_vec(&entries).unwrap()));
    tarball(&files)
}

pub(super) fn many_tags() -> Vec<u8> {
    let tags: Vec<String> = (0..400_000).map(|number| format!("{number:x}")).collect();
    let manifest = json!([{ "Config": "c", "RepoTags": tags }]);
    let mut bytes = serde_json::to_vec(&manifest).unwrap();
    assert!(bytes.len() < 4 << 20, "{}", bytes.len());
    bytes.push(b' ');
    tarball(&[("c".to_owned(), config(&[])), ("manifest.json".to_owned(), bytes)])
}

pub(super) fn many_descriptors() -> Vec<u8> {
    let one = format!(r#"{{"digest":"{}","annotations":{{"":""}}}}"#, sha256(b""));
    let index = format!(r#"{{"manifests":{}}}"#, repeated("[", &one, "]", 4 << 20));
    tarball(&[
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.into_bytes()),
    ])
}

pub(super) fn many_files() -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for number in 0..100_000 {
        let path = format!("{}{number}\0", "n".repeat(150));
        encoder.write_all(&Forge::new().special(b'L', path.as_bytes()).header(|_| {}).0).unwrap();
    }
    encoder.finish().unwrap()
}

pub(super) fn many_attributes() -> Vec<u8> {
    let names: Vec<String> = (0..25_000).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let records: Vec<_> = names.iter().map(|name| (name.as_str(), &b"v"[..])).collect();
    image_of(&Forge::new().pax(&records).header(|_| {}).end())
}

pub(super) fn many_pieces() -> Vec<u8> {
    let mut forge = Forge::new().header(|header| {
        header.set_entry_type(EntryType::GNUSparse);
        header.set_size(1);
        header.as_gnu_mut().unwrap().isextended = [1];
        header.as_gnu_mut().unwrap().set_real_size(1 << 20);
    });
    let mut extension = tar::GnuExtSparseHeader::new();
    for piece in &mut extension.sparse {
        piece.set_offset(1);
        piece.set_length(0);
    }
    extension.isextended = [1];
    for _ in 0..3200 {
        forge.0.extend_from_slice(extension.as_bytes());
    }
    image_of_blob(zstd(&forge.0), &sha256(b""))
}

/// 128 MiB that have to be looked back upon.
pub(super) fn large_window() -> Vec<u8> {
    image_of_blob(windowed(27), &sha256(b""))
}

/// The largest that is taken, in two layers of one image: they are not unpacked at the same time.
pub(super) fn two_windows() -> Vec<u8> {
    let blob = windowed(25);
    let config = config(&[b"a".to_vec(), b"b".to_vec()]);
    let files = [
        ("c".to_owned(), config),
        ("0".to_owned(), blob.clone()),
        ("1".to_owned(), blob),
        ("manifest.json".to_owned(), br#"[{"Config":"c","Layers":["0","1"]}]"#.to_vec()),
    ];
    tarball(&files)
}

fn windowed(log: u32) -> Vec<u8> {
    let layer = Forge::new().header(|header| {
        header.set_path(".wh..wh.note").unwrap();
        header.set_size(100 << 20);
    });
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(log).unwrap();
    encoder.write_all(&layer.0).unwrap();
    // Digests of numbers: nothing that a compressor finds again.
    for number in 0..(100u32 << 20) / 32 / 64 {
        let noise = sha256(&number.to_be_bytes()).hex().repeat(32);
        encoder.write_all(noise.as_bytes()).unwrap();
    }
    encoder.finish().unwrap()
}

pub(super) fn layers_at_once() -> Vec<u8> {
    let layers: Vec<_> = (0..200)
        .map(|number| {
            let name = format!("f{number}");
            archive(&[file(&name, &"x".repeat(100_000))])
        })
        .collect();
    let pack = |bytes: &[u8]| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(23).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    tarball(&docker_files(&layers, &["a"], pack))
}
