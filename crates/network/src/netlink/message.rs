//! Encoding and decoding of netlink messages: a header, a family's own fixed part, and attributes that may nest.
//!
//! Source of the layout: netlink(7), rtnetlink(7), and the kernel's `Documentation/userspace-api/netlink/intro.rst`.
//! Everything is in the host's byte order unless a method says otherwise, and padded to four bytes.

use std::borrow::Cow;

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER_LENGTH: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Messages that go to the kernel in one send, each with a label for the error that it may come back with.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    labels: Vec<Cow<'static, str>>,
    last: usize,
}

impl Batch {
    /// Adds a message. `label` completes "cannot …": what the message does, on what.
    pub(crate) fn message(
        &mut self,
        label: impl Into<Cow<'static, str>>,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        let sequence = u32::try_from(self.labels.len()).expect("a batch has far fewer than 2^32 messages");
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        pad(&mut self.bytes);
        attributes(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).expect("a message is far shorter than 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.labels.push(label.into());
        self.last = start;
    }

    /// Asks for an acknowledgement of the newest message only: errors of the others arrive anyway, before it.
    pub(crate) fn acknowledge_newest(&mut self) {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn label(&self, sequence: u32) -> &str {
        self.labels.get(sequence as usize).map_or("send a netlink request", |label| label)
    }
}

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`: every object of the kind.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: an error if it exists.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_REPLACE`.
pub(crate) const REPLACE: u16 = 0x100;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0x800;

/// Writes the attributes of one message or of one nest.
pub(crate) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.with(kind, |out| out.extend_from_slice(value));
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// In network byte order, as nfnetlink wants its numbers.
    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Text with the closing NUL that the kernel expects.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.with(kind, |out| {
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        });
    }

    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) {
        self.with(kind | NESTED, |out| inner(&mut Attributes { bytes: out }));
    }

    /// A nest that begins with a fixed part, as `VETH_INFO_PEER` does.
    pub(crate) fn nest_after(&mut self, kind: u16, fixed: &[u8], inner: impl FnOnce(&mut Attributes<'_>)) {
        self.with(kind, |out| {
            out.extend_from_slice(fixed);
            inner(&mut Attributes { bytes: out });
        });
    }

    fn with(&mut self, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        write(self.bytes);
        let length = u16::try_from(self.bytes.len() - start).expect("callers keep an attribute under 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        pad(self.bytes);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One message of the kernel's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The messages in one datagram; ends at the first that is cut short.
pub(crate) fn received(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?) as usize;
        let message = datagram.get(..length).filter(|_| length >= HEADER_LENGTH)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Received {
            kind: u16::from_ne_bytes([message[4], message[5]]),
            flags: u16::from_ne_bytes([message[6], message[7]]),
            sequence: u32::from_ne_bytes([message[8], message[9], message[10], message[11]]),
            payload: &message[HEADER_LENGTH..],
        })
    })
}

/// The attributes in `bytes`, as (type without its flags, value); ends at the first that is cut short.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & TYPE_MASK, value))
    })
}

/// The value of the first attribute of this type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Text up to its NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A number in the host's byte order.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

/// A number in network byte order.
pub(crate) fn number_be(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_message_is_laid_out_as_the_manual_says() {
        let mut batch = Batch::default();
        batch.message("one", 0x10, 0x600, &[1, 2, 3, 4], |a| {
            a.text(3, "ab");
            a.nest(18, |a| a.u32_be(1, 7));
        });
        batch.acknowledge_newest();
        #[rustfmt::skip]
        let want = [
            40, 0, 0, 0, 0x10, 0, 0x05, 0x06, 0, 0, 0, 0, 0, 0, 0, 0, // header: length, type, flags, sequence, port
            1, 2, 3, 4,                                               // the fixed part
            7, 0, 3, 0, b'a', b'b', 0, 0,                             // text and its padding
            12, 0, 18, 0x80, 8, 0, 1, 0, 0, 0, 0, 7,                  // the nest
        ];
        assert_eq!(batch.bytes(), want);
        let message = received(batch.bytes()).next().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (0x10, 0x605, 0));
        assert_eq!(text(attribute(&message.payload[4..], 3).unwrap()), "ab");
        assert_eq!(attribute(attribute(&message.payload[4..], 18).unwrap(), 1).and_then(number_be), Some(7));
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in received(&bytes) {
                for (_, value) in attributes(message.payload) {
                    let _ = (attributes(value).count(), number(value), text(value));
                }
            }
        }
    }
}
