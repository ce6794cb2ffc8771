//! An engine that has nothing to do gives memory back: a thread of its own waits for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// How often is looked, while there is work.
const PAUSE: Duration = Duration::from_secs(1);
/// After so many pauses without work. Longer than idle threads of the runtime's are kept: what they had goes too.
const QUIET_PAUSES: u32 = 3;
const STACK_BYTES: usize = 64 * 1024;

/// What tells that thread of work. The first piece of work after a rest wakes it; while all rests, nothing does.
#[derive(Clone)]
pub(crate) struct Rest {
    worked: Arc<AtomicBool>,
    thread: Thread,
}

impl Rest {
    /// Starts the thread. It ends with the process.
    pub(crate) fn start() -> std::io::Result<Self> {
        let worked = Arc::new(AtomicBool::new(true));
        let seen = worked.clone();
        let wait = move || {
            loop {
                let mut quiet_pauses = 0;
                while quiet_pauses < QUIET_PAUSES {
                    thread::sleep(PAUSE);
                    quiet_pauses = if seen.swap(false, Ordering::Relaxed) { 0 } else { quiet_pauses + 1 };
                }
                dozen_runtime::rest::give_back_heap_and_program();
                while !seen.load(Ordering::Relaxed) {
                    thread::park();
                }
            }
        };
        let thread = thread::Builder::new().name("rest".to_owned()).stack_size(STACK_BYTES).spawn(wait)?;
        Ok(Self { worked, thread: thread.thread().clone() })
    }

    /// There is work.
    pub(crate) fn put_off(&self) {
        if !self.worked.swap(true, Ordering::Relaxed) {
            self.thread.unpark();
        }
    }
}
