//! What nobody can do without who pulls the large image: its layers come over loopback, are inflated and are on the disk, by
//! two threads. Nothing is hashed, and no file of a layer is made.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::registries::STORE;
use super::servers::ask;
use super::tasks::seconds;
use crate::failure::{Attempt, Failure};

const WRITTEN: &str = "/var/tmp/floor";
/// As many as the processors that the figures are for.
const THREADS: usize = 2;
/// What is smaller is a configuration.
const LAYER_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// Once; in seconds.
pub fn pull() -> Result<f64, Failure> {
    remove()?;
    std::fs::create_dir_all(WRITTEN).attempting(format_args!("create {WRITTEN}"))?;
    let blobs = blobs()?;
    rustix::fs::sync();
    let next = AtomicUsize::new(0);
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(blob) = blobs.get(number) else { return Ok(()) };
        fetch(blob, &format!("{WRITTEN}/{number}"))?;
    };
    seconds(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            let ended = threads.into_iter().map(|thread| thread.join().expect("a fetch does not panic"));
            ended.collect::<Result<Vec<()>, Failure>>().map(drop)
        })
    })
}

pub fn remove() -> Result<(), Failure> {
    match std::fs::remove_dir_all(Path::new(WRITTEN)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.attempting(format_args!("remove {WRITTEN}")),
    }
}

/// The image's blobs, as docker-registry has them in its directory, the same ones first each time.
fn blobs() -> Result<Vec<String>, Failure> {
    let links = format!("{STORE}/docker/registry/v2/repositories/large/_layers/sha256");
    let mut blobs = Vec::new();
    for entry in std::fs::read_dir(&links).attempting(format_args!("read {links}"))? {
        let name = entry.attempting(format_args!("read {links}"))?.file_name();
        blobs.push(format!("/v2/large/blobs/sha256:{}", name.to_string_lossy()));
    }
    blobs.sort();
    Ok(blobs)
}

fn fetch(blob: &str, to: &str) -> Result<(), Failure> {
    let answered = ask("GET", blob, &[], 200)?;
    if answered.length_bytes < LAYER_BYTES {
        return Ok(());
    }
    let packed = BufReader::with_capacity(BUFFER_BYTES, answered.rest.take(answered.length_bytes as u64));
    let (mut plain, mut buffer) = (MultiGzDecoder::new(packed), vec![0; BUFFER_BYTES]);
    let mut file = File::create(to).attempting(format_args!("create {to}"))?;
    loop {
        match plain.read(&mut buffer).attempting(format_args!("inflate {blob}"))? {
            0 => return file.sync_all().attempting(format_args!("sync {to}")),
            read => file.write_all(&buffer[..read]).attempting(format_args!("write {to}"))?,
        }
    }
}
