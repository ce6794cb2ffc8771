#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dozen_gzip::fuzzing::stream(data));
