//! The works on a large image's archive. What one round has left to write to the disk is written before the next is
//! timed, whoever left it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::super::large;
use super::engine::Engine;
use super::memory;
use super::tasks::Task;
use crate::failure::{Attempt, Failure};

const ARCHIVE: &str = "/bench/large.tar";
/// On the disk where the engines' data is too.
const WRITTEN: &str = "/var/tmp/written.tar";

/// A verb of an engine's.
pub struct Archives {
    pub engine: Engine,
    pub verb: Verb,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Where the image is not there.
    Load,
    /// Where it is.
    LoadAgain,
    Save,
    /// What the engine's processes take at most while they load it.
    Memory,
}

impl Archives {
    fn load(&self) -> Result<(), Failure> {
        self.engine.run(&["load", "--input", ARCHIVE])
    }
}

impl Task for Archives {
    fn prepare(&mut self) -> Result<(), Failure> {
        self.load()
    }

    fn round(&mut self) -> Result<f64, Failure> {
        if matches!(self.verb, Verb::Load | Verb::Memory) {
            self.engine.run(&["rmi", large::NAME])?;
        }
        remove(WRITTEN)?;
        rustix::fs::sync();
        if self.verb == Verb::Memory {
            let engine = memory::processes();
            memory::forget_peaks(engine.keys())?;
            self.load()?;
            return Ok(memory::peaks_of(engine.keys())? as f64);
        }
        let begun = Instant::now();
        match self.verb {
            Verb::Save => self.engine.run(&["save", "--output", WRITTEN, large::NAME])?,
            _ => self.load()?,
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        remove(WRITTEN)
    }
}

/// What nobody can do without, who takes all of the archive in: the floor below the rows above.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// Reads it and hashes it, in one thread.
    Hash,
    /// Writes as many bytes and has them on the disk.
    Write,
}

impl Task for Floor {
    fn round(&mut self) -> Result<f64, Failure> {
        remove(WRITTEN)?;
        rustix::fs::sync();
        let mut archive = File::open(ARCHIVE).attempting("open the archive")?;
        let mut out = match self {
            Self::Hash => None,
            Self::Write => Some(File::create(WRITTEN).attempting("create a file")?),
        };
        let begun = Instant::now();
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
        loop {
            let read = archive.read(&mut buffer).attempting("read the archive")?;
            match &mut out {
                _ if read == 0 => break,
                None => hash.update(&buffer[..read]),
                Some(out) => out.write_all(&buffer[..read]).attempting("write a file")?,
            }
        }
        match &out {
            None => drop(hash.finalize()),
            Some(out) => out.sync_all().attempting("sync a file")?,
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        remove(WRITTEN)
    }
}

fn remove(path: &str) -> Result<(), Failure> {
    match std::fs::remove_file(Path::new(path)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.attempting(format_args!("remove {path}")),
    }
}
