//! Whole Dockerfiles: what is done, in which words, and what the image says of itself in the end. The files are those that
//! the parser is tried with.

use std::fmt::Write as _;
use std::path::Path;

use dozen_build::operation::{Copy, Operation, Run};
use dozen_build::plan::{BaseImage, Options, Planning, StagePlan};
use dozen_dockerfile::scope::{Given, GlobalScope};
use dozen_dockerfile::stages::{Base, Stages};
use dozen_dockerfile::{Dockerfile, Error, Lines, parse};
use serde_json::{Value, json};

#[test]
fn every_file_is_planned_as_it_was() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dockerfile/tests/corpus");
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut count = 0;
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let source = std::fs::read_to_string(&path).unwrap();
        let Ok(file) = parse(&source) else { continue };
        let shown = match plans(&file) {
            Ok(plans) => plans.iter().map(|plan| shown(plan, &source)).collect(),
            Err(error) => format!("ERROR: {error}\n{}", error.excerpt("Dockerfile", &source)),
        };
        insta::assert_snapshot!(name, shown);
        count += 1;
    }
    assert!(count >= 40, "{count}");
}

/// All stages, upon the same image.
fn plans(file: &Dockerfile) -> Result<Vec<StagePlan>, Error> {
    let given = Given::default();
    let global = GlobalScope::new(file, &given)?;
    let stages = Stages::new(file, &global)?;
    let planning = Planning::new(file, &stages, &global, &given);
    let image = image();
    let mut plans: Vec<StagePlan> = Vec::new();
    for stage in 0..stages.count() {
        let base = match stages.base_of(stage) {
            Base::Empty => BaseImage::Empty,
            Base::Image(_) => BaseImage::Image(&image),
            Base::Stage(base) => BaseImage::Stage(&plans[*base]),
        };
        let plan = planning.stage(stage, base, &Options::default())?;
        assert_eq!(plan.origins(), stages.origins_of(stage).collect(), "the file says all that is taken");
        plans.push(plan);
    }
    Ok(plans)
}

fn image() -> Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Env": ["PATH=/bin", "a=of the image"], "Cmd": ["sh"], "WorkingDir": "/srv" },
        "rootfs": { "type": "layers", "diff_ids": [] },
    })
}

fn shown(plan: &StagePlan, source: &str) -> String {
    let lines = Lines::new(source);
    let mut text = format!("stage {}\n", plan.stage);
    for step in &plan.steps {
        let _ = writeln!(text, "{:?} {}", lines.of(step.span), step.text);
        let _ = writeln!(text, "    history: {}", step.created_by.as_deref().unwrap_or("nothing"));
        match &step.operation {
            None => {}
            Some(Operation::Run(run)) => text.push_str(&shown_run(run)),
            Some(Operation::Copy(copy)) => text.push_str(&shown_copy(copy)),
            Some(Operation::MakeDirectory(directory)) => {
                let _ = writeln!(text, "    makes {:?} of user {:?}", directory.path, directory.user);
            }
        }
    }
    text + &format!("{:#}\n", plan.configuration.to_value())
}

fn shown_run(run: &Run) -> String {
    let mut text = format!(
        "    runs {:?} as {:?} in {:?}, network {:?}, security {:?}\n    with {:?}\n",
        run.arguments, run.user, run.working_directory, run.network, run.security, run.environment
    );
    for mount in &run.mounts {
        let _ = writeln!(text, "    mounts {mount:?}");
    }
    if let Some(script) = &run.script {
        let _ = writeln!(text, "    script {script:?}");
    }
    text
}

fn shown_copy(copy: &Copy) -> String {
    let mut text = format!("    copies from {:?} to {:?}\n", copy.origin, copy.destination);
    for source in &copy.sources {
        let _ = writeln!(text, "    takes {source:?}");
    }
    let has_options = copy.owner.is_some() || copy.mode.is_some() || copy.link || copy.parents || copy.add.is_some();
    if has_options || !copy.exclude.is_empty() {
        let Copy { owner, mode, link, parents, exclude, add, .. } = copy;
        let _ = writeln!(
            text,
            "    owner {owner:?}, mode {mode:?}, link {link}, parents {parents}, exclude {exclude:?}, {add:?}"
        );
    }
    text
}
