//! What an engine counts of its data root, and what du(1) says of it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::Machine;

/// See the module.
#[derive(Debug)]
pub struct Counted {
    /// The answer to `GET /system/df`.
    pub usage: Value,
    /// All that it counts, each byte once, but for what snapshots of volumes hold.
    pub told_bytes: u64,
    /// Without snapshots, too: blocks that they share with their volumes du(1) counts once more.
    pub measured_bytes: u64,
}

impl Counted {
    /// Asks both. What changes in between is counted by one of them.
    pub fn of(machine: &Machine) -> Self {
        let usage = usage(machine);
        let data = machine.directory().join("data").display().to_string();
        let script = "du -sx --block-size=1 $0; du -sxc --block-size=1 $0/volumes/*/_snapshots 2>/dev/null | tail -n 1";
        let said = machine.run("sh", &["-c", script, &data]).text();
        let numbers: Vec<u64> =
            said.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
        let measured_bytes = numbers[0] - numbers.get(1).copied().unwrap_or(0);
        Self { told_bytes: all(&usage), measured_bytes, usage }
    }

    /// Whether they differ by less than a hundredth.
    pub fn agree(&self) -> bool {
        self.told_bytes.abs_diff(self.measured_bytes) * 100 <= self.measured_bytes
    }

    /// Paths below the data root: of what has no owner (`Unowned`), or is on its way (`Unfinished`).
    pub fn paths(&self, kind: &str) -> Vec<String> {
        let rows = self.usage["Engine"][kind].as_array().unwrap();
        rows.iter().map(|row| row["Path"].as_str().unwrap().to_owned()).collect()
    }
}

/// The answer to `GET /system/df`.
fn usage(machine: &Machine) -> Value {
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    stream.write_all(b"GET /v1.47/system/df HTTP/1.0\r\nHost: box\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn all(usage: &Value) -> u64 {
    let sum = |list: &Value, way: &str| -> u64 {
        list.as_array().into_iter().flatten().filter_map(|row| row.pointer(way)?.as_u64()).sum()
    };
    let number = |value: &Value| value.as_u64().unwrap();
    let caches = usage["BuildCache"].as_array().unwrap();
    let own_caches = caches.iter().filter(|cache| cache["Shared"] == false).map(|cache| number(&cache["Size"]));
    let engine = &usage["Engine"];
    number(&usage["LayersSize"])
        + usage["Artifacts"]["Size"].as_u64().unwrap_or(0)
        + sum(&usage["Containers"], "/SizeRw")
        + sum(&usage["Volumes"], "/UsageData/Size")
        + own_caches.sum::<u64>()
        + ["Logs", "Unfinished", "Unowned"].iter().map(|part| sum(&engine[part], "/Size")).sum::<u64>()
        + ["Ledger", "Records"].iter().map(|part| number(&engine[part]["Size"])).sum::<u64>()
}
