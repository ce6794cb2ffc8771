//! Goes through the stages as a build would, with what is known at each step, and asks the rules about steps.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Options, steps};
use crate::error::Error;
use crate::instruction::{Dockerfile, Instruction, Located, Step};
use crate::scope::{GlobalScope, StageScope};
use crate::span::Span;
use crate::stages::{Base, Stages};

/// What is known at a step.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub scope: StageScope,
    /// Below it all is an image, whose environment we do not know.
    pub is_on_image: bool,
    /// SHELL has been said.
    pub has_shell: bool,
    /// WORKDIR has been said.
    pub has_workdir: bool,
}

/// What holds for all steps.
pub(super) struct Surroundings<'a> {
    /// All names that somebody in the file declares.
    pub declared: BTreeSet<&'a str>,
    pub global: &'a GlobalScope,
    pub options: &'a Options,
    pub escape: char,
    work: Cell<usize>,
}

/// What a whole file may cost: bytes of what its words become, and so many for each step, with those of ONBUILD counted
/// wherever they are done. No file that people write comes near.
const MOST_WORK: usize = 32 << 20;
const STEP_WORK: usize = 16;

impl Surroundings<'_> {
    /// Counts what a step costs.
    pub fn spend(&self, bytes: usize, span: Span) -> Result<(), Error> {
        let work = self.work.get().saturating_add(bytes);
        self.work.set(work);
        if work <= MOST_WORK { Ok(()) } else { Err(Error::new("the file becomes too large when it is expanded", span)) }
    }
}

pub(super) fn look(
    file: &Dockerfile,
    stages: &Stages,
    needed: &BTreeSet<usize>,
    global: &GlobalScope,
    options: &Options,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    let escape = file.directives.escape.character();
    let surroundings = Surroundings { declared: declared(file, global), global, options, escape, work: Cell::new(0) };
    // What a stage knows at its end is kept for those that begin from it, and no longer.
    let mut ends: BTreeMap<usize, State> = BTreeMap::new();
    let last_use: BTreeMap<usize, usize> = needed
        .iter()
        .filter_map(|index| match stages.base_of(*index) {
            Base::Stage(base) => Some((*base, *index)),
            Base::Empty | Base::Image(_) => None,
        })
        .collect();
    for (index, stage) in file.stages.iter().enumerate().filter(|(index, _)| needed.contains(index)) {
        let (mut state, triggers) = match stages.base_of(index) {
            // Who needs a stage needs its base, and that stands above it.
            Base::Stage(base) => {
                let state =
                    if last_use.get(base) == Some(&index) { ends.remove(base) } else { ends.get(base).cloned() };
                (state.expect("a base stands above what begins from it"), triggers_of(file, *base))
            }
            other => {
                let is_on_image = *other != Base::Empty;
                let scope = StageScope::default();
                (State { scope, is_on_image, has_shell: false, has_workdir: false }, Vec::new())
            }
        };
        for trigger in triggers {
            surroundings.spend(STEP_WORK, stage.from.span)?;
            go(trigger, &mut state, &surroundings)?;
        }
        let mut once = steps::Once::default();
        for located in &stage.instructions {
            let Instruction::Step(step) = &located.value else { continue };
            surroundings.spend(STEP_WORK, located.span)?;
            steps::look(step, located.span, &state, &surroundings, &mut once, findings)?;
            go(step, &mut state, &surroundings)?;
        }
        if last_use.contains_key(&index) {
            ends.insert(index, state);
        }
    }
    Ok(())
}

fn go(step: &Step, state: &mut State, surroundings: &Surroundings<'_>) -> Result<(), Error> {
    let Surroundings { global, options, escape, .. } = surroundings;
    state.scope.apply(step, *escape, global, &options.given)?;
    match step {
        Step::Shell(_) => state.has_shell = true,
        Step::WorkDir(_) => state.has_workdir = true,
        _ => {}
    }
    Ok(())
}

fn declared<'a>(file: &'a Dockerfile, global: &'a GlobalScope) -> BTreeSet<&'a str> {
    let mut names: BTreeSet<&str> = global.names().collect();
    for located in file.stages.iter().flat_map(|stage| &stage.instructions) {
        match &located.value {
            Instruction::Step(Step::Arg(arg)) => names.extend(arg.declarations.iter().map(|it| it.name.text.as_str())),
            Instruction::Step(Step::Env(pairs)) => names.extend(pairs.iter().map(|pair| pair.key.text.as_str())),
            _ => {}
        }
    }
    names
}

/// What a stage says that is to be done upon it.
fn triggers_of(file: &Dockerfile, stage: usize) -> Vec<&Step> {
    let instructions: &[Located<Instruction>] = file.stages.get(stage).map_or(&[], |stage| &stage.instructions);
    let triggers = instructions.iter().filter_map(|located| match &located.value {
        Instruction::OnBuild(on_build) => Some(&on_build.trigger),
        Instruction::Step(_) | Instruction::Maintainer(_) => None,
    });
    triggers.collect()
}
