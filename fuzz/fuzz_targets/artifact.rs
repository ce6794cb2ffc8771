#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dozen_image::fuzzing::artifact(data));
