use flate2::{Decompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::*;

/// The plain bytes of a raw stream that does not end, of what is known before it.
fn inflated(packed: &[u8], before: &[u8], length: usize) -> Vec<u8> {
    let mut decoder = Decompress::new(false);
    // Stored, so that it can be referred to.
    let mut all = Vec::new();
    let mut bits = Bits::new(&mut all);
    for part in before.chunks(STORED_BYTES) {
        stored(&mut bits, part);
    }
    bits.finish();
    all.extend_from_slice(packed);
    // An empty last block ends it.
    all.extend_from_slice(&[0x03, 0x00]);
    let mut out = Vec::with_capacity(before.len() + length + 1);
    let status = decoder.decompress_vec(&all, &mut out, FlushDecompress::Finish).unwrap();
    assert_eq!((status, decoder.total_in()), (Status::StreamEnd, all.len() as u64));
    out.split_off(before.len())
}

fn check(bytes: &[u8], from: usize) -> usize {
    let mut deflate = Deflate::new();
    let mut out = b"x".to_vec();
    deflate.compress(bytes, from, &mut out);
    assert_eq!(out[0], b'x');
    let packed = out.split_off(1);
    assert!(inflated(&packed, &bytes[..from], bytes.len() - from) == bytes[from..], "{} bytes", bytes.len() - from);
    // Whatever it has seen before, it makes the same of it.
    let mut again = Vec::new();
    deflate.compress(bytes, from, &mut again);
    assert!(again == packed);
    packed.len()
}

/// Bytes from a generator that is the same everywhere (xorshift64).
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn what_is_alike_gets_small_and_what_is_not_stays() {
    assert_eq!(check(b"", 0), 0);
    assert!(check(b"a", 0) < 8);
    let zeros = check(&vec![0; PART_BYTES], 0);
    assert!(zeros < 1500, "{zeros}");
    let noise = noise(PART_BYTES);
    let packed = check(&noise, 0);
    assert!(packed < PART_BYTES + 60, "{packed}");
    // Five bits of eight.
    let letters: Vec<u8> = noise.iter().map(|byte| byte & 31).collect();
    let packed = check(&letters, 0);
    assert!(packed < PART_BYTES * 64 / 100, "{packed}");
    // What stands before counts.
    let twice = [&noise[..WINDOW_BYTES], &noise[..WINDOW_BYTES]].concat();
    let packed = check(&twice, WINDOW_BYTES);
    assert!(packed < 2000, "{packed}");
    // One byte too far.
    let far = [&noise[..WINDOW_BYTES], b"!", &noise[..WINDOW_BYTES]].concat();
    assert!(check(&far, WINDOW_BYTES + 1) > WINDOW_BYTES / 2);
    check(&[noise.as_slice(), &letters, &vec![1; 70_000]].concat(), WINDOW_BYTES);
}

#[test]
fn real_files_come_back() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    for part in own.chunks(PART_BYTES).take(40) {
        check(part, 0);
        check(part, part.len().min(WINDOW_BYTES));
    }
    let sources = [include_str!("../deflate.rs"), include_str!("tests.rs"), include_str!("../lib.rs")].concat();
    let packed = check(sources.as_bytes(), 0);
    assert!(packed < sources.len() / 2, "{packed} of {}", sources.len());
}

#[test]
fn runs_of_code_lengths() {
    let lengths = [&[0; 150][..], &[8; 144], &[9; 3], &[7], &[0; 2], &[5; 2], &[0; 10]].concat();
    let mut back: Vec<u8> = Vec::new();
    for (symbol, more) in run_lengths(&lengths) {
        let more = usize::from(more);
        let (length, times) = match symbol {
            16 => (*back.last().unwrap(), more + 3),
            17 => (0, more + 3),
            18 => (0, more + 11),
            own => (own, 1),
        };
        assert!(more < 1 << bits_after_run(symbol));
        back.extend(std::iter::repeat_n(length, times));
    }
    assert_eq!(back, lengths);
}

/// Pieces that come again, of several alphabets.
pub(crate) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = (any::<u64>(), 1u32..8, 1usize..3000, 0usize..60_000).prop_map(|(seed, bits, length, back)| {
        let mut state = seed | 1;
        let next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as u8 & ((1u16 << bits) - 1) as u8
        };
        (std::iter::repeat_with(next).take(length).collect::<Vec<u8>>(), back)
    });
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| {
        let mut all: Vec<u8> = Vec::new();
        for (piece, back) in pieces {
            all.extend_from_slice(&piece);
            let begin = all.len().saturating_sub(back);
            let end = (begin + piece.len() / 2).min(all.len());
            all.extend_from_within(begin..end);
        }
        all
    })
}

proptest! {
    #[test]
    fn whatever_goes_in_comes_out(bytes in bytes(), from in any::<proptest::sample::Index>()) {
        check(&bytes, 0);
        if !bytes.is_empty() {
            check(&bytes, from.index(bytes.len()));
        }
    }

    #[test]
    fn few_bytes_too(bytes in proptest::collection::vec(0u8..3, 0..40)) {
        check(&bytes, 0);
    }
}
