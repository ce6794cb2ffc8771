//! dozen in a container of dozen.

use dozen_testbox::{Machine, dozen_program};

/// Its data on a volume, because an overlay cannot lie on an overlay.
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
