//! Shares of a processor's caches and memory bandwidth (config-linux.md, "IntelRdt"): a group of the resctrl file system
//! (Documentation/filesystems/resctrl.rst), into which whoever makes a container goes first, and so whoever it clones.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;

use crate::Spec;
use crate::error::{Context, RuntimeError};

/// Where the specification and the kernel's documentation have it.
const MOUNT_POINT: &str = "/sys/fs/resctrl";
/// linux/magic.h.
const RDTGROUP_SUPER_MAGIC: i64 = 0x0765_5821;
/// What lies in the root beside the groups.
const NO_GROUPS: [&str; 5] = [".", "..", "info", "mon_groups", "mon_data"];

/// What a container asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    /// For its file, with a line feed after each line. Empty: what the group has, which then must be there.
    schemata: String,
}

impl Group {
    /// Decides. `None`: nothing was asked for.
    pub(super) fn of_spec(spec: &Spec, id: &str) -> Result<Option<Self>, RuntimeError> {
        let asked = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
        asked.map(|asked| Self::new(asked, id)).transpose()
    }

    fn new(asked: &LinuxIntelRdt, id: &str) -> Result<Self, RuntimeError> {
        for (given, field) in [
            (asked.enable_cmt().unwrap_or(false), "enableCMT"),
            (asked.enable_mbm().unwrap_or(false), "enableMBM"),
            (asked.enable_monitoring().unwrap_or(false), "enableMonitoring"),
            (asked.schemata().as_ref().is_some_and(|lines| !lines.is_empty()), "schemata"),
        ] {
            if given {
                return Err(RuntimeError::NotBuilt(format!("linux.intelRdt.{field}")));
            }
        }
        let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let (class, cache, bandwidth) =
            (text(asked.clos_id()), text(asked.l3_cache_schema()), text(asked.mem_bw_schema()));
        let is_named = class.is_some();
        let name = class.unwrap_or_else(|| id.to_owned());
        if NO_GROUPS.contains(&name.as_str()) || name.contains(['/', '\n', '\0']) {
            return Err(RuntimeError::Invalid(format!("invalid linux.intelRdt.closID {name:?}")));
        }
        if let Some(line) = bandwidth.as_ref().filter(|line| !line.starts_with("MB:") || line.contains('\n')) {
            return Err(RuntimeError::Invalid(format!("linux.intelRdt.memBwSchema: {line:?} is no line of MB:")));
        }
        // "If l3CacheSchema contains a line beginning with MB:, the value written to schemata file MUST be the non-MB:
        // line(s) in l3CacheSchema and the line in memBwSchema."
        let cache = cache.iter().flat_map(|lines| lines.lines());
        let cache = cache.filter(|line| bandwidth.is_none() || !line.starts_with("MB:"));
        let schemata: String = cache.chain(bandwidth.as_deref()).map(|line| format!("{line}\n")).collect();
        if schemata.is_empty() && !is_named {
            return Err(RuntimeError::Invalid("linux.intelRdt asks for no class and no share".to_owned()));
        }
        parse(&schemata)?;
        Ok(Self { name, schemata })
    }
}

/// The file system, and how groups are made and removed there: the kernel fills a new directory.
pub(super) struct Resctrl {
    root: PathBuf,
    make: fn(&Path) -> io::Result<()>,
    remove: fn(&Path) -> io::Result<()>,
}

impl Resctrl {
    /// That of this machine.
    pub(super) fn mounted() -> Result<Self, RuntimeError> {
        let is_mounted = rustix::fs::statfs(MOUNT_POINT).is_ok_and(|status| status.f_type == RDTGROUP_SUPER_MAGIC);
        if !is_mounted {
            return Err(RuntimeError::Invalid(format!(
                "linux.intelRdt: the resctrl file system is not mounted on {MOUNT_POINT}, or this machine has none"
            )));
        }
        Ok(Self { root: MOUNT_POINT.into(), make: |path| fs::create_dir(path), remove: |path| fs::remove_dir(path) })
    }

    /// It is for us to make, and so to remove.
    pub(super) fn lacks(&self, group: &Group) -> bool {
        !self.root.join(&group.name).exists()
    }

    /// Makes the group if it is not there, and moves a process into it; then whoever it clones is there, too. One that is
    /// there has to be as it is asked for, since others are in it.
    pub(super) fn enter(&self, group: &Group, pid: u32) -> Result<(), RuntimeError> {
        let directory = self.root.join(&group.name);
        let schemata = directory.join("schemata");
        let context = || format!("linux.intelRdt: make {}", directory.display());
        if group.schemata.is_empty() {
            if !directory.exists() {
                let missing = directory.display();
                return Err(RuntimeError::Invalid(format!(
                    "linux.intelRdt: {missing} is not there, and nothing says what to make"
                )));
            }
        } else {
            match (self.make)(&directory) {
                Ok(()) => self.write(&schemata, &group.schemata)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let there = fs::read_to_string(&schemata).context(context)?;
                    let has = parse(&there)?;
                    if let Some(((resource, domain), _)) =
                        parse(&group.schemata)?.iter().find(|(key, value)| has.get(key) != Some(value))
                    {
                        return Err(RuntimeError::Invalid(format!(
                            "linux.intelRdt: {} is there already, and has another {resource}:{domain}",
                            directory.display()
                        )));
                    }
                }
                made => made.context(context)?,
            }
        }
        self.join(&group.name, pid)
    }

    /// Moves a process into a group.
    pub(super) fn join(&self, name: &str, pid: u32) -> Result<(), RuntimeError> {
        self.write(&self.root.join(name).join("tasks"), &pid.to_string())
    }

    /// Removes a group that we have made, unless somebody is in it.
    pub(super) fn remove(&self, name: &str) -> Result<(), RuntimeError> {
        let directory = self.root.join(name);
        let context = || format!("remove {}", directory.display());
        match fs::read_to_string(directory.join("tasks")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            // Another container of the same class, or we ourselves until we end.
            Ok(tasks) if tasks.lines().any(|task| task != std::process::id().to_string()) => Ok(()),
            tasks => tasks.and_then(|_| (self.remove)(&directory)).context(context),
        }
    }

    /// One write(2), which the kernel takes as a whole or refuses, and says why elsewhere.
    fn write(&self, file: &Path, text: &str) -> Result<(), RuntimeError> {
        let written = OpenOptions::new().write(true).open(file).and_then(|mut file| file.write_all(text.as_bytes()));
        let why = || fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        written.context(|| format!("linux.intelRdt: write {text:?} to {} ({})", file.display(), why().trim()))
    }
}

/// Removes what a container's record says.
pub(super) fn remove(made: Option<&String>) -> Result<(), RuntimeError> {
    made.map_or(Ok(()), |name| Resctrl::mounted()?.remove(name))
}

/// `L3:0=fffff;1=3` to what each resource has of each domain; masks are hexadecimal, bandwidths decimal.
fn parse(schemata: &str) -> Result<BTreeMap<(&str, u32), u64>, RuntimeError> {
    let wrong = |line: &str| RuntimeError::Invalid(format!("linux.intelRdt: {line:?} is no line of a schemata file"));
    let mut shares = BTreeMap::new();
    for line in schemata.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (resource, domains) = line.split_once(':').ok_or_else(|| wrong(line))?;
        let radix = if resource.starts_with('L') { 16 } else { 10 };
        for share in domains.split(';').filter(|share| !share.is_empty()) {
            let (domain, value) = share.split_once('=').ok_or_else(|| wrong(line))?;
            let value = u64::from_str_radix(value.trim().trim_start_matches("0x"), radix).map_err(|_| wrong(line))?;
            shares.insert((resource, domain.trim().parse().map_err(|_| wrong(line))?), value);
        }
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn group(asked: Value) -> Result<Group, String> {
        let spec = json!({"ociVersion": "1.2.0", "linux": {"intelRdt": asked}}).to_string();
        let (spec, _) = crate::reading::read_spec(spec.as_bytes()).unwrap();
        let group = Group::of_spec(&spec, "id").map_err(|error| error.to_string());
        Ok(group?.unwrap())
    }

    #[test]
    fn lines_are_put_together_as_the_specification_says() {
        for (asked, name, schemata) in [
            (json!({"closID": "gold"}), "gold", ""),
            (json!({"l3CacheSchema": "L3:0=f"}), "id", "L3:0=f\n"),
            (json!({"closID": "", "memBwSchema": "MB:0=50"}), "id", "MB:0=50\n"),
            (json!({"l3CacheSchema": "L3:0=f\nL2:1=3", "memBwSchema": "MB:0=50"}), "id", "L3:0=f\nL2:1=3\nMB:0=50\n"),
            (json!({"l3CacheSchema": "MB:0=10\nL3:0=f", "memBwSchema": "MB:0=50"}), "id", "L3:0=f\nMB:0=50\n"),
            (json!({"l3CacheSchema": "MB:0=10\nL3:0=f"}), "id", "MB:0=10\nL3:0=f\n"),
        ] {
            let expected = Group { name: name.to_owned(), schemata: schemata.to_owned() };
            assert_eq!(group(asked.clone()), Ok(expected), "{asked}");
        }
        for (asked, words) in [
            (json!({}), "asks for no class and no share"),
            (json!({"closID": ".."}), "invalid linux.intelRdt.closID"),
            (json!({"closID": "a/b"}), "invalid linux.intelRdt.closID"),
            (json!({"closID": "info"}), "invalid linux.intelRdt.closID"),
            (json!({"memBwSchema": "L3:0=f"}), "no line of MB:"),
            (json!({"memBwSchema": "MB:0=5\nL3:0=f"}), "no line of MB:"),
            (json!({"l3CacheSchema": "L3:0=zz"}), "no line of a schemata file"),
            (json!({"l3CacheSchema": "L3:0=f", "enableCMT": true}), "enableCMT is not built yet"),
            (json!({"l3CacheSchema": "L3:0=f", "enableMBM": true}), "enableMBM is not built yet"),
        ] {
            let error = group(asked.clone()).unwrap_err();
            assert!(error.contains(words), "{asked}: {error}");
        }
    }

    /// A directory in which new groups are filled and emptied as resctrl.rst says.
    fn machine() -> (tempfile::TempDir, Resctrl) {
        let directory = tempfile::tempdir().unwrap();
        let make = |path: &Path| {
            fs::create_dir(path)?;
            fs::write(path.join("schemata"), "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n")?;
            fs::write(path.join("tasks"), "")
        };
        let resctrl = Resctrl { root: directory.path().to_owned(), make, remove: |path| fs::remove_dir_all(path) };
        (directory, resctrl)
    }

    #[test]
    fn a_group_is_made_shared_and_removed() {
        let (directory, resctrl) = machine();
        let read = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();
        let asked = group(json!({"closID": "gold", "l3CacheSchema": "L3:0=f"})).unwrap();
        assert!(resctrl.lacks(&asked));
        resctrl.enter(&asked, 4).unwrap();
        // The kernel would have merged it.
        assert!(read("gold/schemata").starts_with("L3:0=f\n"));
        assert_eq!(read("gold/tasks"), "4");
        // The next finds it as it is asked for, or takes it as it is; a third wants something else.
        fs::write(directory.path().join("gold/schemata"), "L3:0=0000f;1=fffff\nMB:0=100;1=100\n").unwrap();
        fs::write(directory.path().join("gold/tasks"), "").unwrap();
        assert!(!resctrl.lacks(&asked));
        resctrl.enter(&asked, 5).unwrap();
        resctrl.enter(&group(json!({"closID": "gold"})).unwrap(), 6).unwrap();
        assert_eq!(read("gold/tasks"), "6");
        for other in
            [json!({"closID": "gold", "l3CacheSchema": "L3:0=7"}), json!({"closID": "gold", "memBwSchema": "MB:2=5"})]
        {
            let error = resctrl.enter(&group(other).unwrap(), 7).unwrap_err().to_string();
            assert!(error.contains("is there already, and has another"), "{error}");
        }
        assert_eq!(read("gold/tasks"), "6");
        // It goes when nobody is in it.
        resctrl.remove("gold").unwrap();
        assert!(directory.path().join("gold").exists());
        fs::write(directory.path().join("gold/tasks"), format!("{}\n", std::process::id())).unwrap();
        resctrl.remove("gold").unwrap();
        assert!(!directory.path().join("gold").exists());
        resctrl.remove("gold").unwrap();
    }

    #[test]
    fn what_the_kernel_refuses_is_told_in_its_words() {
        let (directory, mut resctrl) = machine();
        let error = resctrl.enter(&group(json!({"closID": "none"})).unwrap(), 4).unwrap_err().to_string();
        assert!(error.contains("is not there, and nothing says what to make"), "{error}");
        fs::create_dir(directory.path().join("info")).unwrap();
        fs::write(directory.path().join("info/last_cmd_status"), "Mask out of range\n").unwrap();
        resctrl.make = |path| fs::create_dir(path);
        let error =
            resctrl.enter(&group(json!({"l3CacheSchema": "L3:0=ffffffff"})).unwrap(), 4).unwrap_err().to_string();
        assert!(error.contains("(Mask out of range)"), "{error}");
    }
}
