//! Block devices.

use super::Read;

/// What went to and from block devices. Version 2 counts the first two only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoStats {
    /// Bytes.
    pub service_bytes: Vec<IoEntry>,
    /// Operations.
    pub serviced: Vec<IoEntry>,
    /// Operations that wait in a queue now.
    pub queued: Vec<IoEntry>,
    /// Nanoseconds between dispatch and completion.
    pub service_time: Vec<IoEntry>,
    /// Nanoseconds in queues.
    pub wait_time: Vec<IoEntry>,
    /// Operations that were merged into others.
    pub merged: Vec<IoEntry>,
    /// Milliseconds of a device's time.
    pub time: Vec<IoEntry>,
    /// Sectors.
    pub sectors: Vec<IoEntry>,
}

/// One device's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoEntry {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`, or empty.
    pub operation: String,
    /// How much.
    pub value: u64,
}

/// With BFQ, or CFQ before it, by its own files; else only what throttling counts, which is always there.
pub(super) fn of_version_1(read: Read<'_>) -> IoStats {
    let entries = |file: &str| read("blkio", file).map(|text| lines(&text)).unwrap_or_default();
    let first = |files: [&str; 3]| files.into_iter().map(&entries).find(|list| !list.is_empty()).unwrap_or_default();
    let bfq_or_cfq = |name: &str| {
        let entries =
            [format!("blkio.bfq.{name}_recursive"), format!("blkio.{name}_recursive")].map(|file| entries(&file));
        entries.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
    };
    IoStats {
        service_bytes: first([
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ]),
        serviced: first([
            "blkio.bfq.io_serviced_recursive",
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        ]),
        queued: bfq_or_cfq("io_queued"),
        service_time: bfq_or_cfq("io_service_time"),
        wait_time: bfq_or_cfq("io_wait_time"),
        merged: bfq_or_cfq("io_merged"),
        time: bfq_or_cfq("time"),
        sectors: bfq_or_cfq("sectors"),
    }
}

/// `8:0 Read 1024` or `8:0 1024`; the sum of all devices at the end has no device.
fn lines(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = device(fields.next()?)?;
        let (second, third) = (fields.next()?, fields.next());
        let (operation, value) = third.map_or(("", second), |value| (second, value));
        Some(IoEntry { major, minor, operation: operation.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// io.stat: `8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=0 dios=0`.
pub(super) fn of_version_2(read: Read<'_>) -> IoStats {
    let mut stats = IoStats::default();
    for line in read("io", "io.stat").unwrap_or_default().lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(device) else { continue };
        for (name, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, operation) = match name {
                "rbytes" => (&mut stats.service_bytes, "Read"),
                "wbytes" => (&mut stats.service_bytes, "Write"),
                "rios" => (&mut stats.serviced, "Read"),
                "wios" => (&mut stats.serviced, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(IoEntry { major, minor, operation: operation.to_owned(), value });
            }
        }
    }
    stats
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
