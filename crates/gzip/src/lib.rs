//! Gzip (RFC 1952) made by several threads at once, of bytes that come one after the other: layers on their way to a
//! registry. What comes out is one member with one DEFLATE stream (RFC 1951), which every reader takes for what any other
//! program has made, and the same for the same bytes, whatever the number of threads.
//!
//! The stream is cut into parts of [`PART_BYTES`], whose places depend on nothing else, and each is compressed by itself:
//! it may refer to the 32 KiB before it, and ends on a byte's boundary, so that parts are joined as they are ([`writer`]).
//! [`Level::Fast`] is compressed by our own encoder ([`deflate`]), the others by zlib-rs.
//!
//! Why our own: of a layer of Debian, one core of a busy Xeon makes with zlib-rs at level 1 44.8 % at 200 MB/s, with fixed codes
//! alone, and at level 2 37.0 % at 120 MB/s; ours makes 38.3 % at 190 MB/s. What has few bytes that come again, or cannot get
//! smaller, takes zlib-rs 50 to 100 MB/s at any level, and ours 550 MB/s and more, since it soon looks at fewer places. A push is
//! waited for; who wants the smallest layer says a level.

mod bits;
mod deflate;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod huffman;
mod symbols;
mod writer;

pub use writer::GzipWriter;

/// Bytes of the plain stream that are compressed by one thread at a time.
pub const PART_BYTES: usize = 256 * 1024;

/// How far back a stream may refer (RFC 1951, section 2).
const WINDOW_BYTES: usize = 32 * 1024;

/// How much work is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// As little as makes it worth while.
    Fast,
    /// zlib's, from 1 to 9: what is more is 9.
    Zlib(u8),
}
