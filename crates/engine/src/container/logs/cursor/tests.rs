use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dozen_monitor::protocol::LogEnd;
use flate2::{Compression, GzBuilder};

use super::files::BLOCK_BYTES;

use super::*;

pub(in crate::container::logs) fn line(text: &str, stream: &str, second: u32) -> String {
    format!("{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{second:02}.000000000Z\"}}\n")
}

fn both() -> LogOptions {
    LogOptions { stdout: true, stderr: true, ..LogOptions::default() }
}

fn cursor_at(path: &Path, options: LogOptions) -> Cursor {
    Cursor::new(path.to_owned(), LogFormat::Json, options)
}

/// All that there is now.
fn rest(cursor: &mut Cursor) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let (batch, state) = cursor.next_batch(&|| false).unwrap();
        lines.extend(batch.iter().map(|entry| String::from_utf8_lossy(entry.line.trim_ascii_end()).into_owned()));
        if state != State::More {
            return lines;
        }
    }
}

#[track_caller]
fn check(options: LogOptions, files: &[(&str, String)], expected: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    assert_eq!(rest(&mut cursor_at(&directory.path().join("log.json"), options)), expected);
}

fn files() -> Vec<(&'static str, String)> {
    vec![
        ("log.json.1", line("a", "stdout", 1) + &line("b", "stderr", 2)),
        ("log.json", line("c", "stdout", 3) + &line("d", "stdout", 4) + "{\"log\":\"half"),
    ]
}

#[test]
fn rotated_files_are_read_in_order_and_half_a_line_is_left() {
    check(both(), &files(), &["a", "b", "c", "d"]);
    check(LogOptions { follow: true, ..both() }, &files(), &["a", "b", "c", "d"]);
}

#[test]
fn a_rotation_under_way_hides_nothing() {
    let [first, second] = files().try_into().unwrap();
    check(both(), &[("log.json.1", first.1), ("log.json.2", second.1)], &["c", "d", "a", "b"]);
}

#[test]
fn parts_of_a_log() {
    check(LogOptions { stderr: true, ..LogOptions::default() }, &files(), &["b"]);
    let at = |second: u32| Some(format!("2026-01-01T00:00:{second:02}Z").parse().unwrap());
    check(LogOptions { since: at(2), until: at(3), ..both() }, &files(), &["b", "c"]);
}

#[test]
fn the_last_lines_of_a_log() {
    let all = ["a", "b", "c", "d"];
    for lines in 0..6 {
        for follow in [false, true] {
            let options = LogOptions { tail: Some(lines as u64), follow, ..both() };
            check(options, &files(), &all[4_usize.saturating_sub(lines)..]);
        }
    }
    check(LogOptions { tail: Some(u64::MAX), ..both() }, &files(), &all);
    check(LogOptions { tail: Some(3), stderr: true, ..LogOptions::default() }, &files(), &["b"]);
    check(LogOptions { tail: Some(2), stderr: true, ..LogOptions::default() }, &files(), &[]);
    check(LogOptions { tail: Some(1), ..both() }, &[], &[]);
}

#[test]
fn last_lines_are_found_at_every_place_of_a_block() {
    // Lines of one, two, … bytes more, so that their ends fall on every side of a block's.
    let texts: Vec<String> = (0..700).map(|number| "x".repeat(number)).collect();
    let log: String = texts.iter().map(|text| line(text, "stdout", 1)).collect();
    assert!(log.len() > 4 * BLOCK_BYTES);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.json");
    std::fs::write(&path, log).unwrap();
    for lines in [1, 89, 90, 91, 92, 300, 699, 700, 701] {
        let options = LogOptions { tail: Some(lines), ..both() };
        let got = rest(&mut cursor_at(&path, options));
        assert_eq!(got, texts[700_usize.saturating_sub(lines as usize)..], "{lines}");
    }
}

/// However many lines are asked for, no more than a batch is in memory.
#[test]
fn a_batch_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.json");
    let many = 40_000;
    std::fs::write(&path, line(&"x".repeat(60), "stdout", 1).repeat(many)).unwrap();
    let mut cursor = cursor_at(&path, LogOptions { tail: Some(1_000_000_000), ..both() });
    let mut count = 0;
    loop {
        let (batch, state) = cursor.next_batch(&|| false).unwrap();
        assert!(batch.len() <= BATCH_ENTRIES && batch.text_bytes() < BATCH_BYTES + 100, "{}", batch.len());
        count += batch.len();
        if state != State::More {
            break;
        }
    }
    assert_eq!(count, many);
    // Nor is it read to its end for one batch, where nothing of it is wanted.
    let mut cursor = cursor_at(&path, LogOptions { stderr: true, ..LogOptions::default() });
    let (batch, state) = cursor.next_batch(&|| false).unwrap();
    assert_eq!((batch.len(), batch.text_bytes(), state), (0, 0, State::More));
    assert!(cursor.current.unwrap().offset < BATCH_READ_BYTES + 1024);
}

#[test]
fn a_torn_line_is_passed_over_and_no_log_is_an_empty_log() {
    check(both(), &[("log.json", "garbage\n".to_owned() + &line("a", "stdout", 1))], &["a"]);
    check(both(), &[("log.json", "\0".repeat(1 << 20) + "\n" + &line("a", "stdout", 1))], &["a"]);
    check(both(), &[], &[]);
}

#[test]
fn what_is_written_while_a_log_is_read_is_for_those_who_follow() {
    for follow in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        std::fs::write(&path, line("a", "stdout", 1).repeat(BATCH_ENTRIES + 1)).unwrap();
        let mut cursor = cursor_at(&path, LogOptions { follow, ..both() });
        assert_eq!(cursor.next_batch(&|| false).unwrap().1, State::More);
        File::options().append(true).open(&path).unwrap().write_all(line("b", "stdout", 1).as_bytes()).unwrap();
        assert_eq!(rest(&mut cursor), if follow { vec!["a", "b"] } else { vec!["a"] });
    }
}

#[test]
fn a_log_is_read_up_to_a_place_whatever_was_written_and_rotated_since() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.json");
    std::fs::write(path.with_extension("json.1"), line("a", "stdout", 1)).unwrap();
    std::fs::write(&path, line("b", "stdout", 2)).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    let end = Some(LogEnd { inode: metadata.ino(), size_bytes: metadata.len() });
    let read = || rest(&mut cursor_at(&path, LogOptions { end, ..both() }));
    assert_eq!(read(), ["a", "b"]);
    File::options().append(true).open(&path).unwrap().write_all(line("c", "stdout", 3).as_bytes()).unwrap();
    assert_eq!(read(), ["a", "b"]);
    std::fs::rename(path.with_extension("json.1"), path.with_extension("json.2")).unwrap();
    std::fs::rename(&path, path.with_extension("json.1")).unwrap();
    std::fs::write(&path, line("d", "stdout", 4)).unwrap();
    assert_eq!(read(), ["a", "b"]);
}

#[test]
fn a_follower_misses_nothing_of_rotations() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.json");
    let numbered = |number: u32| path.with_extension(format!("json.{number}"));
    let mut cursor = cursor_at(&path, LogOptions { follow: true, ..both() });
    assert_eq!(rest(&mut cursor), [""; 0], "it has not begun");
    std::fs::write(&path, line("a", "stdout", 1)).unwrap();
    assert_eq!(rest(&mut cursor), ["a"]);
    // What was written to the old file before it was renamed, and two files since.
    let mut old = File::options().append(true).open(&path).unwrap();
    old.write_all(line("b", "stdout", 2).as_bytes()).unwrap();
    std::fs::rename(&path, numbered(1)).unwrap();
    assert_eq!(rest(&mut cursor), ["b"]);
    old.write_all(line("c", "stdout", 2).as_bytes()).unwrap();
    std::fs::rename(numbered(1), numbered(2)).unwrap();
    std::fs::write(numbered(1), line("d", "stdout", 3)).unwrap();
    std::fs::write(&path, line("e", "stdout", 3)).unwrap();
    assert_eq!(rest(&mut cursor), ["c", "d", "e"]);
    // The one that it was in has been thrown away.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(numbered(1), line("f", "stdout", 4)).unwrap();
    std::fs::write(&path, line("g", "stdout", 4)).unwrap();
    std::fs::remove_file(numbered(2)).unwrap();
    assert_eq!(rest(&mut cursor), ["f", "g"]);
    // Where one file is kept, it is emptied.
    std::fs::write(&path, "").unwrap();
    assert_eq!(rest(&mut cursor), [""; 0]);
    File::options().append(true).open(&path).unwrap().write_all(line("h", "stdout", 5).as_bytes()).unwrap();
    assert_eq!(rest(&mut cursor), ["h"]);
}

/// As the monitor's child does it: the header says what the file was.
fn compress(path: &Path, number: u32) {
    let source = path.with_extension(format!("json.{number}"));
    let inode = std::fs::metadata(&source).unwrap().ino();
    let target = File::create(path.with_extension(format!("json.{number}.gz"))).unwrap();
    let extra = [&b"DZ\x08\0"[..], &inode.to_le_bytes()].concat();
    let mut encoder = GzBuilder::new().extra(extra).write(target, Compression::fast());
    encoder.write_all(&std::fs::read(&source).unwrap()).unwrap();
    encoder.finish().unwrap();
    std::fs::remove_file(source).unwrap();
}

#[test]
fn compressed_files_are_read_as_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.json");
    let numbered = |number: u32| path.with_extension(format!("json.{number}"));
    std::fs::write(numbered(2), line("a", "stdout", 1) + &line("b", "stdout", 1)).unwrap();
    std::fs::write(numbered(1), line("c", "stderr", 2) + &line("d", "stdout", 2)).unwrap();
    std::fs::write(&path, line("e", "stdout", 3)).unwrap();
    compress(&path, 2);
    let all = ["a", "b", "c", "d", "e"];
    for _ in 0..2 {
        for lines in 0..7 {
            let options = LogOptions { tail: Some(lines as u64), ..both() };
            assert_eq!(rest(&mut cursor_at(&path, options)), all[5_usize.saturating_sub(lines)..], "{lines}");
        }
        assert_eq!(rest(&mut cursor_at(&path, LogOptions { follow: true, ..both() })), all);
        // A kill between the two steps has left both; the compressed one may be anything.
        if !numbered(1).exists() {
            break;
        }
        compress(&path, 1);
    }
    std::fs::write(numbered(2), line("a", "stdout", 1) + &line("b", "stdout", 1)).unwrap();
    std::fs::write(path.with_extension("json.2.gz"), "half").unwrap();
    assert_eq!(rest(&mut cursor_at(&path, both())), all);
}

#[test]
fn a_follower_knows_the_file_that_was_compressed_under_its_eyes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.json");
    let numbered = |number: u32| path.with_extension(format!("json.{number}"));
    std::fs::write(&path, line("a", "stdout", 1)).unwrap();
    let mut cursor = cursor_at(&path, LogOptions { follow: true, ..both() });
    assert_eq!(rest(&mut cursor), ["a"]);
    File::options().append(true).open(&path).unwrap().write_all(line("b", "stdout", 1).as_bytes()).unwrap();
    std::fs::rename(&path, numbered(2)).unwrap();
    std::fs::write(numbered(1), line("c", "stdout", 2)).unwrap();
    std::fs::write(&path, line("d", "stdout", 3)).unwrap();
    compress(&path, 2);
    compress(&path, 1);
    assert_eq!(rest(&mut cursor), ["b", "c", "d"]);
    assert_eq!(rest(&mut cursor), [""; 0]);
}

#[test]
fn an_attachment_begins_where_its_log_ended_though_that_was_compressed_since() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.json");
    std::fs::write(&path, line("a", "stdout", 1)).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    let end = Some(LogEnd { inode: metadata.ino(), size_bytes: metadata.len() });
    File::options().append(true).open(&path).unwrap().write_all(line("b", "stdout", 1).as_bytes()).unwrap();
    std::fs::rename(&path, path.with_extension("json.1")).unwrap();
    std::fs::write(&path, line("c", "stdout", 2)).unwrap();
    compress(&path, 1);
    assert_eq!(rest(&mut cursor_at(&path, LogOptions { end, ..both() })), ["a"]);
}

#[test]
fn the_small_format_is_read_by_the_same_rules() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.local");
    let second = 1_767_225_600_000_000_000_u64;
    let entry = |second_of: u64, rest: &str| format!("{:016x}{rest}\n", second + second_of * 1_000_000_000);
    std::fs::write(&path, entry(0, "oa") + &entry(1, "Eb") + "garbage\n" + &entry(2, "oc") + "00").unwrap();
    let read = |options| {
        let mut cursor = Cursor::new(path.clone(), LogFormat::Compact, options);
        let (batch, _) = cursor.next_batch(&|| false).unwrap();
        batch.iter().map(|entry| String::from_utf8_lossy(entry.line).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(read(both()), ["a\n", "b", "c\n"]);
    assert_eq!(read(LogOptions { stderr: true, ..LogOptions::default() }), ["b"]);
    assert_eq!(read(LogOptions { since: Some("2026-01-01T00:00:01Z".parse().unwrap()), ..both() }), ["b", "c\n"]);
    assert_eq!(read(LogOptions { tail: Some(1), ..both() }), ["c\n"]);
}
