//! Bits, put together to bytes from the lowest on (RFC 1951, section 3.1.1).

/// Room that has to be free behind what is written.
const WORD_BYTES: usize = 8;

/// See the module. It writes behind what is there.
pub(crate) struct Bits<'o> {
    out: &'o mut Vec<u8>,
    /// Of the next byte in `out`, which is longer than what is written.
    at: usize,
    held: u64,
    count: u32,
}

impl<'o> Bits<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        let at = out.len();
        Self { out, at, held: 0, count: 0 }
    }

    /// So many bytes may follow without a further question.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        let wanted = self.at + bytes + WORD_BYTES;
        if self.out.len() < wanted {
            self.out.resize(wanted, 0);
        }
    }

    /// At most 56 bits may be held when [`flush`](Self::flush) is called again.
    #[inline(always)]
    pub(crate) fn push(&mut self, bits: u64, count: u32) {
        self.held |= bits << self.count;
        self.count += count;
    }

    /// At most seven bits are held after that.
    #[inline(always)]
    pub(crate) fn flush(&mut self) {
        self.out[self.at..self.at + WORD_BYTES].copy_from_slice(&self.held.to_le_bytes());
        let bytes = self.count >> 3;
        self.at += bytes as usize;
        self.held >>= bytes << 3;
        self.count &= 7;
    }

    /// Up to the next byte's boundary, with zeros.
    pub(crate) fn align(&mut self) {
        self.count = self.count.next_multiple_of(8);
        self.flush();
    }

    pub(crate) fn is_aligned(&self) -> bool {
        self.count == 0
    }

    /// Whole bytes, from a boundary on.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_aligned(), "bytes begin on a boundary");
        self.reserve(bytes.len());
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Ends it, on a boundary.
    pub(crate) fn finish(self) {
        debug_assert!(self.is_aligned(), "it ends on a boundary");
        self.out.truncate(self.at);
    }
}
