//! What waits to be sent to one client: a bounded buffer with back-pressure.
//!
//! The bound is soft by one write: a client [`Outbox::has_room`] while less than [`LIMIT_BYTES`] waits, and what
//! one read of the container's output gave is then taken whole, so that a frame is never torn.

use crate::frame;
use crate::log::Stream;

/// A client with as much waiting holds up the container's output.
pub const LIMIT_BYTES: usize = 64 * 1024;

/// Bytes on their way to one client, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Vec<u8>,
    /// So many bytes of `waiting` have gone.
    sent: usize,
}

impl Outbox {
    /// True while more output may be pushed.
    pub fn has_room(&self) -> bool {
        self.length() < LIMIT_BYTES
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.length() == 0
    }

    /// Bytes that wait.
    pub fn length(&self) -> usize {
        self.waiting.len() - self.sent
    }

    /// Appends bytes as they are.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Appends a frame. Chunks of output are far below the 4 GiB that a frame can hold.
    pub fn push_frame(&mut self, stream: Stream, payload: &[u8]) {
        if let Ok(length) = u32::try_from(payload.len()) {
            self.waiting.extend_from_slice(&frame::header(stream, length));
            self.waiting.extend_from_slice(payload);
        }
    }

    /// What to send next.
    pub fn front(&self) -> &[u8] {
        &self.waiting[self.sent..]
    }

    /// So many bytes of [`Self::front`] were taken by the socket.
    pub fn advance(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.waiting.len());
        if self.sent == self.waiting.len() {
            // An idle client costs nothing: the memory goes back, too.
            *self = Self::default();
        } else if self.sent > LIMIT_BYTES {
            self.waiting.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Raw(Vec<u8>),
        Frame(Vec<u8>),
        Send(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..3_000);
        prop_oneof![bytes().prop_map(Step::Raw), bytes().prop_map(Step::Frame), (0_usize..90_000).prop_map(Step::Send),]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// However it is sent, it arrives whole and in order.
        #[test]
        fn nothing_is_lost(steps in proptest::collection::vec(step(), 0..60)) {
            let (mut outbox, mut want, mut got) = (Outbox::default(), Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Raw(bytes) => {
                        outbox.push_raw(&bytes);
                        want.extend_from_slice(&bytes);
                    }
                    Step::Frame(bytes) => {
                        outbox.push_frame(Stream::Stderr, &bytes);
                        want.extend_from_slice(&frame::header(Stream::Stderr, bytes.len() as u32));
                        want.extend_from_slice(&bytes);
                    }
                    Step::Send(most) => {
                        let taken = most.min(outbox.front().len());
                        got.extend_from_slice(&outbox.front()[..taken]);
                        outbox.advance(taken);
                    }
                }
                prop_assert_eq!(want.len() - got.len(), outbox.length());
                prop_assert_eq!(outbox.has_room(), outbox.length() < LIMIT_BYTES);
            }
            got.extend_from_slice(outbox.front());
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn an_empty_outbox_holds_no_memory() {
        let mut outbox = Outbox::default();
        outbox.push_raw(&[7; 100_000]);
        assert!(!outbox.has_room());
        outbox.advance(99_999);
        assert!(!outbox.is_empty());
        outbox.advance(1);
        assert_eq!((outbox.is_empty(), outbox.waiting.capacity()), (true, 0));
    }
}
