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
