//! Several archives in one body, one behind the other: each in pieces, with a piece's length before it (four bytes, the
//! highest first), and a length of 0 at its end. So nobody need know how long they are before they have been packed.

use std::io::{self, Write};

const PIECE_BYTES: usize = 128 << 10;

/// Writes one archive.
pub(super) struct Framed<'a, W: Write> {
    out: &'a mut W,
    gathered: Vec<u8>,
}

impl<'a, W: Write> Framed<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Self {
        Self { out, gathered: Vec::with_capacity(PIECE_BYTES) }
    }

    /// The archive is whole.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(&[0; 4])
    }
}

impl<W: Write> Write for Framed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..count]);
        if self.gathered.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.gathered.len()).expect("a piece is small");
        self.out.write_all(&length.to_be_bytes())?;
        self.out.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_in_pieces_with_an_end() {
        let mut body = Vec::new();
        let mut framed = Framed::new(&mut body);
        framed.write_all(b"ab").unwrap();
        framed.write_all(b"c").unwrap();
        framed.finish().unwrap();
        Framed::new(&mut body).finish().unwrap();
        let mut large = Framed::new(&mut body);
        large.write_all(&vec![7; PIECE_BYTES + 1]).unwrap();
        large.finish().unwrap();
        assert_eq!(&body[..15], b"\0\0\0\x03abc\0\0\0\0\0\0\0\0");
        assert_eq!((&body[15..20], body.len()), (&b"\0\x02\0\0\x07"[..], 15 + 4 + PIECE_BYTES + 4 + 1 + 4));
    }
}
