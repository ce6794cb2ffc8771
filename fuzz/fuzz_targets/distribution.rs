#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dozen_distribution::fuzzing::request(data));
