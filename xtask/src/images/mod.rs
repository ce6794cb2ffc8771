//! Test images: OCI archives built from Debian's packages, cached outside the tree by the hash of their recipe.
//!
//! No registry of images is needed: what a container engine is tested with are root file systems, and Debian's
//! packages make those.

mod layout;
mod recipe;
mod rootfs;
mod sources;
mod tarball;

use std::fs::File;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::{Attempt, Failure};
use crate::{host, packages, steps};
use recipe::Recipe;

/// What the demo and the tests use.
pub const USUAL: [&str; 4] = ["busybox", "debian:bookworm-slim", "debian-mirror", "python:3.11-slim"];

/// What the heavy tests use besides.
pub const HEAVY: [&str; 4] = ["redis:7", "nginx:1.22", "postgres:15", "gunicorn:20"];

/// `cargo xtask images`.
pub fn verb(names: &[String], all: bool, print_paths: bool, rebuild: bool) -> Result<(), Failure> {
    let names: Vec<&str> = match (all, names.is_empty()) {
        (true, _) => recipe::ALL.iter().map(|recipe| recipe.name).collect(),
        (false, true) => USUAL.to_vec(),
        (false, false) => names.iter().map(String::as_str).collect(),
    };
    for path in ensure(&names, rebuild)? {
        if print_paths {
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// The archives of these images, built where the cache has none; in the order asked for.
pub fn ensure(names: &[&str], rebuild: bool) -> Result<Vec<PathBuf>, Failure> {
    let recipes = names.iter().map(|name| recipe::find(name)).collect::<Result<Vec<_>, _>>()?;
    let store = Store::open()?;
    if !rebuild && let Some(paths) = recipes.iter().map(|recipe| store.present(recipe)).collect() {
        return Ok(paths);
    }
    host::need_root("images")?;
    packages::ensure("images")?;
    let _lock = store.lock()?;
    let mut paths = Vec::new();
    for recipe in recipes {
        paths.push(store.build(recipe, rebuild)?);
    }
    Ok(paths)
}

/// Where the archives lie, for tests that look for them by name.
pub fn directory() -> Result<PathBuf, Failure> {
    Ok(host::cache_directory()?.join("images"))
}

/// Lines of apt.conf(5) that this host needs to reach its mirror.
pub fn apt_options() -> Vec<String> {
    sources::of_this_host().apt_options
}

/// The directory of archives.
struct Store {
    directory: PathBuf,
    architecture: String,
    sources: sources::Sources,
}

impl Store {
    fn open() -> Result<Self, Failure> {
        let directory = directory()?;
        std::fs::create_dir_all(&directory).attempting(format_args!("create {}", directory.display()))?;
        Ok(Self { directory, architecture: host::debian_architecture()?, sources: sources::of_this_host() })
    }

    /// Two runs do not build the same image at the same time; the lock ends with the process.
    fn lock(&self) -> Result<File, Failure> {
        let path = self.directory.join("lock");
        let file = File::create(&path).attempting(format_args!("create {}", path.display()))?;
        if file.try_lock().is_err() {
            steps::step("another run is building images: waiting for it");
            file.lock().attempting(format_args!("lock {}", path.display()))?;
        }
        Ok(file)
    }

    fn path(&self, recipe: &Recipe) -> PathBuf {
        let hash = recipe.hash(&self.architecture, &self.sources);
        self.directory.join(format!("{}-{hash}.tar", recipe.file_stem()))
    }

    fn present(&self, recipe: &Recipe) -> Option<PathBuf> {
        Some(self.path(recipe)).filter(|path| path.is_file())
    }

    fn build(&self, recipe: &Recipe, rebuild: bool) -> Result<PathBuf, Failure> {
        let path = self.path(recipe);
        if path.is_file() && !rebuild {
            return Ok(path);
        }
        let base = match recipe.base {
            Some(name) => Some(self.build(recipe::find(name)?, false)?),
            None => None,
        };
        steps::step(format_args!("building image {} from Debian's packages", recipe.name));
        let scratch = tempfile::tempdir_in(&self.directory).attempting("make a scratch directory")?;
        let root = rootfs::build(recipe, &self.sources, scratch.path())?;
        let archive = scratch.path().join("image.tar");
        layout::write(
            &archive,
            recipe,
            host::oci_architecture(&self.architecture),
            &root,
            base.as_deref(),
            scratch.path(),
        )?;
        std::fs::rename(&archive, &path).attempting(format_args!("rename {}", archive.display()))?;
        self.forget_older(recipe, &path)?;
        eprintln!("    {}", path.display());
        Ok(path)
    }

    /// What an older recipe of the same image has left.
    fn forget_older(&self, recipe: &Recipe, kept: &Path) -> Result<(), Failure> {
        let prefix = format!("{}-", recipe.file_stem());
        let entries =
            std::fs::read_dir(&self.directory).attempting(format_args!("read {}", self.directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let hash = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".tar"));
            if path != kept && hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
            {
                std::fs::remove_file(&path).attempting(format_args!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// A line that shows the last thing said; nothing at all where standard error is no terminal.
fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("    {spinner} {elapsed} {wide_msg}").expect("a constant template");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}

/// A bar over bytes.
fn byte_bar(bytes: u64, what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("    {msg} {wide_bar} {bytes}/{total_bytes}").expect("a constant template");
    ProgressBar::new(bytes).with_style(style).with_message(what)
}

/// Unpacks packages of another release into a directory, without installing them.
pub fn unpack(suite: &str, packages: &[&str], directory: &Path) -> Result<(), Failure> {
    let sources = sources::of_this_host();
    let mut command = rootfs::mmdebstrap();
    command.args(["--variant=extract", "--format=directory"]).arg(format!("--include={}", packages.join(",")));
    command.args(sources.apt_options.iter().map(|option| format!("--aptopt={option}")));
    command.arg(suite).arg(directory);
    rootfs::run(&mut command, &packages.join(", "))
}

/// Installs packages and Debian's smallest system into a directory; `script` is given it at the end.
pub fn install(packages: &[&str], script: &Path, directory: &Path) -> Result<(), Failure> {
    let sources = sources::of_this_host();
    let mut command = rootfs::mmdebstrap();
    command.args(["--variant=minbase", "--format=directory"]).arg(format!("--include={}", packages.join(",")));
    command.args(sources.apt_options.iter().map(|option| format!("--aptopt={option}")));
    command.arg(format!("--customize-hook={}", script.display()));
    command.arg(sources::SUITE).arg(directory).args(&sources.lines);
    rootfs::run(&mut command, &packages.join(", "))
}

/// Installs packages of another release into a directory, its sources within apt's reach; `script` is given it at the end.
pub fn install_other(suite: &str, packages: &[&str], script: &Path, directory: &Path) -> Result<(), Failure> {
    let sources = sources::of_this_host();
    let mut command = rootfs::mmdebstrap();
    command.args(["--variant=minbase", "--format=directory"]).arg(format!("--include={}", packages.join(",")));
    command.args(sources.apt_options.iter().map(|option| format!("--aptopt={option}")));
    command.arg(format!("--customize-hook={}", script.display())).arg(suite).arg(directory);
    command.args(["deb", "deb-src"].map(|kind| format!("{kind} http://deb.debian.org/debian {suite} main")));
    rootfs::run(&mut command, &packages.join(", "))
}
