//! Tar streams that no honest program writes.

use tar::Header;

/// Headers and data, block by block.
#[derive(Default)]
pub(super) struct Forge(pub(super) Vec<u8>);

impl Forge {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A header of an empty regular file `x`, changed, with the checksum of what it then is.
    pub(super) fn header(mut self, change: impl FnOnce(&mut Header)) -> Self {
        let mut header = Header::new_gnu();
        header.set_path("x").unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Regular);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    /// Data with its padding.
    pub(super) fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A special entry before another: a long name (`L`), a long link (`K`), PAX (`x`), global PAX (`g`).
    pub(super) fn special(self, kind: u8, bytes: &[u8]) -> Self {
        self.header(|header| {
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_size(bytes.len() as u64);
        })
        .data(bytes)
    }

    /// PAX records, each with its right length.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            bytes.extend(record(key, value));
        }
        self.special(b'x', &bytes)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// `LENGTH KEY=VALUE\n`, the length counting its own digits.
pub(super) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}
