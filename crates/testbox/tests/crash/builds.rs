//! Builds whose engine is killed at each step: the next one has no container and no file of them, keeps what was done and
//! written down, and builds.

use std::collections::BTreeSet;
use std::fs::read_dir;

use crate::bench::{Bench, until_none};
use crate::scenario::{BUILD, words};

/// What begins so is reached by a build, and by a build alone.
const OURS: [&str; 3] = ["engine.build.", "engine.image.take.", "engine.image.step."];
/// Reached by others, too.
const SHARED: [&str; 9] = [
    "engine.image.unpacked",
    "engine.image.layer_placed",
    "engine.image.recipe_placed",
    "engine.image.configuration_placed",
    "engine.image.synced",
    "engine.image.rows",
    "engine.create.row",
    "engine.launch.created",
    "engine.erase.row",
];

#[test]
fn half_a_build_leaves_nothing() {
    let mut bench = Bench::new();
    let all = crate::failpoints("engine", None);
    let is_of_builds =
        |name: &&String| OURS.iter().any(|begin| name.starts_with(begin)) || SHARED.contains(&name.as_str());
    let points: Vec<String> = all.iter().filter(is_of_builds).cloned().collect();
    // What it makes is new each time.
    let mut rounds = 0..;
    let mut build = |bench: &Bench| {
        let epoch = format!("SOURCE_DATE_EPOCH={}", 1_000_000_000 + rounds.next().unwrap());
        let same = |word: String| if word.starts_with("SOURCE_DATE_EPOCH") { epoch.clone() } else { word };
        words(bench, BUILD).into_iter().map(same).collect::<Vec<_>>()
    };
    let first = build(&bench);
    bench.dozen(&first).expect(0);
    for point in &points {
        println!("-- {point}");
        let layers = names_in(&bench, "data/layers");
        let line = build(&bench);
        // Only a new one is filled and made.
        if ["engine.build.cache.filled", "engine.build.cache.made"].contains(&point.as_str()) {
            bench.dozen(&["builder", "prune", "-a", "-f"]).expect(0);
        }
        bench.arm(point);
        bench.try_dozen(&line);
        until_none("it was never reached", 10, || bench.is_armed(point).then(String::new).into_iter().collect());
        bench.end_engine(false);
        bench.revive();
        until_none(&format!("{point}: containers are left"), 15, || {
            bench.dozen(&["ps", "-aq"]).expect(0).lines().map(str::to_owned).collect()
        });
        for place in ["data/builds", "run/builds", "data/tmp", "data/containers"] {
            until_none(&format!("{point}: left in {place}"), 15, || names_in(&bench, place).into_iter().collect());
        }
        // What was placed and not written down is gone; the layers of steps are kept.
        if ["engine.image.layer_placed", "engine.image.recipe_placed", "engine.image.step.before"]
            .contains(&point.as_str())
        {
            assert_eq!(names_in(&bench, "data/layers"), layers, "{point}");
        }
        bench.dozen(&line).expect(0);
        assert_eq!(
            bench.dozen(&["run", "--rm", "--network", "none", "built:1"]).expect(0),
            "word\nhidden\n",
            "{point}"
        );
        let caches = names_in(&bench, "data/cache-mounts");
        assert!(caches.iter().filter(|name| !name.starts_with('.')).count() == 1, "{point}: {caches:?}");
        bench.no_panic();
    }
}

fn names_in(bench: &Bench, place: &str) -> BTreeSet<String> {
    let entries = read_dir(bench.machine.directory().join(place)).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
