use std::io::Read;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::deflate::tests::{bytes, noise};

fn packed(bytes: &[u8], level: Level, threads: usize, piece: usize) -> Vec<u8> {
    let mut writer = GzipWriter::new(Vec::new(), level, threads).unwrap();
    for piece in bytes.chunks(piece) {
        writer.write_all(piece).unwrap();
    }
    writer.finish().unwrap()
}

/// By a reader that knows of one member alone, and takes nothing after it.
fn plain(packed: &[u8]) -> Vec<u8> {
    let mut reader = flate2::bufread::GzDecoder::new(packed);
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).unwrap();
    assert!(reader.into_inner().is_empty(), "something stands after the stream");
    plain
}

fn by_program(packed: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, given) = (gzip.stdin.take().unwrap(), packed.to_vec());
    let writing = std::thread::spawn(move || input.write_all(&given));
    let out = gzip.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(out.status.success());
    out.stdout
}

/// Several parts, of all kinds.
fn sample() -> Vec<u8> {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let own = &own[..own.len().min(5 * PART_BYTES / 2)];
    [&noise(PART_BYTES / 2), own, &vec![0; 3 * PART_BYTES], b"the end"].concat()
}

const LEVELS: [Level; 4] = [Level::Fast, Level::Zlib(1), Level::Zlib(6), Level::Zlib(9)];

#[test]
fn the_same_stream_whatever_the_number_of_threads() {
    let sample = sample();
    for level in LEVELS {
        let one = packed(&sample, level, 1, 1 << 20);
        assert!(plain(&one) == sample, "{level:?}");
        assert!(by_program(&one) == sample, "{level:?}");
        for threads in [2, 5] {
            assert!(packed(&sample, level, threads, 1000) == one, "{level:?} {threads}");
        }
    }
}

#[test]
fn parts_end_where_they_end() {
    let sample = sample();
    for length in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES] {
        for level in LEVELS {
            let packed = packed(&sample[..length], level, 2, 4000);
            assert!(plain(&packed) == sample[..length], "{length} {level:?}");
            assert!(by_program(&packed) == sample[..length], "{length} {level:?}");
        }
    }
}

/// Takes so many bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_cannot_be_passed_on_is_said() {
    let noise = noise(PART_BYTES);
    for takes in [0, 10, PART_BYTES, 3 * PART_BYTES] {
        let mut writer = GzipWriter::new(Full(takes), Level::Fast, 2).unwrap();
        let written = (0..50).try_for_each(|_| writer.write_all(&noise));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull, "{takes}");
        assert!(writer.write_all(&noise).is_err() || writer.finish().is_err());
        // What is found out in the end is said there.
        let mut writer = GzipWriter::new(Full(takes), Level::Fast, 2).unwrap();
        writer.write_all(&noise[..1000]).unwrap();
        let finished = writer.finish().map(|_| ()).map_err(|error| error.kind());
        assert_eq!(finished, if takes < 1000 { Err(io::ErrorKind::StorageFull) } else { Ok(()) });
    }
    // One that is given up says nothing.
    let mut writer = GzipWriter::new(Vec::new(), Level::Fast, 3).unwrap();
    writer.write_all(&noise).unwrap();
    drop(writer);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_in_comes_out(bytes in bytes(), times in 1usize..4, threads in 1usize..4, fast in any::<bool>()) {
        let bytes = bytes.repeat(times);
        let level = if fast { Level::Fast } else { Level::Zlib(2) };
        let packed = packed(&bytes, level, threads, 70_000);
        prop_assert!(plain(&packed) == bytes);
    }
}
