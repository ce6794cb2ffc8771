//! WebSocket's frames (RFC 6455, section 5), from a client's bytes and to them. Pure.
//!
//! What a client sends is a stream of bytes to whoever reads it, so a frame is passed on as it comes, and none is ever kept:
//! however long it says that it is, it costs nothing. Only control frames are, which have at most 125 bytes.

/// A control frame's payload is not longer (section 5.5).
const LONGEST_CONTROL_BYTES: usize = 125;

/// What a client has done beside sending data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Control {
    /// It wants this back.
    Ping(Vec<u8>),
    /// It sends nothing more.
    Close,
}

/// It does not speak the protocol (section 7.4.1, 1002).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Close,
    Ping,
    Pong,
}

/// Reads a client's frames, wherever they are cut.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Of a head that has not come whole. The longest has 14 bytes.
    head: Vec<u8>,
    /// The frame whose payload comes.
    frame: Option<Frame>,
    /// A message has begun whose last frame has not come.
    is_within: bool,
}

#[derive(Debug)]
struct Frame {
    kind: Kind,
    left: u64,
    mask: [u8; 4],
    /// How many bytes of it have come.
    at: usize,
    /// Of a control frame.
    payload: Vec<u8>,
}

impl Decoder {
    /// Takes what has come: data is appended to `data`, the rest is answered in the order in which it came.
    pub(super) fn feed(&mut self, mut bytes: &[u8], data: &mut Vec<u8>) -> Result<Vec<Control>, Violation> {
        let mut controls = Vec::new();
        loop {
            if let Some(frame) = &mut self.frame {
                let now = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
                let (payload, rest) = bytes.split_at(now);
                let at = frame.at;
                let unmasked = payload.iter().zip(at..).map(|(byte, at)| byte ^ frame.mask[at % 4]);
                match frame.kind {
                    Kind::Data => data.extend(unmasked),
                    _ => frame.payload.extend(unmasked),
                }
                // Only the place within the mask counts.
                frame.at = (at + now) % 4;
                frame.left -= now as u64;
                bytes = rest;
                if frame.left > 0 {
                    return Ok(controls);
                }
                let payload = std::mem::take(&mut frame.payload);
                match frame.kind {
                    Kind::Data | Kind::Pong => {}
                    Kind::Ping => controls.push(Control::Ping(payload)),
                    Kind::Close => {
                        controls.push(Control::Close);
                        return Ok(controls);
                    }
                }
                self.frame = None;
            }
            let Some((first, rest)) = bytes.split_first() else { return Ok(controls) };
            self.head.push(*first);
            bytes = rest;
            if let Some(frame) = self.begin()? {
                self.head.clear();
                self.frame = Some(frame);
            }
        }
    }

    /// The frame whose head has come whole (section 5.2).
    fn begin(&mut self) -> Result<Option<Frame>, Violation> {
        let [flags, second, rest @ ..] = &self.head[..] else { return Ok(None) };
        let (is_last, opcode) = (flags & 0x80 != 0, flags & 0x0f);
        // No extension was agreed on; and what clients send is masked.
        if flags & 0x70 != 0 || second & 0x80 == 0 {
            return Err(Violation);
        }
        let short = u64::from(second & 0x7f);
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((long, mask)) = rest.split_at_checked(length_bytes) else { return Ok(None) };
        let Some(mask) = mask.first_chunk::<4>() else { return Ok(None) };
        let left = match length_bytes {
            0 => short,
            _ => long.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let kind = match opcode {
            0 if self.is_within => Kind::Data,
            1 | 2 if !self.is_within => Kind::Data,
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => return Err(Violation),
        };
        if kind == Kind::Data {
            self.is_within = !is_last;
        } else if !is_last || left > LONGEST_CONTROL_BYTES as u64 {
            return Err(Violation);
        }
        if left > i64::MAX.unsigned_abs() {
            return Err(Violation);
        }
        Ok(Some(Frame { kind, left, mask: *mask, at: 0, payload: Vec::new() }))
    }
}

/// A whole message of bytes.
pub(super) fn binary(payload: &[u8], out: &mut Vec<u8>) {
    frame(2, payload, out);
}

/// The answer to a ping.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(10, &payload[..payload.len().min(LONGEST_CONTROL_BYTES)], &mut out);
    out
}

/// Nothing more comes, for this reason (section 7.4.1).
pub(super) fn close(code: u16) -> Vec<u8> {
    let mut out = Vec::new();
    frame(8, &code.to_be_bytes(), &mut out);
    out
}

/// What a server sends is not masked.
fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ ..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Takes the heads of Docker's frames out of a stream (a byte for which, three zeros, the length): here nobody can tell
/// standard output from standard error.
#[derive(Debug, Default)]
pub(super) struct Plain {
    head: Vec<u8>,
    left: usize,
}

impl Plain {
    /// What of it is payload is appended.
    pub(super) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
            out.extend_from_slice(payload);
            self.left -= payload.len();
            let (head, rest) = rest.split_at((8 - self.head.len()).min(rest.len()));
            self.head.extend_from_slice(head);
            bytes = rest;
            if let [_, _, _, _, length @ ..] = &self.head[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length) as usize;
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a client writes it.
    fn masked(flags: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut plain = Vec::new();
        frame(flags & 0x0f, payload, &mut plain);
        plain[0] = flags;
        plain[1] |= 0x80;
        let head = plain.len() - payload.len();
        let mut bytes = plain[..head].to_vec();
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<(Vec<u8>, Vec<Control>), Violation> {
        let (mut decoder, mut data) = (Decoder::default(), Vec::new());
        decoder.feed(bytes, &mut data).map(|controls| (data, controls))
    }

    #[test]
    fn the_examples_of_the_standard() {
        // Section 5.7.
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(decode(&hello), Ok((b"Hello".to_vec(), vec![])));
        assert_eq!(pong(b"Hello"), [0x8a, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        let mut long = Vec::new();
        binary(&[7; 256], &mut long);
        assert_eq!(long[..4], [0x82, 0x7e, 0x01, 0x00]);
        long.clear();
        binary(&[7; 65536], &mut long);
        assert_eq!(long[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(close(1000), [0x88, 2, 3, 0xe8]);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mask = [1, 2, 3, 4];
        for (what, bytes) in [
            ("not masked", vec![0x82, 0x01, 0x41]),
            ("an extension's bit", masked(0xc2, b"a", mask)),
            ("an unknown opcode", masked(0x83, b"a", mask)),
            ("a continuation of nothing", masked(0x80, b"a", mask)),
            ("a message in a message", [masked(0x02, b"a", mask), masked(0x82, b"b", mask)].concat()),
            ("a ping in parts", masked(0x09, b"a", mask)),
            ("a long ping", masked(0x89, &[0; 126], mask)),
            ("a negative length", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
        ] {
            assert_eq!(decode(&bytes), Err(Violation), "{what}");
        }
    }

    #[test]
    fn control_frames_come_between_the_parts_of_a_message() {
        let mask = [9, 8, 7, 6];
        let parts = [
            masked(0x01, b"on", mask),
            masked(0x89, b"there?", mask),
            masked(0x8a, b"unasked", mask),
            masked(0x80, b"e", mask),
            masked(0x88, &[3, 0xe8], mask),
            b"what comes after the end".to_vec(),
        ];
        let controls = vec![Control::Ping(b"there?".to_vec()), Control::Close];
        assert_eq!(decode(&parts.concat()), Ok((b"one".to_vec(), controls)));
    }

    proptest! {
        #[test]
        fn cutting_never_shows(messages in proptest::collection::vec((any::<[u8; 4]>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..8), cut in 1_usize..40) {
            let bytes: Vec<u8> = messages.iter().flat_map(|(mask, payload)| masked(0x82, payload, *mask)).collect();
            let (mut decoder, mut data) = (Decoder::default(), Vec::new());
            for part in bytes.chunks(cut) {
                prop_assert_eq!(decoder.feed(part, &mut data), Ok(vec![]));
            }
            prop_assert_eq!(data, messages.iter().flat_map(|(_, payload)| payload.clone()).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_panic_and_none_are_kept(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 1_usize..40) {
            let (mut decoder, mut data) = (Decoder::default(), Vec::new());
            for part in bytes.chunks(cut) {
                if decoder.feed(part, &mut data).is_err() {
                    break;
                }
                prop_assert!(decoder.head.len() < 14);
                prop_assert!(decoder.frame.as_ref().is_none_or(|frame| frame.payload.len() <= LONGEST_CONTROL_BYTES));
            }
            prop_assert!(data.len() <= bytes.len());
        }

        #[test]
        fn heads_are_taken_out_wherever_they_are_cut(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8), cut in 1_usize..20) {
            let framed: Vec<u8> = parts.iter().flat_map(|part| [&[1, 0, 0, 0][..], &(part.len() as u32).to_be_bytes(), part].concat()).collect();
            let (mut plain, mut out) = (Plain::default(), Vec::new());
            framed.chunks(cut).for_each(|bytes| plain.feed(bytes, &mut out));
            prop_assert_eq!(out, parts.concat());
        }
    }
}
