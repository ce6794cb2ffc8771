use std::collections::BTreeMap;
use std::fs::File;

use dozen_model::LogFiles;

use super::settings::LogFileSettings;
use super::*;

fn settings(format: LogFormat) -> LogSettings {
    let files = LogFiles { file_size_bytes: 1 << 20, files: 2, compress: false };
    LogSettings { file: Some(LogFileSettings { format, files, attributes: BTreeMap::new() }), remote: None }
}

fn texts(path: &Path) -> Vec<String> {
    let text =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned();
    std::fs::read_to_string(path).unwrap().lines().map(text).collect()
}

#[test]
fn lines_are_whole_and_the_last_one_comes_with_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = ContainerLog::open(directory.path(), &settings(LogFormat::Json)).unwrap();
    log.push(Stream::Stdout, b"on");
    log.push(Stream::Stderr, b"two\n");
    log.push(Stream::Stdout, b"e\nthree");
    assert_eq!(log.held(Stream::Stdout), b"three");
    log.finish();
    assert_eq!(texts(&directory.path().join("log.json")), ["two\n", "one\n", "three"]);
}

#[test]
fn the_small_format_keeps_every_byte() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = ContainerLog::open(directory.path(), &settings(LogFormat::Compact)).unwrap();
    log.push(Stream::Stdout, b"\xff\0one\ntwo");
    log.finish();
    let file = std::fs::read(directory.path().join("log.local")).unwrap();
    let entries: Vec<_> = file.split(|byte| *byte == b'\n').filter_map(compact::decode).collect();
    let entries: Vec<_> = entries.iter().map(|(_, stream, text, newline)| (*stream, *text, *newline)).collect();
    assert_eq!(entries, [(Stream::Stdout, &b"\xff\0one"[..], true), (Stream::Stdout, b"two", false)]);
}

#[test]
fn nothing_is_kept_where_nothing_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = ContainerLog::open(directory.path(), &LogSettings::default()).unwrap();
    log.push(Stream::Stdout, b"one\ntwo");
    assert_eq!((log.held(Stream::Stdout), log.end().unwrap()), (&b"two"[..], None));
    log.finish();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// /dev/full answers every write with ENOSPC (full(4)).
#[test]
fn what_a_full_disk_has_cost_is_said_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = ContainerLog::open(directory.path(), &settings(LogFormat::Json)).unwrap();
    log.push(Stream::Stdout, b"kept\n");
    let full = File::options().append(true).open("/dev/full").unwrap();
    let file = log.kept.as_mut().unwrap().file.replace(full);
    log.push(Stream::Stdout, b"lost\nlost too\n");
    log.push(Stream::Stdout, b"lost, too\n");
    assert_eq!(log.missing().unwrap().0, 3);
    log.kept.as_mut().unwrap().file.replace(file);
    log.push(Stream::Stdout, b"kept again\n");
    assert_eq!(log.missing(), None);
    assert_eq!(
        texts(&directory.path().join("log.json")),
        [
            "kept\n",
            "dozen: 3 entries of the log are missing here: No space left on device (os error 28)\n",
            "kept again\n"
        ]
    );
}

#[test]
fn options_change_between_two_pieces_of_output() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = ContainerLog::open(directory.path(), &settings(LogFormat::Json)).unwrap();
    log.push(Stream::Stdout, b"one\ntw");
    let mut changed = settings(LogFormat::Json);
    let file = changed.file.as_mut().unwrap();
    file.files = LogFiles { file_size_bytes: 1, files: 9, compress: false };
    file.attributes.insert("tag".to_owned(), "new".to_owned());
    log.change(directory.path(), &changed).unwrap();
    log.push(Stream::Stdout, b"o\nthree\n");
    log.finish();
    let path = directory.path().join("log.json");
    let files: Vec<_> =
        [file::numbered(&path, 2), file::numbered(&path, 1), path].iter().map(|file| texts(file)).collect();
    assert_eq!(files, [["one\n"], ["two\n"], ["three\n"]]);
    let newest = std::fs::read_to_string(directory.path().join("log.json")).unwrap();
    assert!(newest.contains(r#""attrs":{"tag":"new"}"#), "{newest}");
}

#[test]
fn a_copy_is_begun_and_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = ContainerLog::open(directory.path(), &LogSettings::default()).unwrap();
    log.push(Stream::Stdout, b"before\nha");
    log.change(directory.path(), &settings(LogFormat::Compact)).unwrap();
    log.push(Stream::Stdout, b"lf\n");
    log.change(directory.path(), &LogSettings::default()).unwrap();
    log.push(Stream::Stdout, b"after\n");
    log.finish();
    let file = std::fs::read(directory.path().join("log.local")).unwrap();
    let entries: Vec<_> = file.split(|byte| *byte == b'\n').filter_map(compact::decode).map(|entry| entry.2).collect();
    assert_eq!(entries, [b"half"]);
}

#[test]
fn what_cannot_be_changed_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = ContainerLog::open(directory.path(), &settings(LogFormat::Json)).unwrap();
    log.change(directory.path(), &settings(LogFormat::Compact)).unwrap_err();
    log.push(Stream::Stdout, b"still json\n");
    assert_eq!(texts(&directory.path().join("log.json")), ["still json\n"]);
    let mut none = ContainerLog::open(directory.path(), &LogSettings::default()).unwrap();
    let nowhere = directory.path().join("nowhere");
    none.change(&nowhere, &settings(LogFormat::Json)).unwrap_err();
    assert_eq!(none.end().unwrap(), None);
}
