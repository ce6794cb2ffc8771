#![no_main]

use std::sync::LazyLock;

use dozen_image::fuzzing::Loader;

static LOADER: LazyLock<Loader> = LazyLock::new(Loader::new);

libfuzzer_sys::fuzz_target!(|data: &[u8]| LOADER.manifest(data));
