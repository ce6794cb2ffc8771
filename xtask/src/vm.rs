//! The virtual machine; see the verb's help.

use crate::failure::Failure;

/// `cargo xtask vm`.
pub fn verb(_tcg: bool, _filter: Option<&str>) -> Result<(), Failure> {
    Err(Failure::new("the virtual machine is not built yet"))
}
