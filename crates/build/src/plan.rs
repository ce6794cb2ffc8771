//! What a stage does, and what becomes of its image: decided before anything is done, of the Dockerfile and the
//! configuration of what the stage begins from alone (docs.docker.com/reference/dockerfile; what that leaves open is
//! as BuildKit's dockerfile2llb has it, and so are the words of the history).
//!
//! [`Planning`] goes through a stage and makes a [`StagePlan`]; [`image_configuration`] makes the image's document of it
//! once the layers are there.

mod arguments;
mod configuration;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod go;
mod image;
mod metadata;
mod path;
mod ports;
mod run;
mod shown;
mod transfer;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use dozen_dockerfile::instruction::{Dockerfile, Instruction, Step};
use dozen_dockerfile::scope::{Given, GlobalScope, Platform, StageScope};
use dozen_dockerfile::stages::Stages;
use dozen_dockerfile::{Error, Span, Word, parse_trigger};
use dozen_model::line_without_credentials;
use serde_json::Value;

pub use arguments::{build_date, unused_arguments};
pub use configuration::Configuration;
pub use image::{Done, image_configuration};

use crate::operation::{Mount, Operation, Origin};

/// Plans the stages of one build, one after the other.
#[derive(Debug)]
pub struct Planning<'a> {
    file: &'a Dockerfile,
    stages: &'a Stages,
    global: &'a GlobalScope,
    given: &'a Given,
    /// What all plans have taken so far, about in bytes.
    work: Cell<usize>,
}

/// What a stage begins from.
#[derive(Debug, Clone, Copy)]
pub enum BaseImage<'a> {
    /// Nothing: `FROM scratch`.
    Empty,
    /// An image, by its configuration as the store has it.
    Image(&'a Value),
    /// An earlier stage.
    Stage(&'a StagePlan),
}

/// What the caller wants of the stage that the build ends with; of others, nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `--label`: they win over the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// It is a named context: what its image wants done is done by those that begin from it.
    pub is_given: bool,
    /// `--platform`, if it was given: what the image says that it is for, whatever its base says.
    pub platform: Option<Platform>,
}

/// All that a stage does.
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// Its number.
    pub stage: usize,
    /// In order: what the base wants done upon it, and the stage's own instructions without FROM.
    pub steps: Vec<PlannedStep>,
    /// What the image says of itself after all of them.
    pub configuration: Configuration,
    /// The names that its ARGs have declared, in order.
    declared: Vec<String>,
    /// The variables at its end, for stages that begin from this one.
    scope: StageScope,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStep {
    /// Where it stands in the Dockerfile; for what the base image wants done, that is the FROM.
    pub span: Span,
    /// In one line as it was written, heredocs left out: what the classic builder shows.
    pub source: String,
    /// The same with the values of its variables where they are known: what BuildKit shows.
    pub text: String,
    /// For the history; an ONBUILD leaves no entry.
    pub created_by: Option<String>,
    /// What it does to the file system; if that is nothing, its entry in the history has no layer.
    pub operation: Option<Operation>,
}

impl StagePlan {
    /// The stages that its steps take files from: those that only its base's triggers name among them.
    pub fn origins(&self) -> BTreeSet<usize> {
        self.taken().filter_map(|origin| if let Origin::Stage(stage) = origin { Some(*stage) } else { None }).collect()
    }

    /// The images and named contexts that its steps take files from.
    pub fn images(&self) -> BTreeSet<&str> {
        self.taken()
            .filter_map(|origin| if let Origin::Image(name) = origin { Some(name.as_str()) } else { None })
            .collect()
    }

    fn taken(&self) -> impl Iterator<Item = &Origin> {
        self.steps.iter().filter_map(|step| step.operation.as_ref()).flat_map(Operation::origins)
    }
}

impl Operation {
    /// Where it takes files from, in order: of a RUN, its mounts' origins.
    pub fn origins(&self) -> Box<dyn Iterator<Item = &Origin> + '_> {
        match self {
            Self::Run(run) => Box::new(run.mounts.iter().filter_map(Mount::origin)),
            Self::Copy(copy) => Box::new(std::iter::once(&copy.origin)),
            Self::MakeDirectory(_) => Box::new(std::iter::empty()),
        }
    }
}

/// What all plans of a build may take: a file of lines that double one another, or a base image of many triggers, would
/// take all memory there is. No build that people write comes near.
const MOST_WORK: usize = 32 << 20;
/// What a step takes beside its words.
const STEP_WORK: usize = 512;
/// What a text takes beside its bytes.
const TEXT_WORK: usize = 48;

impl<'a> Planning<'a> {
    /// Of a file and what is known of it. `stages` and `global` are those of this file.
    pub fn new(file: &'a Dockerfile, stages: &'a Stages, global: &'a GlobalScope, given: &'a Given) -> Self {
        Self { file, stages, global, given, work: Cell::new(0) }
    }

    /// Plans a stage.
    pub fn stage(&self, stage: usize, base: BaseImage<'_>, options: &Options) -> Result<StagePlan, Error> {
        let written = self.file.stages.get(stage).expect("the stage is one of the file");
        let from = &written.from;
        let mut state = State::new(self, stage, base, from.span)?;
        let mut steps = Vec::new();
        let triggers = if options.is_given { Vec::new() } else { std::mem::take(&mut state.configuration.on_build) };
        for source in triggers {
            let planned = state.trigger(&source).map_err(|mut error| {
                // The trigger's text is no part of this file.
                error.span = from.span;
                error
            });
            steps.push(planned?);
        }
        for located in &written.instructions {
            state.span = located.span;
            steps.push(state.instruction(&located.value, &located.line)?);
        }
        let State { mut configuration, declared, scope, .. } = state;
        configuration.labels.extend(options.labels.clone());
        if let Some(platform) = &options.platform {
            configuration.set_platform(platform);
        }
        Ok(StagePlan { stage, steps, configuration, declared, scope })
    }

    /// Counts what is kept.
    fn spend(&self, bytes: usize, span: Span) -> Result<(), Error> {
        let work = self.work.get().saturating_add(bytes);
        self.work.set(work);
        if work <= MOST_WORK { Ok(()) } else { Err(Error::new("the file becomes too large when it is expanded", span)) }
    }

    fn escape(&self) -> char {
        self.file.directives.escape.character()
    }
}

/// A stage after the steps that have been planned.
struct State<'p> {
    planning: &'p Planning<'p>,
    stage: usize,
    /// The instruction's.
    span: Span,
    scope: StageScope,
    configuration: Configuration,
    /// As in the plan.
    declared: Vec<String>,
    /// CMD has been said here, and so is not inherited.
    has_command: bool,
}

/// A step without the things that all have.
struct Effect {
    created_by: Option<String>,
    operation: Option<Operation>,
    /// What is shown behind the line.
    note: String,
}

impl Effect {
    /// Something that only says what the image is.
    fn said(created_by: String) -> Self {
        Self { created_by: Some(created_by), operation: None, note: String::new() }
    }

    /// Something that adds a layer; the history's words of it end as BuildKit's do.
    fn done(created_by: String, operation: Operation) -> Self {
        Self { created_by: Some(created_by + " # buildkit"), operation: Some(operation), note: String::new() }
    }
}

impl<'p> State<'p> {
    fn new(planning: &'p Planning<'p>, stage: usize, base: BaseImage<'_>, span: Span) -> Result<Self, Error> {
        let (configuration, scope) = match base {
            // What FROM says of a platform chooses among an image's, and here there is none.
            BaseImage::Empty => (Configuration::empty(&planning.given.target_platform), None),
            BaseImage::Image(raw) => (Configuration::read(raw), None),
            BaseImage::Stage(plan) => (plan.configuration.clone(), Some(plan.scope.clone())),
        };
        let scope = scope.unwrap_or_else(|| StageScope::new(configuration.environment.iter().cloned().collect()));
        let variables = |(name, value): (&str, &str)| name.len() + value.len();
        let size = configuration.size() + scope.arguments().map(variables).sum::<usize>();
        planning.spend(size, span)?;
        Ok(Self { planning, stage, span, scope, configuration, declared: Vec::new(), has_command: false })
    }

    /// What the base image wants done.
    fn trigger(&mut self, source: &str) -> Result<PlannedStep, Error> {
        let step = parse_trigger(source)?;
        let line = source.lines().next().unwrap_or_default().trim();
        let mut planned = self.step(&step, line)?;
        planned.source.insert_str(0, "ONBUILD ");
        planned.text.insert_str(0, "ONBUILD ");
        Ok(planned)
    }

    fn instruction(&mut self, instruction: &Instruction, line: &str) -> Result<PlannedStep, Error> {
        match instruction {
            Instruction::Step(step) => self.step(step, line),
            Instruction::OnBuild(on_build) => {
                self.configuration.on_build.push(on_build.source.clone());
                // Its variables are those of the build upon this one.
                let effect = Effect { created_by: None, operation: None, note: String::new() };
                self.planned(line, line.to_owned(), effect)
            }
            Instruction::Maintainer(word) => {
                self.configuration.author = word.text.clone();
                let text = self.shown(line);
                self.planned(line, text, Effect::said(format!("MAINTAINER {}", word.text)))
            }
        }
    }

    fn step(&mut self, step: &Step, line: &str) -> Result<PlannedStep, Error> {
        // The variables that it is shown with are those from before it.
        let text = self.shown(line);
        let effect = match step {
            Step::Run(run) => self.run(run)?,
            Step::Copy(copy) => self.copy(copy)?,
            Step::Add(add) => self.add(add)?,
            Step::WorkDir(path) => self.work_directory(path)?,
            other => Effect::said(self.say(other)?),
        };
        self.planned(line, text, effect)
    }

    fn planned(&self, line: &str, text: String, effect: Effect) -> Result<PlannedStep, Error> {
        let Effect { created_by, operation, note } = effect;
        let planned =
            PlannedStep { span: self.span, source: line.to_owned(), text: text + &note, created_by, operation };
        let operation = planned.operation.as_ref().map_or(0, weight);
        let words = planned.source.len() + planned.text.len() + planned.created_by.as_ref().map_or(0, String::len);
        self.planning.spend(STEP_WORK + words + operation, self.span)?;
        Ok(planned)
    }

    fn shown(&self, line: &str) -> String {
        // What is shown is kept in logs of others.
        line_without_credentials(&shown::line(line, self.planning.escape(), &self.scope)).into_owned()
    }

    /// What a word becomes.
    fn text(&self, word: &Word) -> Result<String, Error> {
        let text = self.scope.expand(word, self.planning.escape())?.text;
        self.planning.spend(text.len(), word.span)?;
        Ok(text)
    }

    /// What the shell form is run by.
    fn in_shell(&self, line: String) -> Vec<String> {
        let mut arguments = match self.configuration.shell.is_empty() {
            true => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            false => self.configuration.shell.clone(),
        };
        arguments.push(line);
        arguments
    }
}

/// About the bytes that an operation takes.
fn weight(operation: &Operation) -> usize {
    let text = |text: &String| text.len() + TEXT_WORK;
    let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(name, value)| text(name) + text(value)).sum::<usize>();
    match operation {
        Operation::Run(run) => {
            let arguments: usize = run.arguments.iter().map(text).sum();
            let script = run.script.as_ref().map_or(0, |script| script.content.len());
            arguments + script + pairs(&run.environment) + pairs(&run.proxies) + STEP_WORK * run.mounts.len()
        }
        // The words of sources were counted when they were expanded.
        Operation::Copy(copy) => copy.exclude.iter().map(text).sum::<usize>() + 2 * TEXT_WORK * copy.sources.len(),
        Operation::MakeDirectory(_) => 0,
    }
}

#[cfg(test)]
mod tests;
