//! Buffers for pieces of a layer on their way out, used again: as many as are on their way at once. One that is allocated for
//! each piece has pages of its own (`dozen_runtime::rest`), which the kernel makes and clears for it each time.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Where buffers come from and go back to. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

struct Lent {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// A copy of these bytes, whose buffer comes back with the last who has it.
    pub(super) fn copy(&self, bytes: &[u8]) -> Bytes {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = free.unwrap_or_default();
        buffer.extend_from_slice(bytes);
        Bytes::from_owner(Lent { bytes: buffer, home: self.clone() })
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_nobody_has_it() {
        let buffers = Buffers::default();
        let (one, other) = (buffers.copy(b"one"), buffers.copy(b"other"));
        let (first, part) = (one.as_ptr(), one.slice(1..));
        drop(one);
        assert_ne!(buffers.copy(b"two").as_ptr(), first, "a part of it is still there");
        drop(part);
        let three = buffers.copy(b"3");
        assert_eq!((three.as_ptr(), &three[..], &other[..]), (first, &b"3"[..], &b"other"[..]));
    }
}
