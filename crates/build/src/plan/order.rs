//! Which stage may begin when: all whose base and origins are there, side by side.

use std::collections::{BTreeMap, BTreeSet};

use dozen_dockerfile::stages::{Base, Stages};

/// The stages that a target needs, and how far each is. A stage waits only for earlier ones, so somebody can always go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    nodes: BTreeMap<usize, Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    waits_for: BTreeSet<usize>,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Begun,
    Finished,
}

impl Order {
    /// The order of the stages that end with `target`, as far as the file tells.
    pub fn new(stages: &Stages, target: usize) -> Self {
        let mut order = Self { nodes: BTreeMap::new() };
        order.add(stages, target);
        order
    }

    /// A stage takes from others that the file says nothing of: the triggers of its base image do
    /// ([`super::StagePlan::origins`]). They and what they need are needed too.
    pub fn need(&mut self, stages: &Stages, stage: usize, origins: &BTreeSet<usize>) {
        // Only from those above it: nothing else is an origin, and so there is no cycle.
        for origin in origins.iter().copied().filter(|origin| *origin < stage) {
            self.add(stages, origin);
            if let Some(node) = self.nodes.get_mut(&stage) {
                node.waits_for.insert(origin);
            }
        }
    }

    fn add(&mut self, stages: &Stages, target: usize) {
        for stage in stages.needed(target) {
            let base = match stages.base_of(stage) {
                Base::Stage(base) => Some(*base),
                Base::Empty | Base::Image(_) => None,
            };
            let waits_for = stages.origins_of(stage).chain(base).collect();
            self.nodes.entry(stage).or_insert(Node { waits_for, progress: Progress::Waiting });
        }
    }

    /// All that are needed, in the order of the file.
    pub fn stages(&self) -> impl Iterator<Item = usize> {
        self.nodes.keys().copied()
    }

    /// What a stage waits for: its base and those that it takes files from.
    pub fn waits_for(&self, stage: usize) -> impl Iterator<Item = usize> {
        self.nodes.get(&stage).into_iter().flat_map(|node| node.waits_for.iter().copied())
    }

    /// Those that may begin and have not, in the order of the file.
    pub fn ready(&self) -> Vec<usize> {
        let is_finished = |stage: &usize| self.nodes.get(stage).is_none_or(|it| it.progress == Progress::Finished);
        let is_ready = |node: &Node| node.progress == Progress::Waiting && node.waits_for.iter().all(is_finished);
        self.nodes.iter().filter(|(_, node)| is_ready(node)).map(|(stage, _)| *stage).collect()
    }

    /// A stage begins.
    pub fn begin(&mut self, stage: usize) {
        self.set(stage, Progress::Begun);
    }

    /// A stage has done all its steps.
    pub fn finish(&mut self, stage: usize) {
        self.set(stage, Progress::Finished);
    }

    fn set(&mut self, stage: usize, progress: Progress) {
        if let Some(node) = self.nodes.get_mut(&stage) {
            node.progress = progress;
        }
    }

    /// All have.
    pub fn is_done(&self) -> bool {
        self.nodes.values().all(|node| node.progress == Progress::Finished)
    }
}

#[cfg(test)]
mod tests {
    use dozen_dockerfile::parse;
    use dozen_dockerfile::scope::{Given, GlobalScope};
    use proptest::prelude::*;

    use super::*;

    fn stages(source: &str) -> Stages {
        let file = parse(source).unwrap();
        Stages::new(&file, &GlobalScope::new(&file, &Given::default()).unwrap()).unwrap()
    }

    #[test]
    fn stages_begin_once_all_is_there() {
        let stages = stages(
            "FROM go AS build\nFROM node AS front\nFROM x AS unused\nFROM build AS test\nCOPY --from=front a b\n\
             FROM scratch\nCOPY --from=test a b\nCOPY --from=build a b",
        );
        let mut order = Order::new(&stages, 4);
        assert_eq!(order.stages().collect::<Vec<_>>(), [0, 1, 3, 4]);
        assert_eq!(order.waits_for(3).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(order.ready(), [0, 1]);
        order.begin(0);
        order.begin(1);
        assert!(order.ready().is_empty());
        order.finish(0);
        assert!(order.ready().is_empty());
        order.finish(1);
        assert_eq!(order.ready(), [3]);
        // A trigger of the base image: the stage waits for one more.
        order.need(&stages, 3, &BTreeSet::from([2, 7]));
        assert_eq!(order.ready(), [2]);
        for stage in [2, 3, 4] {
            assert!(!order.is_done());
            assert_eq!(order.ready(), [stage]);
            order.begin(stage);
            order.finish(stage);
        }
        assert!(order.is_done());
    }

    proptest! {
        #[test]
        fn everything_is_done_whatever_ends_first(
            origins in proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12),
            choices in proptest::collection::vec(any::<prop::sample::Index>(), 64),
        ) {
            let mut source = String::new();
            for (stage, origins) in origins.iter().enumerate() {
                source.push_str(&format!("FROM x{stage}\n"));
                for origin in origins.iter().filter(|_| stage > 0) {
                    source.push_str(&format!("COPY --from={} a b\n", origin.index(stage.max(1))));
                }
            }
            let stages = stages(&source);
            let mut order = Order::new(&stages, stages.count() - 1);
            let mut running: Vec<usize> = Vec::new();
            let mut finished = BTreeSet::new();
            for choice in choices {
                for stage in order.ready() {
                    prop_assert!(order.waits_for(stage).all(|it| finished.contains(&it)));
                    order.begin(stage);
                    running.push(stage);
                }
                if running.is_empty() {
                    break;
                }
                let ended = running.remove(choice.index(running.len()));
                order.finish(ended);
                finished.insert(ended);
            }
            prop_assert!(order.is_done());
            prop_assert_eq!(finished, stages.needed(stages.count() - 1));
        }
    }
}
