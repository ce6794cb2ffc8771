//! From one container to another, on a network of their own.

use std::net::SocketAddr;

use super::super::image;
use super::engine::Engine;
use super::tasks::Task;
use super::traffic;
use crate::failure::{Attempt, Failure};

const NETWORK: &str = "bench-neighbours";

pub struct Neighbours {
    engine: Engine,
    /// What [`traffic::load_and_print`] takes.
    load: &'static str,
    containers: Vec<String>,
    address: String,
}

impl Neighbours {
    pub fn new(engine: Engine, load: &'static str) -> Self {
        Self { engine, load, containers: Vec::new(), address: String::new() }
    }

    fn start(&mut self, command: &[&str]) -> Result<String, Failure> {
        let arguments = ["--network", NETWORK, "-v", "/bench/bin/xtask:/xtask:ro", image::NAME];
        let id = self.engine.start_container(&[&arguments[..], command].concat())?;
        self.containers.push(id.clone());
        Ok(id)
    }
}

impl Task for Neighbours {
    fn prepare(&mut self) -> Result<(), Failure> {
        self.engine.run(&["network", "create", NETWORK])?;
        let server = self.start(&["/xtask", "bench", "--inside", "serve"])?;
        self.start(&["sleep", "10000"])?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let ip = self.engine.answer(&["inspect", "--format", format, &server])?;
        let address = SocketAddr::new(ip.parse().attempting("read an address")?, traffic::PORT);
        traffic::wait_for(address).attempting("reach the server in the container")?;
        self.address = address.to_string();
        Ok(())
    }

    fn round(&mut self) -> Result<f64, Failure> {
        let client = self.containers.last().map_or("", String::as_str);
        let load = ["exec", client, "/xtask", "bench", "--inside", "load", self.load, &self.address];
        self.engine.answer(&load)?.trim().parse().attempting("read a figure")
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let removed = self.engine.remove(&std::mem::take(&mut self.containers));
        removed.and(self.engine.run(&["network", "rm", NETWORK]))
    }
}
