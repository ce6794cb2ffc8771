//! A thousand names on one network, and a container that asks for them one after the other.

use std::io::{Error, Result};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::super::image;
use super::engine::Engine;
use super::tasks::Task;
use crate::failure::{Attempt, Failure};

/// So many containers with so many names each.
const CONTAINERS: usize = 10;
const NAMES: usize = 100;
const NETWORK: &str = "bench-names";
/// How often is asked in a round.
const QUESTIONS: usize = 5000;
/// Where Docker's engine, and ours, answers (Docker's documentation, "Embedded DNS server").
const SERVER: &str = "127.0.0.11:53";
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Names {
    engine: Engine,
    containers: Vec<String>,
}

impl Names {
    pub fn new(engine: Engine) -> Self {
        Self { engine, containers: Vec::new() }
    }
}

fn name(number: usize) -> String {
    format!("service-{number}")
}

impl Task for Names {
    fn prepare(&mut self) -> std::result::Result<(), Failure> {
        self.engine.run(&["network", "create", NETWORK])?;
        for container in 0..CONTAINERS {
            let names: Vec<String> = (0..NAMES).map(|number| name(container * NAMES + number)).collect();
            let mut arguments = vec!["--network", NETWORK];
            arguments.extend(names.iter().flat_map(|name| ["--network-alias", name]));
            arguments.extend(["-v", "/bench/bin/xtask:/xtask:ro", image::NAME, "sleep", "10000"]);
            self.containers.push(self.engine.start_container(&arguments)?);
        }
        Ok(())
    }

    /// The 99th percentile.
    fn round(&mut self) -> std::result::Result<f64, Failure> {
        let asker = self.containers.first().map_or("", String::as_str);
        let printed = self.engine.answer(&["exec", asker, "/xtask", "bench", "--inside", "ask"])?;
        printed.trim().parse().attempting("read a time")
    }

    fn finish(&mut self) -> std::result::Result<(), Failure> {
        let removed = self.engine.remove(&std::mem::take(&mut self.containers));
        removed.and(self.engine.run(&["network", "rm", NETWORK]))
    }
}

/// The container's side: asks, and prints the 99th percentile of the times, in seconds.
pub fn ask() -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(SERVER)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut times = Vec::new();
    let mut answer = [0; 512];
    for question in 0..QUESTIONS {
        // Every name comes up, and none follows the one before it.
        let name = name(question * 617 % (CONTAINERS * NAMES));
        let id = u16::try_from(question).map_err(Error::other)?.to_be_bytes();
        let query = query(id, &name);
        let begun = Instant::now();
        socket.send(&query)?;
        let length = socket.recv(&mut answer)?;
        times.push(begun.elapsed());
        // RFC 1035, 4.1.1: no error, and one answer.
        if length < 12 || answer[..2] != id || answer[3] & 0xf != 0 || answer[6..8] != [0, 1] {
            return Err(Error::other(format!("{name} is not answered: {:?}", &answer[..length])));
        }
    }
    times.sort_unstable();
    println!("{}", times[times.len() * 99 / 100].as_secs_f64());
    Ok(())
}

/// A question for an address (RFC 1035, 4.1).
fn query(id: [u8; 2], name: &str) -> Vec<u8> {
    let mut query = [&id[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8], name.as_bytes()].concat();
    query.extend([0, 0, 1, 0, 1]);
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_asked_for() {
        let asked: std::collections::BTreeSet<usize> = (0..QUESTIONS).map(|question| question * 617 % 1000).collect();
        assert_eq!(asked.len(), CONTAINERS * NAMES);
        assert_eq!(query([1, 2], "db"), b"\x01\x02\x01\0\0\x01\0\0\0\0\0\0\x02db\0\0\x01\0\x01");
    }
}
