//! From a spec's resources to values in control files (config-linux.md of the runtime specification, "Control groups").
//! Pure: what the cgroup has now, where that matters, is asked of the caller.
//!
//! A file to each kind: [`memory`], [`cpu`], [`io`], and what is small.

mod cpu;
mod io;
mod memory;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNetwork, LinuxResources};

pub(super) use self::io::weight_of_blkio;
pub(crate) use self::memory::swap_alone;
use super::CgroupLayout;
use crate::error::RuntimeError;

/// One value for one control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The controller's hierarchy, and in it the cgroup's directory.
    pub(crate) directory: PathBuf,
    pub(crate) file: Cow<'static, str>,
    pub(crate) value: String,
    pub(crate) if_absent: IfAbsent,
    /// What the kernel calls invalid may be so only as long as another of the settings has its old value: then it is
    /// written once more after all the others.
    pub(crate) once_more: bool,
}

impl Setting {
    /// Whose file it is.
    pub(super) fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}

/// What is done where a kernel does not have a control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IfAbsent {
    Fail,
    /// The value says only what is so without the file.
    Pass,
    /// Another file serves.
    Write(Cow<'static, str>, String),
}

/// What is written in a control file (a controller, and the file's name) now. A container that is new has nothing to
/// say: `None`.
pub(crate) type Present<'a> = &'a dyn Fn(&str, &str) -> Option<String>;

/// Everything but what has to stand before anyone is in the cgroup, in order. A limit whose controller is not there is
/// an error, not a silence.
pub(crate) fn decide(
    layout: &CgroupLayout,
    name: &Path,
    resources: &LinuxResources,
    present: Present<'_>,
) -> Result<Vec<Setting>, RuntimeError> {
    let mut settings = Settings { layout, name, list: Vec::new() };
    if let Some(memory) = resources.memory() {
        memory::limits(&mut settings, memory, present)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::limits(&mut settings, cpu, present)?;
    }
    // 0 says nothing: it is what a request without a limit looks like. -1 is no limit, which a new cgroup has anyway.
    if let Some(limit) = resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0)
        && (limit > 0 || layout.controller("pids").is_some())
    {
        let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        settings.set("pids", "pids.max", "pids.max", value)?;
    }
    if let Some(io) = resources.block_io() {
        io::limits(&mut settings, io)?;
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        huge_pages(&mut settings, huge.page_size(), huge.limit())?;
    }
    if let Some(network) = resources.network() {
        network_limits(&mut settings, network)?;
    }
    let mut rdma: Vec<_> = resources.rdma().iter().flatten().collect();
    rdma.sort_by_key(|(device, _)| *device);
    for (device, limit) in rdma {
        let count = |name, count: Option<u32>| count.map(|count| format!(" {name}={count}")).unwrap_or_default();
        let counts = [count("hca_handle", limit.hca_handles()), count("hca_object", limit.hca_objects())].concat();
        if counts.is_empty() {
            return Err(invalid(format!("linux.resources.rdma: {device}: neither hcaHandles nor hcaObjects")));
        }
        settings.set("rdma", "rdma.max", "rdma.max", format!("{device}{counts}"))?;
    }
    unified(&mut settings, resources)?;
    Ok(settings.list)
}

/// What has to be there before the first process is: rules of version 1's devices, since what the first takes from
/// everyone a later one gives back to some; and time for realtime processes, who may not enter a cgroup without.
pub(crate) fn decide_first(
    layout: &CgroupLayout,
    name: &Path,
    resources: &LinuxResources,
) -> Result<Vec<Setting>, RuntimeError> {
    let mut settings = Settings { layout, name, list: Vec::new() };
    if layout.controller("devices").is_some() {
        let rules = resources.devices().as_deref().unwrap_or_default();
        for (allow, line) in crate::device_filter::lines_of_version_1(rules)? {
            settings.set("devices", if allow { "devices.allow" } else { "devices.deny" }, "", line)?;
        }
    }
    if let Some(cpu) = resources.cpu() {
        cpu::realtime(&mut settings, cpu)?;
    }
    Ok(settings.list)
}

/// All that can be changed of a cgroup that is in use: the devices cannot.
pub(crate) fn decide_update(
    layout: &CgroupLayout,
    name: &Path,
    resources: &LinuxResources,
    present: Present<'_>,
) -> Result<Vec<Setting>, RuntimeError> {
    let mut settings = Settings { layout, name, list: decide(layout, name, resources, present)? };
    if let Some(cpu) = resources.cpu() {
        cpu::realtime(&mut settings, cpu)?;
    }
    Ok(settings.list)
}

struct Settings<'a> {
    layout: &'a CgroupLayout,
    name: &'a Path,
    list: Vec<Setting>,
}

impl Settings<'_> {
    /// One value, by the file's name in version 1 and in version 2. Empty: that version has nothing like it.
    fn set(
        &mut self,
        controller: &str,
        version_1: impl Into<Cow<'static, str>>,
        version_2: impl Into<Cow<'static, str>>,
        value: String,
    ) -> Result<&mut Setting, RuntimeError> {
        let (version_1, version_2) = (version_1.into(), version_2.into());
        let Some(hierarchy) = self.layout.controller(controller) else {
            let file = if self.layout.is_unified() && !version_2.is_empty() { version_2 } else { version_1 };
            return Err(invalid(format!(
                "this machine has no cgroup controller {controller:?}, which a limit needs (for {file})"
            )));
        };
        let (file, other) = if hierarchy.is_unified() { (version_2, version_1) } else { (version_1, version_2) };
        if file.is_empty() {
            let version = if hierarchy.is_unified() { 2 } else { 1 };
            return Err(invalid(format!("version {version} of cgroups has nothing like {other}")));
        }
        let directory = hierarchy.directory(self.name);
        self.list.push(Setting { directory, file, value, if_absent: IfAbsent::Fail, once_more: false });
        Ok(self.list.last_mut().expect("just pushed"))
    }

    fn is_unified(&self, controller: &str) -> bool {
        match self.layout.controller(controller) {
            Some(hierarchy) => hierarchy.is_unified(),
            None => self.layout.is_unified(),
        }
    }
}

fn invalid(text: impl Into<String>) -> RuntimeError {
    RuntimeError::Invalid(text.into())
}

/// Reservations where the kernel counts them (5.7), and what is used in any case (cgroup-v1/hugetlb.rst).
fn huge_pages(settings: &mut Settings<'_>, size: &str, limit: i64) -> Result<(), RuntimeError> {
    let digits = size.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || !matches!(&size[digits..], "KB" | "MB" | "GB") {
        return Err(invalid(format!("linux.resources.hugepageLimits: {size:?} is no size such as 2MB")));
    }
    let value = if limit < 0 && settings.is_unified("hugetlb") { "max".to_owned() } else { limit.to_string() };
    let reserved = settings.set(
        "hugetlb",
        format!("hugetlb.{size}.rsvd.limit_in_bytes"),
        format!("hugetlb.{size}.rsvd.max"),
        value.clone(),
    )?;
    reserved.if_absent = IfAbsent::Pass;
    settings.set("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), format!("hugetlb.{size}.max"), value)?;
    Ok(())
}

/// Version 1 only (cgroup-v1/net_cls.rst, net_prio.rst): in version 2 a filter of the firewall's does that.
fn network_limits(settings: &mut Settings<'_>, network: &LinuxNetwork) -> Result<(), RuntimeError> {
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        settings.set("net_cls", "net_cls.classid", "", class.to_string())?;
    }
    for interface in network.priorities().iter().flatten() {
        settings.set("net_prio", "net_prio.ifpriomap", "", format!("{} {}", interface.name(), interface.priority()))?;
    }
    Ok(())
}

/// Files of version 2 by their own names, as they are.
fn unified(settings: &mut Settings<'_>, resources: &LinuxResources) -> Result<(), RuntimeError> {
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort();
    for (file, value) in files {
        let controller = match file.split_once('.') {
            Some((controller, rest)) if !controller.is_empty() && !rest.is_empty() && !file.contains('/') => controller,
            _ => return Err(invalid(format!("linux.resources.unified: {file:?} names no control file"))),
        };
        let unified = settings.layout.unified().filter(|unified| controller == "cgroup" || unified.has(controller));
        let directory = unified.map(|unified| unified.directory(settings.name)).ok_or_else(|| {
            // Each in runc's words.
            let why = match settings.layout.hierarchies().any(|hierarchy| !hierarchy.is_unified()) {
                true => "invalid configuration: cannot use unified on cgroup v1: ",
                false => "",
            };
            invalid(format!(
                "{why}unified resource {file:?} can't be set: controller {controller:?} not available in version 2"
            ))
        })?;
        // The kernel takes a line at a time.
        let lines = if value.is_empty() { vec![""] } else { value.lines().collect() };
        settings.list.extend(lines.into_iter().map(|line| Setting {
            directory: directory.clone(),
            file: file.clone().into(),
            value: line.to_owned(),
            if_absent: IfAbsent::Fail,
            once_more: false,
        }));
    }
    Ok(())
}
