//! Several archives in one body, one behind the other. Nobody knows how long they are before they have been packed: so
//! each comes in pieces, with a piece's length before it (four bytes, the highest first), and ends with a length of 0.

use std::io::{self, Read};

/// Reads them.
pub(super) struct Frames<R>(R);

/// The archive that is being read.
pub(super) struct Archive<'a, R> {
    body: &'a mut R,
    /// Of the piece.
    left: u64,
    is_over: bool,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(body: R) -> Self {
        Self(body)
    }

    /// Gives the next archive to `take`. What that leaves of it is passed over.
    pub(super) fn next<T, E: From<io::Error>>(
        &mut self,
        take: impl FnOnce(&mut Archive<'_, R>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut archive = Archive { body: &mut self.0, left: 0, is_over: false };
        let taken = take(&mut archive)?;
        io::copy(&mut archive, &mut io::sink())?;
        Ok(taken)
    }
}

impl<R: Read> Read for Archive<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over {
            let mut length = [0; 4];
            self.body.read_exact(&mut length)?;
            self.left = u32::from_be_bytes(length).into();
            self.is_over = self.left == 0;
        }
        let most = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        match self.body.read(&mut out[..most])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body ends in the middle of an archive")),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &[u8], count: usize) -> io::Result<Vec<String>> {
        let mut frames = Frames::new(body);
        let text = |archive: &mut Archive<'_, &[u8]>| {
            let mut text = String::new();
            archive.read_to_string(&mut text).map(|_| text)
        };
        (0..count).map(|_| frames.next(text)).collect()
    }

    #[test]
    fn archives_lie_one_behind_the_other() {
        let body = b"\0\0\0\x02ab\0\0\0\x01c\0\0\0\0\0\0\0\0\0\0\0\x01d\0\0\0\0rest";
        assert_eq!(texts(body, 3).unwrap(), ["abc", "", "d"]);
        // Who has seen enough reads no further, and the next begins where it begins.
        let mut frames = Frames::new(&body[..]);
        frames.next(|_| Ok::<_, io::Error>(())).unwrap();
        frames.next(|_| Ok::<_, io::Error>(())).unwrap();
        let last = frames.next(|archive| io::read_to_string(archive)).unwrap();
        assert_eq!(last, "d");
    }

    #[test]
    fn what_breaks_off_is_no_archive() {
        for body in [&b""[..], b"\0\0", b"\0\0\0\x02a", b"\0\0\0\x02ab", b"\xff\xff\xff\xffab"] {
            assert_eq!(texts(body, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{body:?}");
        }
    }
}
