//! `apt-get install` in a container, and what it made as an image.

use dozen_testbox::{MACHINE_ADDRESS, Machine};

use crate::with;

/// What `apt-get install` brings in the tests below: users and groups, set-user-id and set-group-id programs, capabilities
/// of a file, alternatives, diversions.
const PACKAGES: &str = "cron dbus iputils-ping libcap2-bin molly-guard sudo vim-tiny";

/// Everything in a root file system but what a container is given anew: kind, mode, owners, size, seconds, target.
const LISTING: &str = r"
    find / -xdev ! -type d -printf '%y %m %U:%G %s %T@ %p %l\n' -o -printf '%y %m %U:%G - %T@ %p\n' |
        sed -E 's/(\.[0-9]+) / /' |
        grep -vE ' /(etc/(hosts|hostname|resolv.conf|mtab|apt/sources.list)|\.dockerenv|etc|etc/apt|dev|proc|sys|tmp|)( |$)' |
        sort
    getcap -r /usr /bin 2>/dev/null";

/// As a Debian user does it, from a mirror that another container serves: apt gives up root to fetch, and dpkg makes
/// users, links, renames and syncs over the overlay.
#[test]
fn apt_get_installs_and_what_it_made_is_kept_by_an_image() {
    let machine = Machine::new();
    let engine = with(&machine, "debian:bookworm-slim");
    for image in ["busybox", "debian-mirror"] {
        engine.load(image);
    }
    engine.dozen(&["run", "--rm", "-v", "mirror:/srv/debian", "debian-mirror", "true"]).expect(0);
    let serve = ["run", "-d", "--name", "mirror", "-p", "80:80", "-v", "mirror:/www:ro", "busybox"];
    let serve: Vec<&str> = serve.into_iter().chain(["httpd", "-f", "-p", "80", "-h", "/www"]).collect();
    engine.dozen(&serve).expect(0);

    let sources = machine.directory().join("sources.list");
    // The signature is Debian's own for its whole archive; `demo --apt` has apt check that one.
    std::fs::write(&sources, "deb [trusted=yes] http://deb.debian.org/ bookworm main\n").unwrap();
    let sources = format!("{}:/etc/apt/sources.list:ro", sources.display());
    let name = format!("deb.debian.org:{MACHINE_ADDRESS}");
    let install = format!(
        "set -e; apt-get update; apt-get install --yes --no-install-recommends {PACKAGES}; \
         useradd --create-home someone; echo 'someone ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/someone; \
         chmod 440 /etc/sudoers.d/someone; echo; echo LISTING; {LISTING}"
    );
    let run =
        ["run", "--name", "installer", "-e", "DEBIAN_FRONTEND=noninteractive", "--add-host", &name, "-v", &sources];
    let run: Vec<&str> = run.into_iter().chain(["debian:bookworm-slim", "sh", "-c", &install]).collect();
    let done = engine.dozen(&run).expect(0);
    let (talk, listing) = done.out.split_once("\nLISTING\n").unwrap();
    for words in ["Setting up sudo", "Processing triggers for libc-bin"] {
        assert!(talk.contains(words), "apt-get does not say '{words}':\n{talk}");
    }
    assert!(!done.err.contains("E: ") && !done.err.contains("Permission denied"), "{}", done.err);

    // Out and in again as an archive, whose layers are all that there is.
    let archive = machine.directory().join("tools.tar");
    let archive = archive.to_str().unwrap();
    engine.dozen(&["commit", "installer", "tools:1"]).expect(0);
    engine.dozen(&["save", "--output", archive, "tools:1"]).expect(0);
    engine.dozen(&["rm", "installer"]).expect(0);
    engine.dozen(&["rmi", "tools:1"]).expect(0);
    engine.dozen(&["load", "--input", archive]).expect(0);
    let tools = |options: &[&str], command: &str| {
        engine.dozen(&[&["run", "--rm"], options, &["tools:1", "sh", "-c", command]].concat()).text()
    };
    let kept = tools(&[], LISTING);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (lost, new) = (&lines(listing) - &lines(&kept), &lines(&kept) - &lines(listing));
    assert!(lines(listing).len() > 2000, "{listing}");
    assert!(lost.is_empty() && new.is_empty(), "the image is not what was committed: {lost:#?} became {new:#?}");

    let modes = "stat -c '%a %U:%G' /usr/bin/sudo /usr/bin/crontab /usr/lib/dbus-1.0/dbus-daemon-launch-helper";
    assert_eq!(tools(&[], modes), "4755 root:root\n2755 root:crontab\n4754 root:messagebus\n");
    assert_eq!(tools(&[], "getcap /bin/ping"), "/bin/ping cap_net_raw=ep\n");
    assert_eq!(
        tools(&[], "dpkg --audit; dpkg --verify | grep -v ^missing; dpkg-divert --truename /sbin/halt"),
        "/lib/molly-guard/halt\n"
    );
    assert_eq!(
        tools(&[], "readlink -f /usr/bin/vi; update-alternatives --query vi | grep ^Status"),
        "/usr/bin/vim.tiny\nStatus: auto\n"
    );
    // Its programs act on what they were given.
    assert_eq!(tools(&["--user", "someone"], "sudo id -un; sudo -u nobody id -un"), "root\nnobody\n");
    let strict = ["run", "--rm", "--user", "someone", "--security-opt", "no-new-privileges", "tools:1", "sudo", "id"];
    engine.dozen(&strict).refuses(1, &["no new privileges"]);
    assert!(tools(&["--user", "someone"], "ping -c 1 127.0.0.1").contains(" 0% packet loss"));
    let without =
        ["run", "--rm", "--user", "someone", "--cap-drop", "NET_RAW", "tools:1", "sh", "-c", "ping 127.0.0.1"];
    engine.dozen(&without).refuses(126, &["Operation not permitted"]);
    assert_eq!(tools(&[], "apt-get purge --yes --quiet molly-guard >/dev/null && ls /sbin/halt* || true"), "");
}
