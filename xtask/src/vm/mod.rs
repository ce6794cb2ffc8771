//! `cargo xtask vm`: the end-to-end tests on the machine that most users have: Debian's kernel, systemd as process 1,
//! cgroup v2 alone, AppArmor; or, of the same disk, with other cgroups, or with SELinux.
//!
//! ```text
//! first disk    Debian and its cloud kernel, cached by the hash of its recipe; what is written to it is thrown away
//! second disk   dozen, the tests, clients and images of this run, read-only, at /payload
//! serial ports  the kernel's and systemd's talk goes to a log; what becomes of each test comes here
//! ```

mod choice;
mod disks;
mod machine;
mod payload;
mod report;
mod variant;

use std::time::{Duration, Instant};

pub use choice::HERE_ONLY;

use crate::failure::{Attempt, Failure};
use crate::{host, packages, steps};
use machine::Machine;
use report::Report;
use variant::{Cgroups, Security, Variant};

/// How many times as long as elsewhere the tests wait for what they wait for (`DOZEN_TEST_PATIENCE`): an emulated
/// processor is some twenty times slower, and no test spends all of its patience unless it fails.
const SLOWER: u32 = 6;

/// The soak's last round is finished, and looked at, after its time is over.
const AROUND_SOAK_MINUTES: u64 = 30;

/// What is run, and how.
#[derive(clap::Args, Debug, Default)]
pub struct Options {
    /// Use /dev/kvm; by default the processor is emulated, which works everywhere.
    #[arg(long)]
    kvm: bool,
    /// Only tests of this binary (`run`, `crash`, `runtime`), or of this crate (`testbox`). May be repeated.
    #[arg(long = "binary", value_name = "NAME")]
    binaries: Vec<String>,
    /// The few tests that continuous integration runs here.
    #[arg(long)]
    smoke: bool,
    /// Nothing but the soak, for so long; it wants ten minutes to say whether anything grows.
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["smoke", "heavy", "shell", "binaries", "filter"])]
    soak: Option<u64>,
    /// The long ones too (those marked `#[ignore]`), with their images.
    #[arg(long)]
    heavy: bool,
    /// Which cgroups systemd mounts.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    cgroups: Cgroups,
    /// Which module of the kernel's judges by labels.
    #[arg(long, value_enum, default_value_t, value_name = "MODULE")]
    security: Security,
    /// A shell in the machine instead of a run of the tests.
    #[arg(long)]
    shell: bool,
    /// How long the machine may run; without, 180 minutes, 35 for --smoke, and 30 more than --soak.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

impl Options {
    fn variant(&self) -> Variant {
        Variant { cgroups: self.cgroups, security: self.security }
    }

    fn minutes(&self) -> u64 {
        let soak = self.soak.map(|minutes| minutes + AROUND_SOAK_MINUTES);
        self.minutes.or(soak).unwrap_or(if self.smoke { 35 } else { 180 })
    }
}

/// Builds what is missing, boots, runs the tests and passes their verdict on.
pub fn verb(options: &Options) -> Result<(), Failure> {
    host::need_root("vm")?;
    packages::ensure("vm")?;
    packages::ensure("images")?;
    let system = disks::system()?;
    let scratch = scratch()?;
    let payload = payload::make(scratch.path(), options)?;
    let log = host::cache_directory()?.join("vm.log");
    let machine =
        Machine { system: &system, payload: &payload.disk, variant: options.variant(), kvm: options.kvm, log };
    steps::step(format_args!("booting the virtual machine; its console's log is {}", machine.log.display()));
    if options.shell {
        return machine.talk();
    }
    let begun = Instant::now();
    let mut report = Report::new(payload.plan);
    let ended = machine.run(scratch, Duration::from_secs(60 * options.minutes()), |line| {
        if let Some(shown) = report.take(line) {
            eprintln!("{shown}");
        }
    });
    eprint!("\n{}", report.table());
    steps::step(format_args!("{} s from power on to power off", begun.elapsed().as_secs()));
    ended?;
    if report.is_good() {
        return Ok(());
    }
    Err(Failure::new(format!("{} tests failed in the virtual machine, or were not run", report.bad().len()))
        .with_hint(format!("each one's words are above; the machine's console: {}", machine.log.display())))
}

/// A directory for this run. Those of runs that were killed are removed.
fn scratch() -> Result<tempfile::TempDir, Failure> {
    let cache = host::cache_directory()?;
    for entry in std::fs::read_dir(&cache).attempting(format_args!("read {}", cache.display()))?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix("vm-")?.split_once('-')) else { continue };
        if !std::path::Path::new("/proc").join(pid.0).exists() {
            std::fs::remove_dir_all(entry.path()).attempting(format_args!("remove {}", entry.path().display()))?;
        }
    }
    let prefix = format!("vm-{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(cache).attempting("make a scratch directory")
}
