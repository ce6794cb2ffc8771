//! In the making.
use std::ffi::OsString;
use std::process::ExitCode;
/// x
pub fn run_cli(_arguments: impl Iterator<Item = OsString>) -> ExitCode { ExitCode::FAILURE }
