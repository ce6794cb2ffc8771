//! Snapshots of volumes, killed at each step: there is all of one or none, and a restore has happened or has not.

use dozen_testbox::Machine;

use crate::bench::{Bench, until_none};

/// Each, and what kills there.
const FAILPOINTS: [(&str, &[&str]); 9] = [
    ("engine.snapshot.begun", CREATE),
    ("engine.snapshot.copied", CREATE),
    ("engine.snapshot.placed", CREATE),
    ("engine.snapshot.row", CREATE),
    ("engine.restore.copied", RESTORE),
    ("engine.restore.exchanged", RESTORE),
    ("engine.restore.after", RESTORE),
    ("engine.unsnapshot.row", REMOVE),
    ("engine.unsnapshot.after", REMOVE),
];
const CREATE: &[&str] = &["volume", "snapshot", "create", "data", "second"];
const RESTORE: &[&str] = &["volume", "snapshot", "restore", "data", "first"];
const REMOVE: &[&str] = &["volume", "snapshot", "rm", "data", "first"];

#[test]
fn half_a_snapshot_is_none() {
    let machine = Machine::new();
    let disk = machine.directory().join("disk").display().to_string();
    std::fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
    machine.run("mkfs.xfs", &["-q", &disk]).expect(0);
    machine.run("mount", &["-o", "loop", &disk, machine.directory().join("data").to_str().unwrap()]).expect(0);
    let mut bench = Bench::on(machine);
    let volume = bench.machine.directory().join("data/volumes/data").display().to_string();
    let sh = |bench: &Bench, script: &str| bench.machine.run("sh", &["-ec", &format!("cd {volume}; {script}")]).text();
    for (failpoint, killed) in FAILPOINTS {
        println!("-- {failpoint}");
        bench.dozen(&["volume", "create", "data"]).expect(0);
        sh(&bench, "mkdir _data/d; echo old >_data/d/file; echo old >_data/other");
        bench.dozen(&["volume", "snapshot", "create", "data", "first"]).expect(0);
        sh(&bench, "echo new >_data/d/file; rm _data/other; echo new >_data/added");
        bench.arm(failpoint);
        bench.try_dozen(killed);
        until_none("it was never reached", 10, || bench.is_armed(failpoint).then(String::new).into_iter().collect());
        bench.end_engine(false);
        bench.revive();
        // Nothing of a copy is left, and what is listed is there, whole.
        let listed = bench.dozen(&["volume", "snapshot", "ls", "-q", "data"]).expect(0);
        let there = sh(&bench, "ls -A _snapshots 2>/dev/null || true");
        assert_eq!(listed, there, "{failpoint}");
        assert!(!sh(&bench, "ls -A").contains("_copying"), "{failpoint}");
        let content = "cat _data/d/file; ls _data";
        let (old, new) = ("old\nd\nother\n", "new\nadded\nd\n");
        let now = sh(&bench, content);
        match killed {
            CREATE => {
                assert_eq!(now, new, "{failpoint}");
                let is_there = listed == "first\nsecond\n";
                assert!(is_there || listed == "first\n", "{failpoint}: {listed}");
                assert_eq!(is_there, failpoint == "engine.snapshot.row");
                if !is_there {
                    bench.dozen(CREATE).expect(0);
                }
                let kept = sh(&bench, "cat _snapshots/second/d/file; ls _snapshots/second");
                assert_eq!(kept, new, "{failpoint}");
                bench.dozen(&["volume", "snapshot", "rm", "data", "second"]).expect(0);
            }
            RESTORE => {
                let is_restored = failpoint != "engine.restore.copied";
                assert_eq!(now, if is_restored { old } else { new }, "{failpoint}");
                bench.dozen(RESTORE).expect(0);
                assert_eq!(sh(&bench, content), old, "{failpoint}");
            }
            _ => assert_eq!((now.as_str(), listed.as_str()), (new, ""), "{failpoint}"),
        }
        if killed != REMOVE {
            bench.dozen(REMOVE).expect(0);
        }
        bench.dozen(&["volume", "rm", "data"]).expect(0);
    }
}
