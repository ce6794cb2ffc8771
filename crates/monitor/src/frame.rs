//! Docker's frames: how standard output and standard error share one connection.
//!
//! A header of 8 bytes, then the payload: byte 0 is the stream (1 stdout, 2 stderr), bytes 4 to 7 the length,
//! big-endian (Docker Engine API, "Attach to a container", stream format).

use crate::log::Stream;

/// Bytes of a header.
pub const HEADER_LENGTH_BYTES: usize = 8;

/// The header of a frame of `length` bytes.
pub fn header(stream: Stream, length: u32) -> [u8; HEADER_LENGTH_BYTES] {
    let number = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let [a, b, c, d] = length.to_be_bytes();
    [number, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_dockers() {
        assert_eq!(header(Stream::Stdout, 5), [1, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(header(Stream::Stderr, 0x0102_0304), [2, 0, 0, 0, 1, 2, 3, 4]);
    }
}
