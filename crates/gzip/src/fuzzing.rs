//! A way in for the fuzzer (`fuzz/`), and the test that runs what it has found again.

use std::io::{Read, Write};

use flate2::bufread::GzDecoder;

use crate::{GzipWriter, Level, PART_BYTES};

/// Whatever goes in comes out, and is one member. The first byte says how much stands before the rest of the input, up to two
/// parts, so that a part's end falls into it.
pub fn stream(data: &[u8]) {
    let Some((before, rest)) = data.split_first() else { return };
    let mut plain = vec![b'.'; usize::from(*before) * (2 * PART_BYTES / 255)];
    for piece in rest.chunks(64) {
        plain.extend_from_slice(piece);
        // What was there comes again, from as far back and in as many bytes as the piece says.
        let [back, length, ..] = *piece else { continue };
        let from = plain.len().saturating_sub(usize::from(back) << 8);
        let to = plain.len().min(from + usize::from(length) * 4);
        plain.extend_from_within(from..to);
    }
    let mut writer = GzipWriter::new(Vec::new(), Level::Fast, 2).expect("threads can be started");
    writer.write_all(&plain).expect("it is written to memory");
    let packed = writer.finish().expect("it is written to memory");
    let (mut decoder, mut unpacked) = (GzDecoder::new(packed.as_slice()), Vec::new());
    decoder.read_to_end(&mut unpacked).expect("it is a stream");
    assert!(unpacked == plain && decoder.into_inner().is_empty());
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn streams() {
        replay("gzip", super::stream);
    }
}
