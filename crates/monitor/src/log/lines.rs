//! Output as it comes, cut into lines.
//!
//! The rules are Docker's: an entry per line, its newline included; a line longer than [`LONGEST_PIECE_BYTES`]
//! becomes several entries of which only the last ends with a newline; what has no newline yet is held back
//! until it has one, or until the stream ends. How the output was chunked on its way never shows.

/// The most bytes of output in one entry, as in Docker's copier.
pub const LONGEST_PIECE_BYTES: usize = 16 * 1024;

/// A line with its newline, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The bytes. A newline is the last of them, or is in none.
    pub text: &'a [u8],
    /// Which part of its line it is, from 1; 0 for a line that is whole.
    pub part: u32,
}

impl Piece<'_> {
    /// More of the line follows.
    pub fn is_torn(&self) -> bool {
        self.text.last() != Some(&b'\n')
    }
}

/// Cuts one stream into pieces.
#[derive(Debug, Default)]
pub struct LineCutter {
    /// An unfinished line, never longer than [`LONGEST_PIECE_BYTES`].
    held: Vec<u8>,
    /// So many parts of the line have gone.
    parts: u32,
}

impl LineCutter {
    /// An unfinished line, which is in no piece yet.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// Gives `take` every piece that `chunk` completes.
    pub fn push(&mut self, mut chunk: &[u8], take: &mut impl FnMut(Piece<'_>)) {
        while !chunk.is_empty() {
            let room = LONGEST_PIECE_BYTES - self.held.len();
            match memchr::memchr(b'\n', &chunk[..room.min(chunk.len())]) {
                Some(newline) => {
                    let (line, rest) = chunk.split_at(newline + 1);
                    let part = if self.parts == 0 { 0 } else { self.parts + 1 };
                    self.parts = 0;
                    if self.held.is_empty() {
                        take(Piece { text: line, part });
                    } else {
                        self.held.extend_from_slice(line);
                        take(Piece { text: &self.held, part });
                        self.held = Vec::new();
                    }
                    chunk = rest;
                }
                None => {
                    let (part, rest) = chunk.split_at(room.min(chunk.len()));
                    self.held.extend_from_slice(part);
                    if self.held.len() == LONGEST_PIECE_BYTES {
                        let whole = whole_characters(&self.held);
                        self.parts += 1;
                        take(Piece { text: &self.held[..whole], part: self.parts });
                        self.held.drain(..whole);
                    }
                    chunk = rest;
                }
            }
        }
    }

    /// The stream has ended: gives what was held back.
    pub fn finish(&mut self, take: &mut impl FnMut(Piece<'_>)) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            let part = if self.parts == 0 { 0 } else { self.parts + 1 };
            take(Piece { text: &held, part });
        }
        self.parts = 0;
    }
}

/// How much of `piece` to cut, so that no character is torn: all of it, unless it ends in the beginning of one.
fn whole_characters(piece: &[u8]) -> usize {
    let tail_start = piece.len().saturating_sub(4);
    for back in (tail_start..piece.len()).rev() {
        if piece[back] & 0xc0 == 0x80 {
            continue;
        }
        return match std::str::from_utf8(&piece[back..]) {
            Err(error) if error.error_len().is_none() && back > 0 => back,
            _ => piece.len(),
        };
    }
    piece.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(Vec<u8>, u32)> {
        let mut cutter = LineCutter::default();
        let mut pieces = Vec::new();
        let mut take = |piece: Piece<'_>| pieces.push((piece.text.to_vec(), piece.part));
        for chunk in chunks {
            cutter.push(chunk, &mut take);
        }
        cutter.finish(&mut take);
        pieces
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let long = "x".repeat(LONGEST_PIECE_BYTES);
        assert_eq!(
            cut(&[long.as_bytes(), b"\na\n"]),
            [(long.clone().into_bytes(), 1), (b"\n".to_vec(), 2), (b"a\n".to_vec(), 0)]
        );
        let short = "x".repeat(LONGEST_PIECE_BYTES - 1);
        let odd = format!("{short}€tail");
        assert_eq!(cut(&[odd.as_bytes()]), [(short.into_bytes(), 1), ("€tail".as_bytes().to_vec(), 2)]);
    }

    proptest! {
        /// Any chunking gives the same pieces, and they have every byte.
        #[test]
        fn chunking_never_shows(
            text in "([a-z€é\n\"]{0,40}|\n|x{9000}){0,8}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            chunks.push(&bytes[from..]);
            let pieces = cut(&chunks);
            prop_assert_eq!(&pieces, &cut(&[bytes]));
            prop_assert_eq!(pieces.into_iter().flat_map(|(text, _)| text).collect::<Vec<u8>>(), bytes);
        }
    }
}
