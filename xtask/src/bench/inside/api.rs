//! A container's short life by the API, alone and fifty times.

use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::super::http::Client;
use super::super::image;
use crate::failure::{Attempt, Failure};

/// An engine's API, and the process that serves it if that was started for it.
pub struct Api {
    socket: PathBuf,
    version: &'static str,
    service: Option<Child>,
}

impl Api {
    pub fn new(socket: PathBuf, version: &'static str, service: Option<Child>) -> Self {
        Self { socket, version, service }
    }

    /// A connection.
    pub fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.socket).attempting(format_args!("connect to {}", self.socket.display()))
    }

    /// Create, start, wait, delete.
    pub fn whole_life(&self, client: &mut Client) -> Result<(), Failure> {
        let version = self.version;
        let mut ask = |method: &str, path: String, body: Option<&Value>| {
            client.expect_success(method, &format!("/{version}/{path}"), body).attempting("ask the engine")
        };
        let wanted = json!({ "Image": image::NAME, "Cmd": ["true"] });
        let created = ask("POST", "containers/create".to_owned(), Some(&wanted))?;
        let id = created["Id"].as_str().ok_or_else(|| Failure::new(format!("created without an id: {created}")))?;
        ask("POST", format!("containers/{id}/start"), None)?;
        let ended = ask("POST", format!("containers/{id}/wait"), None)?;
        if ended["StatusCode"] != 0 {
            return Err(Failure::new(format!("the container did not do its work: {ended}")));
        }
        ask("DELETE", format!("containers/{id}"), None).map(|_| ())
    }

    /// That many lives, so many at a time, each row of them on a connection of its own.
    pub fn many_lives(&self, count: usize, at_a_time: usize) -> Result<(), Failure> {
        let begun = AtomicUsize::new(0);
        let row = || {
            let mut client = self.connect()?;
            while begun.fetch_add(1, Ordering::Relaxed) < count {
                self.whole_life(&mut client)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let rows: Vec<_> = (0..at_a_time).map(|_| scope.spawn(row)).collect();
            rows.into_iter().try_for_each(|row| row.join().map_err(|_| Failure::new("a client panicked"))?)
        })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}
