//! A file system that is mounted on a directory of the host's: a volume with options.
//!
//! The options are words of mount(8), of which each is what it is by itself: what concerns the mount becomes an attribute,
//! all else goes to the file system one by one (fsconfig(2)). So no value can smuggle in another option.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::MountBuilder;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

use super::{attach, clone_tree, dress_bind, is_directory, propagation, set_options};
use crate::error::{Context, RuntimeError};
use crate::plan::{MountKind, PlannedMount};
use crate::sys;

/// fsconfig(2) takes no longer string, its end included.
const LONGEST_VALUE_BYTES: usize = 255;
/// Options of ours and of other people's runtimes, which are nobody's here.
const NOT_HERE: [&str; 8] =
    ["tmpcopyup", "copy-symlink", "idmap", "ridmap", "X-mount.subdir", "X-dozen.owner", "source", "move"];

/// A file system, as a type, a device and words say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    device: String,
    planned: PlannedMount,
}

impl FileSystem {
    /// `kind`: a type of file system; with `bind` or `rbind` among the options, which commas separate, whatever it likes.
    /// `device`: what that type takes for its source; of a bind, an absolute path.
    ///
    /// # Errors
    /// What cannot be mounted anywhere. Whether the file system knows its own options turns out when it is mounted.
    pub fn new(kind: &str, device: &str, options: &str) -> Result<Self, RuntimeError> {
        let invalid = |words: String| Err(RuntimeError::Invalid(words));
        let options: Vec<String> = options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        if [kind, device].into_iter().chain(options.iter().map(String::as_str)).any(|text| text.contains('\0')) {
            return invalid("a mount option contains a null byte".to_owned());
        }
        for option in &options {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if key == "remount" || NOT_HERE.contains(&key) {
                return invalid(format!("mount option {key:?} is not for a volume"));
            }
            if key.len().max(value.len()) > LONGEST_VALUE_BYTES {
                return invalid(format!("mount option {key:?}: the kernel takes {LONGEST_VALUE_BYTES} bytes at most"));
            }
        }
        if device.len() > LONGEST_VALUE_BYTES && !options.iter().any(|word| word == "bind" || word == "rbind") {
            return invalid(format!(
                "the device's name is too long: the kernel takes {LONGEST_VALUE_BYTES} bytes at most"
            ));
        }
        let mount = MountBuilder::default().typ(kind).source(device).destination("/volume").options(options).build();
        let mount = mount.map_err(|error| RuntimeError::Invalid(error.to_string()))?;
        let mut planned = PlannedMount::new(&mount, Path::new("/"), None)?;
        match &mut planned.kind {
            MountKind::Bind { .. } if !Path::new(device).is_absolute() => {
                return invalid(format!("invalid mount path: '{device}' mount path must be absolute"));
            }
            MountKind::Bind { .. } => {}
            MountKind::New { options, .. } => {
                // As mount(2) has it: not only this mount of it.
                if planned.set & libc::MOUNT_ATTR_RDONLY != 0 {
                    options.push(("ro".to_owned(), None));
                }
            }
            _ => return invalid(format!("a volume cannot be a file system of type {kind:?} like this")),
        }
        Ok(Self { device: device.to_owned(), planned })
    }

    /// Mounts it on a directory, which is no link. What fails leaves nothing mounted. May wait for a server. Blocks.
    pub fn mount(&self, place: &Path) -> Result<(), RuntimeError> {
        let action = || format!("mount {}:{}", self.device, place.display());
        let told = |error| match error {
            RuntimeError::System { action: step, source } => {
                RuntimeError::System { action: format!("{}: {step}", action()), source }
            }
            other => RuntimeError::Invalid(format!("{}: {other}", action())),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(place, flags, Mode::empty()).context(action)?;
        let tree = match &self.planned.kind {
            MountKind::Bind { source, recursive, .. } => {
                let tree = clone_tree(CWD, source.as_os_str(), *recursive).context(action)?;
                dress_bind(&tree, &self.planned, *recursive).map_err(told)?;
                tree
            }
            MountKind::New { kind, source, options, .. } => self.create(kind, source, options).map_err(told)?,
            _ => unreachable!("no other kind was accepted"),
        };
        if !is_directory(&tree).context(action)? {
            return Err(RuntimeError::system(action(), Errno::NOTDIR));
        }
        attach(&tree, &directory).map_err(told)
    }

    fn create(&self, kind: &str, source: &str, options: &[(String, Option<String>)]) -> Result<OwnedFd, RuntimeError> {
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
            .context(|| format!("open file system {kind:?}"))?;
        let create = || {
            if !source.is_empty() {
                rustix::mount::fsconfig_set_string(&context, "source", source)
                    .context(|| format!("set {kind}'s source"))?;
            }
            set_options(&context, kind, options)?;
            rustix::mount::fsconfig_create(&context).context(|| format!("create a {kind}"))
        };
        if let Err(error) = create() {
            return Err(with_reasons(error, &reasons(&context)));
        }
        let attributes = MountAttrFlags::from_bits_retain(self.planned.set as u32);
        let tree = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .context(|| format!("mount a {kind}"))?;
        if self.planned.propagation != 0 {
            sys::mount_setattr(&tree, false, propagation(self.planned.propagation))
                .context(|| "set its propagation".to_owned())?;
        }
        Ok(tree)
    }
}

/// What the kernel says of its refusal, one message a read (fsopen(2), "message retrieval interface"): `e ext4: …`.
fn reasons(context: &OwnedFd) -> Vec<String> {
    let mut said = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        let text = text.trim().trim_start_matches(|c: char| "ewi".contains(c)).trim();
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        if length == 0 || said.len() == 8 {
            break;
        }
        said.push(text);
    }
    said
}

fn with_reasons(error: RuntimeError, reasons: &[String]) -> RuntimeError {
    if reasons.is_empty() {
        return error;
    }
    let reasons = reasons.join("; ");
    match error {
        RuntimeError::System { action, source } => {
            RuntimeError::System { action: format!("{action} ({reasons})"), source }
        }
        other => RuntimeError::Invalid(format!("{other} ({reasons})")),
    }
}

/// Whether something is mounted right there. No server is asked.
pub fn is_mount_point(place: &Path) -> Result<bool, RuntimeError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match rustix::fs::statx(CWD, place, flags, StatxFlags::TYPE) {
        Ok(status) => Ok(status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(RuntimeError::system(format!("look at {}", place.display()), errno)),
    }
}

/// Unmounts what is mounted there, whoever still has it open; false if nothing is.
pub fn unmount(place: &Path) -> Result<bool, RuntimeError> {
    match rustix::mount::unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        // umount(2): it is no mount point.
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(errno) => Err(RuntimeError::system(format!("unmount {}", place.display()), errno)),
    }
}

/// Of a failure to mount: the kernel has no file system of that type, nor a module with it (fsopen(2), ENODEV).
pub fn is_unknown_file_system(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::System { source, .. } if source.raw_os_error() == Some(libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn options_are_parted_and_those_of_nobody_refused() {
        let set = |kind, options| FileSystem::new(kind, "/dev/x", options).map(|fs| (fs.planned.set, fs.planned.kind));
        let (attributes, kind) = set("ext4", "nosuid,nodev,ro,data=ordered,,noatime,sync").unwrap();
        let wanted =
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME;
        assert_eq!(attributes, wanted);
        let option = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        let options = vec![option("data", Some("ordered")), option("sync", None), option("ro", None)];
        let (kind_name, source) = ("ext4".to_owned(), "/dev/x".to_owned());
        assert_eq!(kind, MountKind::New { kind: kind_name, source, options, copy_up: false });
        assert!(matches!(set("none", "bind").unwrap().1, MountKind::Bind { recursive: false, .. }));
        assert!(matches!(set("anything", "rbind,rslave").unwrap().1, MountKind::Bind { recursive: true, .. }));
        for (kind, device, options, words) in [
            ("none", "relative", "bind", "'relative' mount path must be absolute"),
            ("none", "/a", "bind,remount", "mount option \"remount\" is not for a volume"),
            ("none", "/a", "bind,size=1", "option \"size\""),
            ("tmpfs", "tmpfs", "source=/etc", "mount option \"source\""),
            ("tmpfs", "tmpfs", "X-mount.subdir=a", "mount option \"X-mount.subdir\""),
            ("none", "/a", "bind,idmap=uids=0-0-1", "mount option \"idmap\""),
            ("tmpfs", "a\0b", "", "null byte"),
            ("cgroup2", "none", "", "cannot be a file system of type \"cgroup2\""),
            ("nfs", &"x".repeat(256), "", "the device's name is too long"),
        ] {
            let error = FileSystem::new(kind, device, options).unwrap_err().to_string();
            assert!(error.contains(words), "{kind} {options}: {error}");
        }
    }

    /// In a mount namespace of its own.
    fn alone(test: impl FnOnce(&Path) + Send) {
        let directory = tempfile::tempdir().unwrap();
        crate::overlay::with_own_mounts(|| {
            test(directory.path());
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_file_system_is_mounted_and_unmounted_again() {
        alone(|directory| {
            let place = directory.join("place");
            std::fs::create_dir(&place).unwrap();
            let tmpfs = FileSystem::new("tmpfs", "tmpfs", "size=1m,uid=7,mode=750,nodev,nosuid").unwrap();
            tmpfs.mount(&place).unwrap();
            assert!(is_mount_point(&place).unwrap() && !is_mount_point(directory).unwrap());
            let status = std::fs::metadata(&place).unwrap();
            assert_eq!((status.uid(), status.mode() & 0o7777), (7, 0o750));
            let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let line = mounts.lines().find(|line| line.contains("/place ")).unwrap();
            assert!(line.contains("nosuid,nodev") && line.contains("size=1024k"), "{line}");
            assert!(unmount(&place).unwrap() && !unmount(&place).unwrap());
            assert!(!is_mount_point(&place).unwrap());

            std::fs::write(directory.join("file"), "").unwrap();
            let bind = FileSystem::new("none", directory.to_str().unwrap(), "bind,ro").unwrap();
            bind.mount(&place).unwrap();
            assert!(place.join("file").exists());
            assert!(std::fs::write(place.join("file"), "x").is_err(), "it is read-only");
            unmount(&place).unwrap();
        });
    }

    #[test]
    fn what_cannot_be_mounted_says_why_and_leaves_nothing() {
        alone(|directory| {
            let place = directory.join("place");
            std::fs::create_dir(&place).unwrap();
            let nowhere = directory.join("nowhere").display().to_string();
            for (kind, device, options, words) in [
                ("none", nowhere.as_str(), "bind", "no such file or directory"),
                ("no-such-fs", "x", "", "no such device"),
                ("tmpfs", "tmpfs", "size=many", "tmpfs has no option \"size\", or not with this value"),
                ("tmpfs", "tmpfs", "colour=red", "has no option \"colour\""),
                ("none", "/etc/passwd", "bind", "not a directory"),
            ] {
                let error = FileSystem::new(kind, device, options).unwrap().mount(&place).unwrap_err();
                let told = dozen_model::error_chain(&error);
                assert!(told.contains(words) && told.starts_with(&format!("mount {device}:")), "{told}");
                assert!(!is_mount_point(&place).unwrap());
                assert_eq!(is_unknown_file_system(&error), kind == "no-such-fs");
            }
            // Nothing is mounted where a link leads.
            std::os::unix::fs::symlink(&place, directory.join("link")).unwrap();
            let tmpfs = FileSystem::new("tmpfs", "tmpfs", "").unwrap();
            assert!(tmpfs.mount(&directory.join("link")).is_err());
            assert!(!is_mount_point(&place).unwrap());
        });
    }
}
