//! `update`: new limits for a container that is there.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::Args;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::pause::living;
use super::state::Directory;
use crate::error::{Context, RuntimeError};

/// Every limit that is not named stays.
#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct UpdateArguments {
    /// The container's id
    pub(super) id: String,
    /// A file that holds `linux.resources` of a spec as JSON, or `-`; then the other options are passed over. Rules of
    /// devices stay those that the container was made with
    #[arg(long, short)]
    resources: Option<PathBuf>,
    /// Weight at block devices, from 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// The quota's period, in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Time on processors in a period, in microseconds; -1 is no limit
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// Time that may be saved up beyond the quota, in microseconds
    #[arg(long)]
    cpu_burst: Option<u64>,
    /// Weight on processors, from 2 to 262144
    #[arg(long, alias = "cpu-shares")]
    cpu_share: Option<u64>,
    /// The period of realtime processes, in microseconds
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Time of realtime processes in their period, in microseconds
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// 1: only when nobody else wants to run
    #[arg(long)]
    cpu_idle: Option<i64>,
    /// Which processors: `0-2,7`
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Which memory nodes
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// The kernel's own memory, in bytes: deprecated, version 1 of cgroups only
    #[arg(long, value_parser = bytes, hide = true)]
    kernel_memory: Option<i64>,
    /// The kernel's buffers of TCP, in bytes: deprecated, version 1 of cgroups only
    #[arg(long, value_parser = bytes, hide = true)]
    kernel_memory_tcp: Option<i64>,
    /// Memory, in bytes or as 64M; -1 is no limit
    #[arg(long, value_parser = bytes)]
    memory: Option<i64>,
    /// What is left to the container when the host has little memory
    #[arg(long, value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// Memory and swap together; -1 is no limit
    #[arg(long, value_parser = bytes)]
    memory_swap: Option<i64>,
    /// How many processes and threads; -1 is no limit
    #[arg(long)]
    pids_limit: Option<i64>,
}

pub(super) fn update(arguments: &UpdateArguments, directory: &Directory) -> Result<(), RuntimeError> {
    let (_, cgroup) = living(directory)?;
    let resources = match &arguments.resources {
        Some(file) => read(file)?,
        None => resources(arguments),
    };
    cgroup.update(&resources)
}

fn read(file: &PathBuf) -> Result<LinuxResources, RuntimeError> {
    let mut bytes = Vec::new();
    let context = || format!("read {}", file.display());
    match file.as_os_str() == "-" {
        true => drop(io::stdin().lock().read_to_end(&mut bytes).context(context)?),
        false => bytes = fs::read(file).context(context)?,
    }
    serde_json::from_slice(&bytes).map_err(|error| RuntimeError::Invalid(format!("{}: {error}", file.display())))
}

fn resources(arguments: &UpdateArguments) -> LinuxResources {
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(arguments.memory)
        .set_reservation(arguments.memory_reservation)
        .set_swap(arguments.memory_swap)
        .set_kernel(arguments.kernel_memory)
        .set_kernel_tcp(arguments.kernel_memory_tcp);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(arguments.cpu_share)
        .set_quota(arguments.cpu_quota)
        .set_period(arguments.cpu_period)
        .set_burst(arguments.cpu_burst)
        .set_idle(arguments.cpu_idle)
        .set_realtime_runtime(arguments.cpu_rt_runtime)
        .set_realtime_period(arguments.cpu_rt_period)
        .set_cpus(arguments.cpuset_cpus.clone())
        .set_mems(arguments.cpuset_mems.clone());
    let mut pids = LinuxPids::default();
    pids.set_limit(arguments.pids_limit.unwrap_or(0));
    let mut io = LinuxBlockIo::default();
    io.set_weight(arguments.blkio_weight);
    let mut resources = LinuxResources::default();
    resources.set_memory(Some(memory)).set_cpu(Some(cpu)).set_pids(Some(pids)).set_block_io(Some(io));
    // Its default is a rule that forbids everything.
    resources.set_devices(None);
    resources
}

/// `65536`, `64k`, `1.5GiB`, by powers of 1024; or -1.
fn bytes(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let wrong = || format!("{text:?} is no amount of bytes such as 64M, nor -1");
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" if unit != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << power).ok_or_else(wrong);
    }
    let amount = number.parse::<f64>().map_err(|_| wrong())? * (1i64 << power) as f64;
    // Above this a double holds no odd numbers, and nobody has that much memory.
    if amount < (1i64 << 53) as f64 { Ok(amount as i64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_bytes() {
        let good = [("-1", -1), ("0", 0), ("67108864", 1 << 26), ("64M", 1 << 26), ("1.5kb", 1536), ("2 GiB", 2 << 30)];
        for (text, amount) in good {
            assert_eq!(bytes(text), Ok(amount), "{text}");
        }
        for bad in ["", "M", "-2", "1x", "1ib", "1..2", "9223372036854775807k", "1e9", "99999999.5p", "1bb2"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
