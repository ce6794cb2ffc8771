//! The one file that holds the contents of all others, one behind the other.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

/// Written at once.
const BUFFER_BYTES: usize = 1 << 20;

pub(super) struct Spool {
    file: File,
    /// What is not written yet is at its beginning.
    buffer: Box<[u8]>,
    used: usize,
    /// Where that belongs.
    written: u64,
}

/// Whose fault it is.
#[derive(Debug)]
pub(super) enum Failure {
    /// What is read from.
    Source(io::Error),
    /// The spool itself.
    Spool(io::Error),
}

impl Spool {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let written = file.metadata()?.len();
        Ok(Self { file, buffer: vec![0; BUFFER_BYTES].into(), used: 0, written })
    }

    /// Takes in a file of `size` bytes, of which these pieces come and all else is zeros: where it is, and its SHA-256.
    pub(super) fn file(
        &mut self,
        source: &mut impl Read,
        pieces: &[(u64, u64)],
        size: u64,
    ) -> Result<(u64, [u8; 32]), Failure> {
        let start = self.written + self.used as u64;
        let mut sum = Sha256::new();
        let mut at = 0;
        for (offset, length) in pieces {
            self.hole(offset - at, &mut sum)?;
            self.take(source, *length, &mut sum)?;
            at = offset + length;
        }
        self.hole(size - at, &mut sum)?;
        Ok((start, sum.finalize().into()))
    }

    fn take(&mut self, source: &mut impl Read, mut length: u64, sum: &mut Sha256) -> Result<(), Failure> {
        while length > 0 {
            if self.used == BUFFER_BYTES {
                self.flush().map_err(Failure::Spool)?;
            }
            let free = &mut self.buffer[self.used..];
            let want = usize::try_from(length).unwrap_or(usize::MAX).min(free.len());
            let read = match source.read(&mut free[..want]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                read => read,
            };
            let read = read.map_err(Failure::Source)?;
            sum.update(&free[..read]);
            self.used += read;
            length -= read as u64;
        }
        Ok(())
    }

    /// Zeros that take nothing of the disk.
    fn hole(&mut self, length: u64, sum: &mut Sha256) -> Result<(), Failure> {
        if length == 0 {
            return Ok(());
        }
        self.flush().map_err(Failure::Spool)?;
        self.written += length;
        let zeros = [0; 64 * 1024];
        let mut left = length;
        while left > 0 {
            let some = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
            sum.update(&zeros[..some]);
            left -= some as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer[..self.used], self.written)?;
        self.written += self.used as u64;
        self.used = 0;
        Ok(())
    }

    /// The file, which is as long as all that it holds.
    pub(super) fn finish(mut self) -> io::Result<File> {
        self.flush()?;
        self.file.set_len(self.written)?;
        Ok(self.file)
    }
}
