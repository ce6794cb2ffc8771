//! CVE-2024-21626 and its class: what is open in a process of the container's.

use super::*;

/// CVE-2024-21626: no directory of the host's by a descriptor, for a first process and for a further one.
#[test]
fn a_working_directory_of_the_hosts_is_refused() {
    for number in 3..16 {
        for directory in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../..")] {
            let bundle = Bundle::new("ls /").with(|spec| spec["process"]["cwd"] = json!(directory));
            bundle.write();
            let mut command = bundle.command(&["run", "--bundle", bundle.path(), &bundle.id]);
            let forgotten = fs::File::open("/").unwrap();
            rustix::io::fcntl_setfd(&forgotten, rustix::io::FdFlags::empty()).unwrap();
            let output = command.output().unwrap();
            let seen = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!output.status.success() || !seen.contains("boot"), "{directory}: {seen}");
        }
    }
}
