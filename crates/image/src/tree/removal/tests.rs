use std::fs;
use std::process::Command;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::*;
use crate::tree;

/// Runs a test, by its name, in a process and a mount namespace of its own, where it may mount and limit itself.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    const INSIDE: &str = "DOZEN_TEST_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut command = Command::new("unshare");
    command.arg("--mount").arg(std::env::current_exe().unwrap()).args(["--exact", name]).env(INSIDE, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}{words}", output.status);
}

/// A directory in memory, where a deep tree is made in no time; of a process of a test's own.
pub(crate) fn in_memory() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    mount(c"tmpfs", root.path(), c"tmpfs", MountFlags::empty(), None).unwrap();
    root
}

/// From here on this process has fewer descriptors than any of these trees has levels.
pub(crate) fn few_descriptors() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(20), maximum: Some(20) }).unwrap();
}

/// Makes directories within each other, and a file at the bottom.
pub(crate) fn nest(path: &Path, depth: usize, name: &[u8], content: Option<&[u8]>) {
    fs::create_dir(path).unwrap();
    let mut here = tree::open_root(path).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&here, name, Mode::RWXU).unwrap();
        here = tree::open_no_links(here.as_fd(), name, tree::DIRECTORY).unwrap();
    }
    if let Some(content) = content {
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let file = rustix::fs::openat(&here, c"file", flags, Mode::RUSR).unwrap();
        rustix::io::write(&file, content).unwrap();
    }
}

#[test]
fn depth_takes_neither_stack_nor_descriptors_nor_a_path() {
    alone("tree::removal::tests::depth_takes_neither_stack_nor_descriptors_nor_a_path", || {
        let root = in_memory();
        nest(&root.path().join("deep"), 20_000, b"d", Some(b"bottom"));
        nest(&root.path().join("long"), 60, &[b'n'; 255], Some(b"bottom"));
        few_descriptors();
        let path = root.path().to_owned();
        let small = std::thread::Builder::new().stack_size(128 * 1024);
        let removed = small.spawn(move || (remove_tree(&path.join("deep")), remove_tree(&path.join("long")))).unwrap();
        let (deep, long) = removed.join().unwrap();
        deep.unwrap();
        long.unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        unmount(root.path(), UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn a_mount_resists_with_all_that_is_in_it_and_everything_else_goes() {
    alone("tree::removal::tests::a_mount_resists_with_all_that_is_in_it_and_everything_else_goes", || {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        for directory in ["a/b/mounted", "a/c/d", "z", "a/b/bound", "outside"] {
            fs::create_dir_all(tree.join(directory)).unwrap();
            fs::write(tree.join(directory).join("below"), "").unwrap();
        }
        fs::rename(tree.join("outside"), root.path().join("outside")).unwrap();
        let at = tree.join("a/b/mounted");
        mount(c"tmpfs", &at, c"tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(at.join("kept"), "1").unwrap();
        // On the same device, which a comparison of devices would not see.
        rustix::mount::mount_bind(root.path().join("outside"), tree.join("a/b/bound")).unwrap();
        let error = remove_tree(&tree).unwrap_err();
        assert!(["tree/a/b/mounted", "tree/a/b/bound"].contains(&error.path.as_str()), "{error:?}");
        assert_eq!((error.others, error.error.raw_os_error()), (1, Some(Errno::BUSY.raw_os_error())), "{error:?}");
        assert_eq!(fs::read_to_string(at.join("kept")).unwrap(), "1");
        assert!(root.path().join("outside/below").exists());
        let names = |path: &str| tree::names(tree::open_root(&tree.join(path)).unwrap().as_fd()).unwrap();
        assert_eq!((names(""), names("a")), (vec![b"a".to_vec()], vec![b"b".to_vec()]));
        assert_eq!(names("a/b"), [b"bound".to_vec(), b"mounted".to_vec()]);
        for name in ["mounted", "bound"] {
            unmount(tree.join("a/b").join(name), UnmountFlags::DETACH).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    });
}

#[test]
fn everything_goes_and_no_link_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "").unwrap();
    let tree = root.path().join("tree");
    // More directories than are remembered at once, empty ones and others.
    for number in 0..BATCH + 10 {
        fs::create_dir_all(tree.join(format!("{number}/a"))).unwrap();
        fs::write(tree.join(format!("{number}/file")), "").unwrap();
    }
    std::os::unix::fs::symlink(outside.path(), tree.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), tree.join("0/link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    for name in ["tree", "link", "missing", "missing/missing"] {
        remove_tree(&root.path().join(name)).unwrap();
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    assert!(outside.path().join("kept").exists());
}

#[test]
fn what_others_remove_meanwhile_is_no_failure() {
    let root = tempfile::tempdir().unwrap();
    let tree = root.path().join("tree");
    for number in 0..1000 {
        fs::create_dir_all(tree.join(format!("{}/{}/{}", number / 100, number / 10 % 10, number % 10))).unwrap();
    }
    std::thread::scope(|scope| {
        let removers: Vec<_> = (0..4).map(|_| scope.spawn(|| remove_tree(&tree))).collect();
        for remover in removers {
            remover.join().unwrap().unwrap();
        }
    });
    assert!(!tree.exists());
}
