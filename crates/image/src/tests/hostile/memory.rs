//! A load takes less than 64 MiB, whatever it is given.
//!
//! Each attack is loaded by a process of its own, which is this test's program once more; what the kernel says was its
//! peak is compared with what it had before (proc_pid_status(5), VmHWM; `clear_refs` makes it begin anew).

use std::io::Write;

use super::*;

mod attacks;

const LIMIT_KIB: u64 = 64 << 10;
const VARIABLE: &str = "DOZEN_TEST_ATTACK";

type Attack = fn() -> Vec<u8>;

/// A test of each.
macro_rules! attacks {
    ($($(#[$attribute:meta])* $name:ident)*) => {
        $(
            $(#[$attribute])*
            #[test]
            fn $name() {
                stays_below(stringify!($name), attacks::$name);
            }
        )*
    };
}

attacks! {
    long_directories
    small_objects
    small_values
    many_configurations
    many_layers
    many_tags
    many_descriptors
    #[ignore = "a hundred thousand files take a minute"]
    many_files
    many_attributes
    many_pieces
    large_window
    two_windows
    layers_at_once
}

#[track_caller]
fn stays_below(name: &str, build: Attack) {
    if std::env::var_os(VARIABLE).is_some() {
        return attack(build);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--include-ignored", &format!("tests::hostile::memory::{name}")])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let (_, rest) = said.split_once("took KiB: ").unwrap_or_else(|| panic!("no figure: {said}"));
    let line = rest.lines().next().unwrap_or_default();
    eprintln!("{name}: {line}");
    let took: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    assert!(took < LIMIT_KIB, "{line}");
}

fn attack(build: Attack) {
    let cell = Cell::new();
    // From the disk, as it comes: the archive itself is not what is measured.
    let mut kept = tempfile::tempfile().unwrap();
    kept.write_all(&build()).unwrap();
    std::io::Seek::rewind(&mut kept).unwrap();
    let before = {
        fs::write("/proc/self/clear_refs", "5").unwrap();
        status("VmHWM:")
    };
    let result = cell.load(&mut kept);
    let took = status("VmHWM:").saturating_sub(before);
    let verdict = match &result {
        Ok(loaded) => format!("{} loaded", loaded.len()),
        Err(error) => error.to_string(),
    };
    println!("took KiB: {took} ({verdict})");
}

fn status(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
