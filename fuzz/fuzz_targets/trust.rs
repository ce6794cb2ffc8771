#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dozen_trust::fuzzing::trust(data));
