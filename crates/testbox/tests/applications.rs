//! Programs that people run, from Debian's packages.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use dozen_testbox::{Engine, MACHINE_ADDRESS, Machine, Side, dozen_program, until};

fn with<'a>(machine: &'a Machine, image: &str) -> Engine<'a> {
    let engine = machine.engine();
    engine.load(image);
    engine
}

#[test]
#[ignore = "heavy: an image of its own (cargo xtask test --heavy)"]
fn nginx_serves_and_ends_politely() {
    let machine = Machine::new();
    let engine = with(&machine, "nginx:1.22");
    std::fs::write(machine.directory().join("index.html"), "from a bind\n").unwrap();
    let page = format!("{}:/var/www/html/index.html:ro", machine.directory().join("index.html").display());
    engine.dozen(&["run", "-d", "--name", "web", "-p", "8080:80", "-v", &page, "nginx:1.22"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)), "from a bind\n");
    assert_eq!(machine.page(Side::Machine, (Ipv4Addr::LOCALHOST, 8080).into()), "from a bind\n");
    // Its log is the container's.
    assert!(engine.dozen(&["logs", "web"]).expect(0).out.contains("GET / HTTP/1.0"));
    engine.dozen(&["exec", "web", "nginx", "-s", "reload"]).expect(0);
    assert_eq!(machine.page(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 8080)), "from a bind\n");
    // SIGQUIT, as the image says.
    engine.dozen(&["stop", "web"]).expect(0);
    assert_eq!(engine.dozen(&["wait", "web"]).text(), "0\n");
}

#[test]
#[ignore = "heavy: an image of its own (cargo xtask test --heavy)"]
fn redis_keeps_its_data() {
    let machine = Machine::new();
    let engine = with(&machine, "redis:7");
    let run = ["run", "-d", "--name", "store", "-p", "6379:6379", "-v", "redis:/data", "redis:7"];
    engine.dozen(&run).expect(0);
    let ask = |line: &str| {
        let mut stream = machine.connect(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 6379)).ok()?;
        stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.strip_suffix("+OK\r\n").filter(|answer| !answer.is_empty()).map(str::to_owned)
    };
    assert_eq!(until("redis answers", || ask("PING")), "+PONG\r\n");
    assert_eq!(ask("SET colour green").as_deref(), Some("+OK\r\n"));
    assert_eq!(ask("SAVE").as_deref(), Some("+OK\r\n"));
    engine.dozen(&["rm", "-f", "store"]).expect(0);
    engine.dozen(&run).expect(0);
    assert_eq!(until("redis answers again", || ask("GET colour")), "$5\r\ngreen\r\n");
    assert_eq!(engine.dozen(&["exec", "store", "id", "-un"]).text(), "redis\n");
}

#[test]
#[ignore = "heavy: an image of its own (cargo xtask test --heavy)"]
fn postgres_survives_being_killed() {
    let machine = Machine::new();
    let engine = with(&machine, "postgres:15");
    let run = ["run", "-d", "--name", "db", "-p", "5432:5432", "-v", "pg:/var/lib/postgresql/data", "postgres:15"];
    engine.dozen(&run).expect(0);
    let ask = |query: &str| engine.dozen(&["exec", "db", "psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc", query]);
    until("the database is ready", || (ask("SELECT 1").code == 0).then_some(()));
    ask("CREATE TABLE things (name text); INSERT INTO things SELECT 'thing ' || n FROM generate_series(1, 1000) n")
        .expect(0);
    engine.dozen(&["kill", "db"]).expect(0);
    assert_eq!(engine.dozen(&["wait", "db"]).text(), "137\n");
    engine.dozen(&["start", "db"]).expect(0);
    until("the database has recovered", || (ask("SELECT 1").code == 0).then_some(()));
    assert_eq!(ask("SELECT count(*) FROM things").text(), "1000\n");
    // The same data under another container, while the first is gone.
    engine.dozen(&["stop", "db"]).expect(0);
    assert_eq!(engine.dozen(&["wait", "db"]).text(), "0\n");
    engine.dozen(&["rm", "db"]).expect(0);
    engine.dozen(&run).expect(0);
    until("the database is ready again", || (ask("SELECT 1").code == 0).then_some(()));
    assert_eq!(ask("SELECT max(name) FROM things").text(), "thing 999\n");
    // Parallel workers use /dev/shm.
    let parallel = "SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SELECT count(*) FROM things";
    assert!(ask(parallel).text().ends_with("1000\n"));
}

#[test]
#[ignore = "heavy: an image of its own (cargo xtask test --heavy)"]
fn sudo_gives_root_unless_it_is_told_not_to() {
    let machine = Machine::new();
    let engine = with(&machine, "sudo");
    assert_eq!(engine.dozen(&["run", "--rm", "sudo", "id", "-un"]).text(), "someone\n");
    assert_eq!(engine.dozen(&["run", "--rm", "sudo", "sudo", "id", "-un"]).text(), "root\n");
    let strict = ["run", "--rm", "--security-opt", "no-new-privileges", "sudo", "sudo", "id"];
    engine.dozen(&strict).refuses(1, &["no new privileges"]);
}

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
    assert!(tools(&["--user", "someone"], "ping -c 1 127.0.0.1").contains(" 0% packet loss"));
    let without =
        ["run", "--rm", "--user", "someone", "--cap-drop", "NET_RAW", "tools:1", "sh", "-c", "ping 127.0.0.1"];
    engine.dozen(&without).refuses(126, &["Operation not permitted"]);
    assert_eq!(tools(&[], "apt-get purge --yes --quiet molly-guard >/dev/null && ls /sbin/halt* || true"), "");
}

/// dozen in a container of dozen: its data on a volume, because an overlay cannot lie on an overlay.
#[test]
fn dozen_in_dozen() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let program = dozen_program();
    let archive = dozen_testbox::image_archive("busybox");
    let (program, archive) = (program.display(), archive.display());
    let script = "
        set -e
        dozen daemon >/log 2>&1 &
        soon() { for i in $(seq 200); do \"$@\" && return; sleep 0.05; done; echo \"in vain: $*\"; return 1; }
        soon dozen version >/dev/null 2>&1
        dozen load --quiet --input /busybox.tar
        dozen run --rm busybox echo from within
        dozen run -d --name web -p 8080:80 busybox sh -c 'mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www'
        soon wget -qO- http://127.0.0.1:8080/
        dozen exec web hostname -i
        dozen rm -f web
    ";
    let done = engine.dozen(&[
        "run",
        "--rm",
        "--privileged",
        "-v",
        "inner:/var/lib/dozen",
        "-v",
        &format!("{program}:/bin/dozen:ro"),
        "-v",
        &format!("{archive}:/busybox.tar:ro"),
        "busybox",
        "sh",
        "-c",
        &format!("({script}) || {{ cat /log; exit 1; }}"),
    ]);
    let done = done.expect(0);
    let lines: Vec<&str> = done.out.lines().filter(|line| !line.starts_with("sha256:") && line.len() < 60).collect();
    assert!(lines.contains(&"from within") && lines.contains(&"served"), "{done:?}");
    // The inner one's containers were in the outer one's cgroup, and are gone with it.
    engine.dozen(&["volume", "rm", "inner"]).expect(0);
}
