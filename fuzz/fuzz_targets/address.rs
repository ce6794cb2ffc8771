#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dozen_fetch::fuzzing::address(data));
