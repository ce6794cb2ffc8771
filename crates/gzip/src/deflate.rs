//! DEFLATE (RFC 1951) in little time. Of each place the last one is known that began with the same five bytes, and what is
//! the same there is taken: nothing better is looked for. Where nothing is found for long, fewer and fewer places are
//! looked at. Blocks have codes of their own, or are stored where those would make them no smaller.

use crate::bits::Bits;
use crate::huffman::{Code, codes};
use crate::symbols::{
    CODE_LENGTHS, DISTANCES, END, LITERALS, LONGEST, ORDER, bits_after_distance, bits_after_length, of_distance,
    of_length,
};
use crate::{PART_BYTES, WINDOW_BYTES};

/// Bytes that have a code of their own: more of them cost less for the code, fewer have one that fits better.
const BLOCK_BYTES: usize = 64 * 1024;
/// What a stored block may have (section 3.2.4).
const STORED_BYTES: usize = 65535;
const TABLE_BITS: u32 = 15;
/// Bytes that are looked up, and so many are read for it.
const WORD_BYTES: usize = 8;
/// As many misses make the next step one longer.
const PATIENCE_BITS: u32 = 5;
/// Four bytes that lie farther back take as much as themselves.
const FAR_BYTES: usize = 1024;
/// Of literals and lengths: with it four literals fit into a word, seven bits that are held beside them.
const LITERAL_LIMIT: usize = 14;
const DISTANCE_LIMIT: usize = 15;
const CODE_LENGTH_LIMIT: usize = 7;

/// See the module. It is used again, and remembers nothing of what was before.
pub(crate) struct Deflate {
    /// Where five bytes were last, by their hash.
    table: Box<[u32; 1 << TABLE_BITS]>,
    sequences: Vec<Sequence>,
}

/// So many bytes as they are, then a match; of length 0: none.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    literals: u32,
    length: u16,
    distance: u16,
}

impl Deflate {
    pub(crate) fn new() -> Self {
        let table = vec![0; 1 << TABLE_BITS].into_boxed_slice().try_into().expect("it is as long");
        Self { table, sequences: Vec::with_capacity(PART_BYTES / 16) }
    }

    /// Appends what `bytes` are from `from` on, which may refer to what is before that. It ends on a byte's boundary, and is
    /// no end of a stream.
    pub(crate) fn compress(&mut self, bytes: &[u8], from: usize, out: &mut Vec<u8>) {
        // What comes out depends on nothing that this one has seen before.
        self.table.fill(0);
        for at in (from.saturating_sub(WINDOW_BYTES)..from).step_by(2) {
            if let Some(word) = word(bytes, at) {
                self.table[slot(word)] = at as u32;
            }
        }
        let mut bits = Bits::new(out);
        let mut begin = from;
        while begin < bytes.len() {
            let end = bytes.len().min(begin + BLOCK_BYTES);
            self.find(&bytes[..end], begin);
            write(&mut bits, &bytes[begin..end], &self.sequences);
            begin = end;
        }
        if !bits.is_aligned() {
            stored(&mut bits, &[]);
        }
        bits.finish();
    }

    /// Finds what of `bytes` from `begin` on was there before.
    fn find(&mut self, bytes: &[u8], begin: usize) {
        self.sequences.clear();
        let (mut at, mut written, mut misses) = (begin, begin, 0);
        while let Some(now) = word(bytes, at) {
            let known = &mut self.table[slot(now)];
            let candidate = *known as usize;
            *known = at as u32;
            let is_near = candidate < at && at - candidate <= WINDOW_BYTES;
            let is_same = is_near && word(bytes, candidate).is_some_and(|before| before as u32 == now as u32);
            let after = if is_same { common(&bytes[candidate + 4..], &bytes[at + 4..]) } else { 0 };
            if !is_same || (after == 0 && at - candidate > FAR_BYTES) {
                at += 1 + (misses >> PATIENCE_BITS);
                misses += 1;
                continue;
            }
            let before = bytes[written..at].iter().rev().zip(bytes[..candidate].iter().rev());
            let before = before.take_while(|(one, other)| one == other).count();
            let length = (before + 4 + after).min(LONGEST);
            let literals = at - before - written;
            self.sequences.push(Sequence {
                literals: literals as u32,
                length: length as u16,
                distance: (at - candidate) as u16,
            });
            written += literals + length;
            (at, misses) = (written, 0);
            if let Some(word) = word(bytes, at - 2) {
                self.table[slot(word)] = (at - 2) as u32;
            }
        }
        let literals = (bytes.len() - written) as u32;
        if literals > 0 {
            self.sequences.push(Sequence { literals, length: 0, distance: 0 });
        }
    }
}

/// The eight bytes from here on, if there are as many.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..)?.first_chunk::<WORD_BYTES>()?;
    Some(u64::from_le_bytes(*word))
}

/// Of the first five of them (Knuth's multiplicative hashing).
#[inline(always)]
fn slot(word: u64) -> usize {
    ((word << 24).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_BITS)) as usize
}

/// How many bytes are the same, of as many as a match can have.
#[inline]
fn common(before: &[u8], now: &[u8]) -> usize {
    let mut length = 0;
    while length < LONGEST {
        let (Some(one), Some(other)) = (word(before, length), word(now, length)) else {
            let rest = before[length..].iter().zip(&now[length..]);
            return length + rest.take_while(|(one, other)| one == other).count();
        };
        let differing = one ^ other;
        if differing != 0 {
            return length + differing.trailing_zeros() as usize / 8;
        }
        length += WORD_BYTES;
    }
    length
}

/// One block of the stream, which is none too long to be stored.
fn write(bits: &mut Bits<'_>, bytes: &[u8], sequences: &[Sequence]) {
    let (mut literals, mut distances) = count(bytes, sequences);
    let literal_codes = codes(&mut literals, LITERAL_LIMIT);
    let distance_codes = codes(&mut distances, DISTANCE_LIMIT);
    let header = Header::of(&literal_codes, &distance_codes);
    let weigh = |counts: &[u32], codes: &[Code], more: fn(usize) -> u32| -> usize {
        let all = counts.iter().zip(codes).enumerate();
        all.map(|(symbol, (count, code))| *count as usize * (usize::from(code.length) + more(symbol) as usize)).sum()
    };
    let body = weigh(&literals, &literal_codes, bits_after_length)
        + weigh(&distances, &distance_codes, bits_after_distance)
        + header.bits;
    if body / 8 >= bytes.len() {
        for part in bytes.chunks(STORED_BYTES) {
            stored(bits, part);
        }
        return;
    }
    bits.reserve(body / 8 + 16);
    header.write(bits);
    let mut rest = bytes;
    for Sequence { literals, length, distance } in sequences {
        let (own, after) = rest.split_at(*literals as usize);
        for four in own.chunks(4) {
            for byte in four {
                let code = literal_codes[usize::from(*byte)];
                bits.push(code.bits.into(), code.length.into());
            }
            bits.flush();
        }
        rest = &after[usize::from(*length)..];
        if *length > 0 {
            let (length, distance) = (of_length(u32::from(*length)), of_distance(u32::from(*distance)));
            for (code, symbol) in [(literal_codes[length.symbol], length), (distance_codes[distance.symbol], distance)]
            {
                bits.push(code.bits.into(), code.length.into());
                bits.push(symbol.extra.into(), symbol.extra_bits);
            }
            bits.flush();
        }
    }
    let end = literal_codes[END];
    bits.push(end.bits.into(), end.length.into());
    bits.flush();
}

/// How often each symbol is there.
fn count(bytes: &[u8], sequences: &[Sequence]) -> ([u32; LITERALS], [u32; DISTANCES]) {
    // The same byte mostly comes again soon: each of four counts in a table of its own, so that none waits for another.
    let mut four = [[0u32; 256]; 4];
    let (mut literals, mut distances) = ([0; LITERALS], [0; DISTANCES]);
    let mut rest = bytes;
    for Sequence { literals: own, length, distance } in sequences {
        let (own, after) = rest.split_at(*own as usize);
        let mut chunks = own.chunks_exact(4);
        for chunk in chunks.by_ref() {
            for (counts, byte) in four.iter_mut().zip(chunk) {
                counts[usize::from(*byte)] += 1;
            }
        }
        for byte in chunks.remainder() {
            four[0][usize::from(*byte)] += 1;
        }
        rest = &after[usize::from(*length)..];
        if *length > 0 {
            literals[of_length(u32::from(*length)).symbol] += 1;
            distances[of_distance(u32::from(*distance)).symbol] += 1;
        }
    }
    for counts in four {
        for (all, count) in literals.iter_mut().zip(counts) {
            *all += count;
        }
    }
    literals[END] = 1;
    (literals, distances)
}

/// A stored block (section 3.2.4). Of no bytes it is what brings the stream to a byte's boundary.
fn stored(bits: &mut Bits<'_>, bytes: &[u8]) {
    bits.reserve(16);
    bits.push(0b000, 3);
    bits.align();
    let length = bytes.len() as u16;
    bits.bytes(&length.to_le_bytes());
    bits.bytes(&(!length).to_le_bytes());
    bits.bytes(bytes);
}

/// What stands before a block with codes of its own (section 3.2.7).
struct Header {
    /// Of literals and lengths; of distances; of code lengths in their order.
    sizes: [usize; 3],
    codes: [Code; CODE_LENGTHS],
    /// Symbols, and what follows them.
    lengths: Vec<(u8, u8)>,
    /// All of it.
    bits: usize,
}

impl Header {
    fn of(literals: &[Code; LITERALS], distances: &[Code; DISTANCES]) -> Self {
        let used = |codes: &[Code]| codes.iter().rposition(|code| code.length > 0).map_or(0, |last| last + 1);
        let (of_literals, of_distances) = (used(literals), used(distances));
        let all: Vec<u8> =
            literals[..of_literals].iter().chain(&distances[..of_distances]).map(|code| code.length).collect();
        let lengths = run_lengths(&all);
        let mut counts = [0; CODE_LENGTHS];
        for (symbol, _) in &lengths {
            counts[usize::from(*symbol)] += 1;
        }
        let codes = codes(&mut counts, CODE_LENGTH_LIMIT);
        let of_codes = ORDER.iter().rposition(|symbol| codes[*symbol].length > 0).map_or(4, |last| (last + 1).max(4));
        let of_lengths = lengths
            .iter()
            .map(|(symbol, _)| usize::from(codes[usize::from(*symbol)].length) + bits_after_run(*symbol) as usize);
        let bits = 3 + 5 + 5 + 4 + 3 * of_codes + of_lengths.sum::<usize>();
        Self { sizes: [of_literals, of_distances, of_codes], codes, lengths, bits }
    }

    fn write(&self, bits: &mut Bits<'_>) {
        let [literals, distances, codes] = self.sizes;
        bits.push(0b100, 3);
        bits.push((literals - 257) as u64, 5);
        bits.push((distances - 1) as u64, 5);
        bits.push((codes - 4) as u64, 4);
        for symbol in &ORDER[..codes] {
            bits.flush();
            bits.push(self.codes[*symbol].length.into(), 3);
        }
        for (symbol, more) in &self.lengths {
            bits.flush();
            let code = self.codes[usize::from(*symbol)];
            bits.push(code.bits.into(), code.length.into());
            bits.push((*more).into(), bits_after_run(*symbol));
        }
        bits.flush();
    }
}

fn bits_after_run(symbol: u8) -> u32 {
    match symbol {
        16 => 2,
        17 => 3,
        18 => 7,
        _ => 0,
    }
}

/// Code lengths, those that come several times as such: 16 is 3 to 6 times the one before, 17 is 3 to 10 zeros, 18 are 11 to
/// 138.
fn run_lengths(lengths: &[u8]) -> Vec<(u8, u8)> {
    let mut all = Vec::with_capacity(lengths.len());
    for run in lengths.chunk_by(|one, other| one == other) {
        let (length, mut left) = (run[0], run.len());
        if length > 0 {
            all.push((length, 0));
            left -= 1;
        }
        while left > 0 {
            let (taken, symbol) = match (length, left) {
                (0, 11..) => (left.min(138), (18, left.min(138) - 11)),
                (0, 3..) => (left.min(10), (17, left.min(10) - 3)),
                (1.., 3..) => (left.min(6), (16, left.min(6) - 3)),
                _ => (1, (length, 0)),
            };
            all.push((symbol.0, symbol.1 as u8));
            left -= taken;
        }
    }
    all
}

#[cfg(test)]
pub(crate) mod tests;
