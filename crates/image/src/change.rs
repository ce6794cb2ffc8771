//! One change of the store at a time; and what a change does away with, which may be many files, is deleted after it, when
//! others can make theirs.

use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use rustix::fs::{CWD, RenameFlags};

use crate::store::Inner;

/// Rows and files change together for as long as this is held. What was [discarded](Inner::discard) is deleted when it is
/// dropped.
pub(crate) struct Change<'a> {
    inner: &'a Inner,
    only: Option<MutexGuard<'a, ()>>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        drop(self.only.take());
        let discarded = std::mem::take(&mut *self.inner.discarded.lock().unwrap_or_else(PoisonError::into_inner));
        discarded.iter().for_each(|path| self.inner.delete_file(path));
    }
}

impl Inner {
    pub(crate) fn lock_change(&self) -> Change<'_> {
        let only = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        Change { inner: self, only: Some(only) }
    }

    /// Takes away what has no row any more, to be deleted after the change, which is held; by the next engine, if this one
    /// does not come to it.
    pub(crate) fn discard(&self, path: &Path) {
        let away = self.unused_name();
        match rustix::fs::renameat_with(CWD, path, CWD, &away, RenameFlags::NOREPLACE) {
            Ok(()) => self.discarded.lock().unwrap_or_else(PoisonError::into_inner).push(away),
            Err(_) => self.delete_file(path),
        }
    }

    /// A path that nothing stands at, for what is not finished, or over.
    pub(crate) fn unused_name(&self) -> PathBuf {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the kernel's random source is always there after boot");
        self.tmp.join(format!("{:016x}", u64::from_ne_bytes(random)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::tests::Home;

    #[test]
    fn what_is_discarded_goes_with_the_change() {
        let home = Home::new();
        let store = home.open();
        let layer = home.0.path().join("layers/some");
        let change = store.0.lock_change();
        for _ in 0..2 {
            fs::create_dir_all(layer.join("deep")).unwrap();
            store.0.discard(&layer);
        }
        store.0.discard(&home.0.path().join("layers/none"));
        assert_eq!(home.counts(), [0, 0, 2], "their names are free at once");
        drop(change);
        assert_eq!(home.counts(), [0, 0, 0]);
        assert!(store.0.change.try_lock().is_ok());
    }
}
