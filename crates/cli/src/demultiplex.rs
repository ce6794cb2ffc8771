//! Takes apart the stream that carries stdout and stderr of a container without a terminal.
//!
//! The format (Docker Engine API, `ContainerAttach`, "Stream format"): frames of one byte for the stream, three of
//! zero, four for the length in network order, and the payload.

const HEADER_BYTES: usize = 8;

/// Where a payload belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A stream that is not in the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A stream number that does not exist.
    #[error("the container's output is garbled: unrecognized stream {0}")]
    UnknownStream(u8),
    /// The engine's own error, sent in the stream.
    #[error("error from daemon in stream: {0}")]
    FromEngine(String),
}

/// The state between two reads: a partial header, or what is left of a payload.
#[derive(Debug, Default)]
pub struct Demultiplexer {
    header: [u8; HEADER_BYTES],
    header_length: usize,
    payload_left: usize,
    system_error: Option<Vec<u8>>,
    target: Option<Target>,
}

impl Demultiplexer {
    /// Takes the next bytes; `emit` gets each run of payload.
    pub fn feed(&mut self, mut bytes: &[u8], mut emit: impl FnMut(Target, &[u8])) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let length = self.payload_left.min(bytes.len());
                let (payload, rest) = bytes.split_at(length);
                bytes = rest;
                self.payload_left -= length;
                self.take_payload(payload, &mut emit)?;
                continue;
            }
            let length = (HEADER_BYTES - self.header_length).min(bytes.len());
            self.header[self.header_length..self.header_length + length].copy_from_slice(&bytes[..length]);
            self.header_length += length;
            bytes = &bytes[length..];
            if self.header_length == HEADER_BYTES {
                self.begin_payload()?;
            }
        }
        Ok(())
    }

    fn begin_payload(&mut self) -> Result<(), FrameError> {
        let [stream, _, _, _, a, b, c, d] = self.header;
        self.header_length = 0;
        self.payload_left = u32::from_be_bytes([a, b, c, d]) as usize;
        (self.target, self.system_error) = match stream {
            0 | 1 => (Some(Target::Stdout), None),
            2 => (Some(Target::Stderr), None),
            3 => (None, Some(Vec::new())),
            other => return Err(FrameError::UnknownStream(other)),
        };
        Ok(())
    }

    fn take_payload(&mut self, payload: &[u8], emit: &mut impl FnMut(Target, &[u8])) -> Result<(), FrameError> {
        if let Some(target) = self.target {
            emit(target, payload);
        } else if let Some(words) = &mut self.system_error {
            words.extend_from_slice(&payload[..payload.len().min(4096_usize.saturating_sub(words.len()))]);
            if self.payload_left == 0 {
                return Err(FrameError::FromEngine(String::from_utf8_lossy(words).trim().to_owned()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            payloads in proptest::collection::vec((1_u8..=2, proptest::collection::vec(any::<u8>(), 0..20)), 0..8),
            cut in 1_usize..30,
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|(stream, payload)| frame(*stream, payload)).collect();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut demultiplexer = Demultiplexer::default();
            for chunk in bytes.chunks(cut) {
                demultiplexer.feed(chunk, |target, payload| match target {
                    Target::Stdout => out.extend_from_slice(payload),
                    Target::Stderr => err.extend_from_slice(payload),
                }).unwrap();
            }
            let all = |wanted| payloads.iter().filter(|(s, _)| *s == wanted).flat_map(|(_, p)| p.clone()).collect::<Vec<u8>>();
            prop_assert_eq!((out, err), (all(1), all(2)));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Demultiplexer::default().feed(&bytes, |_, _| {});
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let feed = |bytes: &[u8]| Demultiplexer::default().feed(bytes, |_, _| {});
        assert_eq!(feed(&frame(9, b"x")), Err(FrameError::UnknownStream(9)));
        assert_eq!(feed(&frame(3, b"gone\n")), Err(FrameError::FromEngine("gone".to_owned())));
    }
}
