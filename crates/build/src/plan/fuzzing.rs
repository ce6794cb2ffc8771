//! A way in for the fuzzers (`fuzz/`), what it asserts, and the tests that run what they have found again.

use dozen_dockerfile::parse;
use dozen_dockerfile::scope::{Given, GlobalScope};
use dozen_dockerfile::stages::{Base, Stages};
use serde_json::{Value, json};

use super::{BaseImage, Done, Error, Options, Planning, StagePlan, image_configuration};
use crate::key::{self, Below, Circumstances};

/// A Dockerfile and the triggers of the image that all its stages begin from, parted by zero bytes. Whatever they are, a
/// fault stands within the file, nothing is taken from a later stage, and the same gives the same.
pub fn plan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split('\0');
    let source = parts.next().unwrap_or_default();
    let triggers: Vec<&str> = parts.collect();
    let image = json!({
        "os": "linux",
        "config": { "Env": ["PATH=/bin", "a=x y"], "WorkingDir": "w", "OnBuild": triggers },
    });
    match (plans(source, &image), plans(source, &image)) {
        (Ok(plans), Ok(again)) => {
            assert!(plans == again);
            plans.iter().for_each(look);
        }
        (Err(error), Err(again)) => {
            assert_eq!(error, again);
            let span = error.span;
            assert!(span.start <= span.end && span.end <= source.len(), "{error:?}");
            error.excerpt("Dockerfile", source);
        }
        (first, second) => panic!("{first:?} and then {second:?}"),
    }
}

fn plans(source: &str, image: &Value) -> Result<Vec<StagePlan>, Error> {
    let file = parse(source).map_err(|failure| failure.error)?;
    let given = Given::default();
    let global = GlobalScope::new(&file, &given)?;
    let stages = Stages::new(&file, &global)?;
    let planning = Planning::new(&file, &stages, &global, &given);
    let mut plans: Vec<StagePlan> = Vec::new();
    for stage in 0..stages.count() {
        let base = match stages.base_of(stage) {
            Base::Empty => BaseImage::Empty,
            Base::Image(_) => BaseImage::Image(image),
            Base::Stage(base) => BaseImage::Stage(&plans[*base]),
        };
        plans.push(planning.stage(stage, base, &Options::default())?);
    }
    Ok(plans)
}

fn look(plan: &StagePlan) {
    assert!(plan.origins().iter().all(|origin| *origin < plan.stage));
    let directory = &plan.configuration.working_directory;
    assert!(directory.is_empty() || directory.starts_with('/'), "{directory:?}");
    for operation in plan.steps.iter().filter_map(|step| step.operation.as_ref()) {
        key::of(operation, Below::Layers(&[]), &[], &Circumstances::default());
    }
    let document = image_configuration(None, plan, &vec![Done::default(); plan.steps.len()], None);
    let text = document.to_string();
    assert!(serde_json::from_str::<Value>(&text).is_ok_and(|read| read == document));
    let said = plan.steps.iter().filter(|step| step.created_by.is_some()).count();
    assert_eq!(document["history"].as_array().map(Vec::len), Some(said));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    include!("../../../../fuzz/replay.rs");

    #[test]
    fn plans() {
        replay("plan", super::plan);
        replay("dockerfile", super::plan);
    }

    /// Instructions with words that mean something to them, and some that do not.
    fn source() -> impl Strategy<Value = String> {
        let keyword = prop::sample::select(vec![
            "FROM ",
            "FROM scratch AS a",
            "FROM a\n",
            "RUN ",
            "RUN <<E",
            "COPY ",
            "COPY --from=0 ",
            "COPY --chmod=",
            "ADD ",
            "ENV ",
            "ARG ",
            "LABEL ",
            "ONBUILD RUN ",
            "ONBUILD COPY --from=a ",
            "CMD ",
            "ENTRYPOINT ",
            "EXPOSE ",
            "HEALTHCHECK CMD ",
            "HEALTHCHECK --retries=9 CMD ",
            "USER ",
            "VOLUME ",
            "WORKDIR ",
            "SHELL ",
            "STOPSIGNAL ",
            "MAINTAINER ",
            "RUN --mount=target=",
            "RUN --mount=type=cache,target=",
            "RUN --mount=type=secret,id=",
        ]);
        let word = prop::sample::select(vec![
            "a",
            "é",
            "/",
            "/a/../b/",
            ".",
            "..",
            "a=b",
            "a=$a$a",
            "$a",
            "${a:-b c}",
            "${b:?}",
            "80",
            "1-3/udp",
            "KILL",
            "[\"a\", \"b\"]",
            "[]",
            "<<E",
            "<<-'E'",
            "https://a/b",
            "git@a:b",
            "755",
            "u+x",
            "'",
            "\"",
            "\\",
            "\0RUN x",
            "\0ARG b=1",
            ",rw",
            "#!x",
            "@",
        ]);
        let line = (keyword, prop::collection::vec(word, 0..4), any::<bool>()).prop_map(|(keyword, words, ends)| {
            format!("{keyword}{}\n{}", words.join(" "), if ends { "x $a\nE\n" } else { "" })
        });
        prop::collection::vec(line, 0..8).prop_map(|lines| format!("FROM x AS b\n{}", lines.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn no_plan_panics(source in source()) {
            super::plan(source.as_bytes());
        }

        #[test]
        fn a_line_is_planned_or_refused(source in source(), trigger in "(RUN|COPY|ARG|ENV|CMD) \\PC{0,20}") {
            for line in source.lines() {
                super::plan(format!("FROM x AS a\n{line}\0{trigger}").as_bytes());
            }
        }
    }
}
