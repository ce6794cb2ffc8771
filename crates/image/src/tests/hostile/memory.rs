//! A load takes less than 64 MiB, whatever it is given.
//!
//! Each attack is loaded by a process of its own, which is this test's program once more; what the kernel says was its
//! peak is compared with what it had before (proc_pid_status(5), VmHWM; `clear_refs` makes it begin anew).

use std::io::Write;

use super::forge::Forge;
use super::*;

const LIMIT_KIB: u64 = 64 << 10;
const VARIABLE: &str = "DOZEN_TEST_ATTACK";

type Attack = fn() -> Vec<u8>;

const ATTACKS: &[(&str, Attack)] = &[
    ("directories with long names", long_directories),
    ("a configuration of small objects", small_objects),
    ("a configuration of small values", small_values),
    ("many configurations", many_configurations),
    ("a manifest of many images with many layers", many_layers),
    ("a manifest of tags", many_tags),
    ("an index of descriptors", many_descriptors),
    ("many files with long names", many_files),
    ("many attributes", many_attributes),
    ("a sparse file of many pieces", many_pieces),
    ("a zstd window", large_window),
    ("many layers at once", layers_at_once),
];

#[test]
fn a_load_stays_below_64_mib_whatever_it_is_given() {
    if let Ok(number) = std::env::var(VARIABLE) {
        return attack(ATTACKS[number.parse::<usize>().unwrap()].1);
    }
    let mut over = Vec::new();
    for (number, (name, _)) in ATTACKS.iter().enumerate() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "tests::hostile::memory::a_load_stays_below_64_mib_whatever_it_is_given"])
            .env(VARIABLE, number.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {said} {}", String::from_utf8_lossy(&output.stderr));
        let (_, rest) = said.split_once("took KiB: ").unwrap_or_else(|| panic!("{name} says no figure: {said}"));
        let took: u64 = rest.split_whitespace().next().unwrap().parse().unwrap();
        eprintln!("{name}: {took} KiB; {}", rest.lines().next().unwrap_or_default());
        if took >= LIMIT_KIB {
            over.push(format!("{name}: {took} KiB"));
        }
    }
    assert!(over.is_empty(), "{over:?}");
}

fn attack(build: Attack) {
    let cell = Cell::new();
    // From the disk, as it comes: the archive itself is not what is measured.
    let mut kept = tempfile::tempfile().unwrap();
    kept.write_all(&build()).unwrap();
    std::io::Seek::rewind(&mut kept).unwrap();
    let before = {
        fs::write("/proc/self/clear_refs", "5").unwrap();
        status("VmHWM:")
    };
    let result = cell.load(&mut kept);
    let took = status("VmHWM:").saturating_sub(before);
    let verdict = match &result {
        Ok(loaded) => format!("{} loaded", loaded.len()),
        Err(error) => error.to_string(),
    };
    println!("took KiB: {took} ({verdict})");
}

fn status(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

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

fn long_directories() -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let above = "n".repeat(250);
    for number in 0..60_000 {
        let path = format!("{}/{number}\0", vec![above.as_str(); 15].join("/"));
        let directory =
            Forge::new().special(b'L', path.as_bytes()).header(|header| header.set_entry_type(EntryType::Directory));
        encoder.write_all(&directory.0).unwrap();
    }
    image_of_blob(encoder.finish().unwrap(), &sha256(b""))
}

fn small_objects() -> Vec<u8> {
    of_configuration(configuration_with(&repeated("[", r#"{"":0}"#, "]", 4 << 20)))
}

fn small_values() -> Vec<u8> {
    of_configuration(configuration_with(&repeated("[", "0", "]", 4 << 20)))
}

fn many_configurations() -> Vec<u8> {
    let mut files: Files = Vec::new();
    for number in 0..1000 {
        let padding = repeated("[", r#"{"":[]}"#, "]", 32_000);
        files.push((format!("c{number}"), configuration_with(&format!("[{number},{padding}]"))));
    }
    let entries: Vec<_> = (0..1000).map(|number| json!({ "Config": format!("c{number}") })).collect();
    files.push(("manifest.json".into(), serde_json::to_vec(&entries).unwrap()));
    tarball(&files)
}

fn many_layers() -> Vec<u8> {
    let mut files: Files = vec![("l".into(), b"x".to_vec())];
    let mut entries = Vec::new();
    for number in 0..1000 {
        files.push((format!("c{number}"), number.to_string().into_bytes()));
        entries.push(json!({ "Config": format!("c{number}"), "Layers": vec!["l"; 500] }));
    }
    files.push(("manifest.json".into(), serde_json::to_vec(&entries).unwrap()));
    tarball(&files)
}

fn many_tags() -> Vec<u8> {
    let tags: Vec<String> = (0..400_000).map(|number| format!("{number:x}")).collect();
    let manifest = json!([{ "Config": "c", "RepoTags": tags }]);
    let mut bytes = serde_json::to_vec(&manifest).unwrap();
    assert!(bytes.len() < 4 << 20, "{}", bytes.len());
    bytes.push(b' ');
    tarball(&[("c".to_owned(), config(&[])), ("manifest.json".to_owned(), bytes)])
}

fn many_descriptors() -> Vec<u8> {
    let one = format!(r#"{{"digest":"{}","annotations":{{"":""}}}}"#, sha256(b""));
    let index = format!(r#"{{"manifests":{}}}"#, repeated("[", &one, "]", 4 << 20));
    tarball(&[
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.into_bytes()),
    ])
}

fn many_files() -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for number in 0..100_000 {
        let path = format!("{}{number}\0", "n".repeat(150));
        encoder.write_all(&Forge::new().special(b'L', path.as_bytes()).header(|_| {}).0).unwrap();
    }
    encoder.finish().unwrap()
}

fn many_attributes() -> Vec<u8> {
    let names: Vec<String> = (0..25_000).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let records: Vec<_> = names.iter().map(|name| (name.as_str(), &b"v"[..])).collect();
    image_of(&Forge::new().pax(&records).header(|_| {}).end())
}

fn many_pieces() -> Vec<u8> {
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
fn large_window() -> Vec<u8> {
    let layer = Forge::new().header(|header| {
        header.set_path(".wh..wh.note").unwrap();
        header.set_size(200 << 20);
    });
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&layer.0).unwrap();
    let mut state = 1u64;
    let mut block = vec![0; 1 << 20];
    for _ in 0..200 {
        for byte in &mut block {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 62) as u8;
        }
        encoder.write_all(&block).unwrap();
    }
    image_of_blob(encoder.finish().unwrap(), &sha256(b""))
}

fn layers_at_once() -> Vec<u8> {
    let layers: Vec<_> = (0..200)
        .map(|number| {
            let name = format!("f{number}");
            archive(&[file(&name, &"x".repeat(100_000))])
        })
        .collect();
    tarball(&docker_files(&layers, &["a"], |bytes| zstd::encode_all(bytes, 19).unwrap()))
}
