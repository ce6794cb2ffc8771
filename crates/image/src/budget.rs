//! What all compressed layers of one archive may come to together.
//!
//! Each stream has its own [`allowance`]; but layers are streams inside a stream, and an archive may hold many thousands
//! of them. Without a bound for all, ten megabytes could fill any disk.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::compression::{RATIO, allowance};

/// Plain bytes of layers that may still come. Shared by the threads that unpack.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Budget {
    /// For an archive of so many bytes, as it came.
    pub(crate) fn of(archive_bytes: u64) -> Self {
        Self(AtomicU64::new(allowance(archive_bytes)))
    }

    /// Takes from what is left.
    pub(crate) fn take(&self, bytes: u64) -> io::Result<()> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|_| {
            let what =
                format!("its layers swell to more than {RATIO} times the archive; dozen takes that for an attack");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }
}
