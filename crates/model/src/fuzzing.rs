//! Ways in for the fuzzers (`fuzz/`), and the test that runs what they have found again.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::{ContainerId, ContainerName, Digest, PortRange, Protocol, Reference, Signal, UserSpec, VolumeName};

/// A name of an image: what is accepted reads the same however it is written.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = text.parse::<Reference>() else { return };
    for written in [reference.to_string(), reference.familiar()] {
        assert_eq!(written.parse::<Reference>().as_ref(), Ok(&reference), "{text:?} is written as {written:?}");
    }
}

/// Digests, ids, names, ports, signals, users: what is accepted reads the same when it is written.
pub fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    fn fixed<T: FromStr + Display + PartialEq + Debug>(text: &str) {
        if let Ok(value) = text.parse::<T>() {
            assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value), "{text:?} is written as {value}");
        }
    }
    fixed::<Digest>(text);
    fixed::<ContainerId>(text);
    fixed::<ContainerName>(text);
    fixed::<VolumeName>(text);
    fixed::<Protocol>(text);
    fixed::<Signal>(text);
    if let Ok(name) = text.parse::<VolumeName>() {
        assert!(!name.as_str().contains('/') && name.as_str() != "..", "{name}");
    }
    if let Ok(range) = text.parse::<PortRange>() {
        assert!(range.ports().count() > 0);
    }
    let _ = text.parse::<UserSpec>();
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn references() {
        replay("reference", super::reference);
    }

    #[test]
    fn all_words() {
        replay("words", super::words);
    }
}
