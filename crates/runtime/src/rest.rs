//! Giving memory back while nothing happens: the engine, and above all monitors, of which there is one per container, wait
//! most of the time.
//!
//! Nothing that is given back is lost. Of the heap and the stack only what is free goes; pages of the program itself
//! are those of its file, and come again from the page cache when they are needed (madvise(2), MADV_DONTNEED).

use std::ffi::c_void;
use std::ops::Range;
use std::process::Command;

/// A monitor's allocator keeps no freed pieces in its thread's cache: scattered over the heap, they would hold nearly
/// every page of what the start needed (glibc's manual, "Memory Allocation Tunables").
pub fn keep_no_free_memory(monitor: &mut Command) {
    monitor.env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");
}

/// What is freed goes back at once where it lies at the end of a heap, if it is more than a little.
///
/// Each thread has a heap of its own, and malloc_trim(3) leaves the end of all of them but the first as it is. By itself
/// glibc keeps there twice the largest buffer that was ever freed, up to 64 MiB in every one (mallopt(3),
/// M_MMAP_THRESHOLD: any of these settings ends that).
pub fn keep_little_free_memory() {
    const END_BYTES: libc::c_int = 256 * 1024;
    // What is no smaller has pages of its own and leaves with them; buffers that come and go by the thousand are smaller.
    const MAPPED_BYTES: libc::c_int = 256 * 1024;
    for (parameter, value) in [(libc::M_TRIM_THRESHOLD, END_BYTES), (libc::M_MMAP_THRESHOLD, MAPPED_BYTES)] {
        // SAFETY: mallopt(3) may be called at any time; it changes figures of the allocator under its lock.
        let is_set = unsafe { libc::mallopt(parameter, value) };
        debug_assert_eq!(is_set, 1, "the parameter is glibc's");
    }
}

/// Gives back free heap, dead stack and the program's own pages, of a process with one thread.
///
/// To be called near the bottom of the stack, whose upper end stays, and as the last thing before waiting: whatever
/// is executed after it comes back.
pub fn give_back_memory() {
    let program = read_only_segments();
    trim_heap();
    give_back_stack();
    program.into_iter().for_each(discard);
}

/// The same without the stack: other threads may run meanwhile.
pub fn give_back_heap_and_program() {
    let program = read_only_segments();
    trim_heap();
    program.into_iter().for_each(discard);
}

fn trim_heap() {
    // SAFETY: malloc_trim(3) touches only free memory.
    unsafe { libc::malloc_trim(0) };
}

/// What lies below this frame was used by calls that have returned.
#[inline(never)]
fn give_back_stack() {
    /// Deeper calls than these leave the rest where it is. The kernel keeps other mappings as far away from a stack's
    /// end and more (`stack_guard_gap` in its command-line parameters).
    const DEPTH_BYTES: usize = 512 * 1024;
    let page = rustix::param::page_size();
    let here = 0_u8;
    // A page is left for this frame, and for those that the call below needs.
    let end = ((&raw const here).addr() & !(page - 1)) - page;
    discard(end - DEPTH_BYTES..end);
}

/// The program's segments that are never written to: constants that need no relocation, and text. What was made
/// read-only after it had been relocated is part of a writable segment.
fn read_only_segments() -> [Range<usize>; 4] {
    let mut segments = [const { 0..0 }; 4];
    // SAFETY: the callback is given `segments` and keeps to dl_iterate_phdr(3)'s contract.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut segments).cast()) };
    segments
}

unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _: usize, segments: *mut c_void) -> libc::c_int {
    // SAFETY: dl_iterate_phdr(3) gives a valid `info` with as many headers as it says, and `segments` as it was passed.
    let (base, headers, segments) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
        (info.dlpi_addr as usize, headers, &mut *segments.cast::<[Range<usize>; 4]>())
    };
    let page = rustix::param::page_size();
    let read_only = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    for (header, segment) in headers.iter().filter(read_only).zip(segments) {
        let start = base + header.p_vaddr as usize;
        let end = start + header.p_filesz as usize;
        // Whole pages of this segment only.
        *segment = start.next_multiple_of(page)..end & !(page - 1);
    }
    // The program is the first that is named; libraries of the system's (the vDSO) are not ours to touch.
    1
}

fn discard(pages: Range<usize>) {
    if !pages.is_empty() {
        let start = std::ptr::without_provenance_mut(pages.start);
        // Parts that are not mapped are passed over, and a refusal leaves things as they are.
        // SAFETY: the callers name pages of dead stack and of unwritten file mappings: no value is lost.
        unsafe { libc::madvise(start, pages.len(), libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// proc_pid_status(5).
    fn anonymous_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        field.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn what_a_thread_has_freed_goes_back_while_it_lives() {
        keep_little_free_memory();
        let thread = || {
            let before = anonymous_kib();
            // By itself the allocator would from now on keep 16 MiB of what is freed at the end of a heap.
            drop(std::hint::black_box(vec![1_u8; 8 << 20]));
            drop(std::hint::black_box((0..128).map(|_| vec![1_u8; 64 << 10]).collect::<Vec<_>>()));
            anonymous_kib().saturating_sub(before)
        };
        let kept = std::thread::spawn(thread).join().unwrap();
        assert!(kept < 1024, "{kept} KiB");
    }
}
