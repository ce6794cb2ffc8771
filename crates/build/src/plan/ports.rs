//! The ports of one EXPOSE, put together.

use std::collections::BTreeSet;

use dozen_dockerfile::ExposedPorts;

/// Ranges, and not ports: a line of many ranges would take all memory there is.
#[derive(Debug, Default)]
pub(super) struct Ports {
    ranges: BTreeSet<ExposedPorts>,
}

impl Ports {
    /// Adds those of one word.
    pub fn add(&mut self, ports: ExposedPorts) {
        self.ranges.insert(ports);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.merged().into_iter().map(|ports| usize::from(ports.last - ports.first) + 1).sum()
    }

    /// `80/tcp` and so on.
    pub fn into_names(self) -> BTreeSet<String> {
        let names =
            |ports: ExposedPorts| (ports.first..=ports.last).map(move |port| format!("{port}/{}", ports.protocol));
        self.merged().into_iter().flat_map(names).collect()
    }

    /// Without those that lie in one another.
    fn merged(&self) -> Vec<ExposedPorts> {
        let mut merged: Vec<ExposedPorts> = Vec::new();
        for ports in self.ranges.iter().copied() {
            match merged.last_mut() {
                Some(before) if before.protocol == ports.protocol && ports.first <= before.last => {
                    before.last = ports.last.max(before.last);
                }
                _ => merged.push(ports),
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use dozen_dockerfile::Span;

    use super::*;

    #[test]
    fn a_port_is_named_once() {
        let mut ports = Ports::default();
        for text in ["80", "8000-8002/udp", "8001-8003/udp", "8000-8010/udp", "8005/udp", "8001", "65535", "0-1"] {
            ports.add(ExposedPorts::parse(text, Span::default()).unwrap());
        }
        assert_eq!(ports.count(), 16);
        let names = ports.into_names();
        assert_eq!((names.len(), names.contains("8010/udp"), names.contains("8001/tcp")), (16, true, true));
    }
}
