//! What the engine takes of memory while layers go and come, whatever their size.

use dozen_testbox::{Engine, Machine};

use crate::HOST;
use crate::registry::Registry;

/// The most that it has had since it was told to begin anew, of its own and of nobody's files
/// (proc_pid_status(5), VmHWM; proc_pid_clear_refs(5)).
fn most_mib(engine: &Engine<'_>, work: impl FnOnce()) -> u64 {
    let at = |name: &str| format!("/proc/{}/{name}", engine.pid());
    std::fs::write(at("clear_refs"), "5").unwrap();
    work();
    let status = std::fs::read_to_string(at("status")).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches([':', '\t', ' ', 'k', 'B']).parse::<u64>().unwrap()
    };
    (kib("VmHWM") - kib("RssFile")) / 1024
}

#[test]
fn large_layers_take_little_memory() {
    let machine = Machine::new();
    let _registry = Registry::start(&machine);
    let engine = machine.engine();
    engine.load("nginx:1.22");
    let name = format!("{HOST}/web:1");
    engine.dozen(&["tag", "nginx:1.22", &name]).expect(0);
    let forced = ["push", "--compression", "gzip", "--force-compression", &name];
    let pushed = most_mib(&engine, || _ = engine.dozen(&forced).expect(0));
    engine.dozen(&["rmi", "-f", &name, "nginx:1.22"]).expect(0);
    let pulled = most_mib(&engine, || _ = engine.dozen(&["pull", &name]).expect(0));
    // Parts of a large one are held until they are next: two turns are left over for those.
    assert!(pushed < 48 && pulled < 64, "a push takes {pushed} MiB, a pull {pulled} MiB");
}
