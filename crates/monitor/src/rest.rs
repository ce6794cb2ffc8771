//! Giving memory back while nothing happens: there is one monitor per container, and most of the time it waits.
//!
//! Nothing that is given back is lost. Of the heap and the stack only what is free goes; pages of the program itself
//! are those of its file, and come again from the page cache when they are needed (madvise(2), MADV_DONTNEED).

use std::ffi::c_void;

/// Gives back free heap, dead stack and the program's own pages.
///
/// To be called near the bottom of the stack: what is above the caller stays.
pub fn give_back_memory() {
    // SAFETY: malloc_trim(3) touches only free memory.
    unsafe { libc::malloc_trim(0) };
    give_back_stack();
    // SAFETY: the callback keeps to dl_iterate_phdr(3)'s contract: it reads what it is given, and keeps nothing.
    unsafe { libc::dl_iterate_phdr(Some(give_back_program), std::ptr::null_mut()) };
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
    discard(end - DEPTH_BYTES, end);
}

/// Segments that are never written to: text, and constants that need no relocation. What was made read-only after it
/// had been relocated is part of a writable segment.
unsafe extern "C" fn give_back_program(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> libc::c_int {
    // SAFETY: dl_iterate_phdr(3) gives a valid `info`, whose headers are as many as it says.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    let page = rustix::param::page_size();
    let read_only = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(read_only) {
        let start = base + header.p_vaddr as usize;
        let end = start + header.p_filesz as usize;
        // Whole pages of this segment only.
        discard(start.next_multiple_of(page), end & !(page - 1));
    }
    // The program is the first that is named; libraries of the system's (the vDSO) are not ours to touch.
    1
}

fn discard(start: usize, end: usize) {
    if start < end {
        // Parts that are not mapped are passed over, and a refusal leaves things as they are.
        // SAFETY: the callers name pages of dead stack and of unwritten file mappings: no value is lost.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED) };
    }
}
