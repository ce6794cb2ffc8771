//! Images on their way from and to a registry, removed and collected, killed at each step: afterwards nothing below the data
//! root is without an owner, the engine counts what du(1) counts, and what was interrupted can be done.

use std::process::{Child, Stdio};

use dozen_testbox::{Counted, dozen_program, until};

use crate::bench::{Bench, until_none};
use crate::scenario::COLLECT;

const NAME: &str = "127.0.0.1:5000/team/web:1";
const CACHE: &str = "type=registry,mode=max,ref=127.0.0.1:5000/team/cache:1";

/// What is killed, and where: each is reached by it, whoever else reaches it.
const ROUNDS: [(Act, &[&str]); 5] = [
    (
        Act::Pull,
        &[
            "image.arrived",
            "image.unpacked",
            "image.layer_placed",
            "image.blob_placed",
            "image.configuration_placed",
            "image.carried_placed",
            "image.synced",
            "image.rows",
        ],
    ),
    (Act::Push, &["image.packing.begun", "image.packing.ended"]),
    (Act::Build, &["build.step.done", "image.packing.begun", "image.packing.ended", "build.image.after"]),
    (
        Act::Remove,
        &[
            "image.remove.before",
            "image.remove.rows",
            "image.remove.configurations",
            "image.targets.rows",
            "image.targets.files",
            "image.collect.rows",
            "image.collect.files",
        ],
    ),
    (
        Act::Collect,
        &[
            "collection.planned",
            "collection.removed",
            "image.steps.before",
            "image.steps.rows",
            "image.remove.before",
            "image.remove.rows",
            "image.collect.rows",
            "image.collect.files",
            "cache_remove.before",
            "cache_remove.row",
            "cache_remove.after",
        ],
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Pull,
    Push,
    Build,
    Remove,
    Collect,
}

/// A registry of ours beside the engine.
struct Registry(Child);

impl Registry {
    fn start(bench: &Bench) -> Self {
        let mut command = bench.machine.command(dozen_program());
        command.args(["registry", "serve"]).env("DOZEN_REGISTRY_ROOT", bench.machine.directory().join("registry"));
        let log = bench.machine.directory().join("registry.log");
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let registry = Self(command.spawn().unwrap());
        let says = || std::fs::read_to_string(&log).unwrap_or_default().contains("listening on").then_some(());
        until("the registry listens", says);
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds an image whose layers are new each time, with a cache mount. It is pushed, or its cache is.
fn build(bench: &Bench, round: usize, more: &[&str]) -> Vec<String> {
    let site = bench.machine.directory().join("travel");
    let _ = std::fs::create_dir(&site);
    let dockerfile = format!(
        "FROM busybox\nRUN --mount=type=cache,target=/cache echo {round} >>/cache/rounds; \
         dd if=/dev/urandom of=/big bs=64k count=8\nCOPY Dockerfile /copied\n"
    );
    std::fs::write(site.join("Dockerfile"), dockerfile).unwrap();
    let mut line: Vec<String> = ["build", "-q", "--network", "none", "-t", NAME].map(str::to_owned).to_vec();
    line.extend(more.iter().map(|word| (*word).to_owned()));
    line.push(site.display().to_string());
    line
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

/// Makes ready for an act, and gives the command line that is to be killed.
fn prepare(bench: &mut Bench, act: Act, round: usize) -> Vec<String> {
    let image = build(bench, round, &[]);
    match act {
        Act::Build => return build(bench, round, &["--cache-to", CACHE]),
        _ => drop(bench.dozen(&image).expect(0)),
    }
    match act {
        Act::Push => words(&["push", NAME]),
        Act::Collect => words(COLLECT),
        Act::Pull | Act::Remove => {
            bench.dozen(&["push", NAME]).expect(0);
            bench.dozen(&["rmi", NAME]).expect(0);
            bench.dozen(&["builder", "prune", "-a", "-f"]).expect(0);
            if act == Act::Pull {
                return words(&["pull", NAME]);
            }
            bench.dozen(&["pull", NAME]).expect(0);
            words(&["rmi", NAME])
        }
        Act::Build => unreachable!("it has begun"),
    }
}

#[test]
fn half_a_transfer_leaves_nothing_that_nobody_owns() {
    let mut bench = Bench::new();
    let _registry = Registry::start(&bench);
    // It stands on the base, which no collection is to take.
    bench.dozen(&["create", "--name", "holder", "busybox", "true"]).expect(0);
    let mut round = 0;
    for (act, points) in ROUNDS {
        for point in points {
            let point = format!("engine.{point}");
            println!("-- {act:?} {point}");
            round += 1;
            let line = prepare(&mut bench, act, round);
            bench.arm(&point);
            bench.try_dozen(&line);
            until_none("it was never reached", 10, || bench.is_armed(&point).then(String::new).into_iter().collect());
            bench.end_engine(false);
            bench.revive();
            check(&bench, &point);
            // What was interrupted can be done; what had happened already is said.
            let again = bench.dozen(&line);
            let is_over = act == Act::Remove && again.err.contains("No such image");
            assert!(again.code == 0 || is_over, "{point}: {again:?}");
            if act == Act::Pull {
                bench.dozen(&["run", "--rm", "--network", "none", NAME, "ls", "/copied"]).expect(0);
            }
            check(&bench, &point);
            bench.dozen(COLLECT).expect(0);
            let images = bench.dozen(&["images", "--format", "{{.Repository}}"]).expect(0);
            assert_eq!(images, "busybox\n", "{point}");
            check(&bench, &point);
            bench.no_panic();
        }
    }
    bench.dozen(&["rm", "holder"]).expect(0);
}

/// Waits until everything has an owner and nothing is on its way, and engine and du(1) agree.
fn check(bench: &Bench, point: &str) {
    until_none(&format!("{point}: the engine and du(1) do not agree"), 15, || {
        let counted = Counted::of(&bench.machine);
        let (unowned, unfinished) = (counted.paths("Unowned"), counted.paths("Unfinished"));
        let mut wrong: Vec<String> = unowned.into_iter().map(|path| format!("{path} has no owner")).collect();
        wrong.extend(unfinished.into_iter().map(|path| format!("{path} is on its way")));
        if !counted.agree() {
            wrong.push(format!("told {}, du says {}", counted.told_bytes, counted.measured_bytes));
        }
        wrong
    });
}
