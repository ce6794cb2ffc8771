#![allow(clippy::unwrap_used, missing_docs)]
use dozen_testbox::Machine;
#[test]
fn look() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    engine.dozen(&["run", "-d", "--name", "web", "-v", "vol:/x", "-p", "8080:80", "busybox", "sleep", "1000"]).expect(0);
    for line in machine.snapshot() { println!("{line}"); }
    println!("{}", machine.run("nft", &["list", "ruleset"]).text());
    println!("{}", engine.dozen(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"]).text());
    println!("{}", machine.run("cat", &["run/keeper.json"]).text());
    println!("{}", machine.run("find", &["run", "data", "-maxdepth", "3"]).text());
    println!("{}", engine.dozen(&["inspect", "web"]).text());
}
