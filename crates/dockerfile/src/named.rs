//! Named contexts: what a build is given in place of the stages and images of their names
//! (docs.docker.com/reference/cli/docker/buildx/build, "--build-context").

use std::collections::{BTreeMap, BTreeSet};

use dozen_model::Reference;

use crate::error::Error;
use crate::instruction::{Dockerfile, From, Instruction, Stage};
use crate::scope::{Given, GlobalScope};
use crate::stages::{Base, Origin, Stages, sources};

/// Names what is not there, and cannot be given.
const EMPTY: &str = "scratch";

/// What a context of this name is found by: the image's name in short, and `:latest` left out. `None`: nothing has such a
/// name.
pub fn name_of(text: &str) -> Option<String> {
    let familiar = text.parse::<Reference>().ok()?.familiar();
    let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    (name != EMPTY).then(|| name.to_owned())
}

/// The context that a name of the file means.
pub fn find<'a, T>(contexts: &'a BTreeMap<String, T>, name: &str) -> Option<&'a T> {
    if contexts.is_empty() { None } else { contexts.get(&name_of(name)?) }
}

/// A stage that has a context's name begins from it, and does nothing. Gives the numbers of these stages.
pub fn replace_stages<T>(file: &mut Dockerfile, contexts: &BTreeMap<String, T>) -> BTreeSet<usize> {
    let mut replaced = BTreeSet::new();
    let stages = std::iter::once(&mut file.stages.first).chain(&mut file.stages.rest);
    for (number, Stage { from, instructions }) in stages.enumerate() {
        let From { platform, base, alias } = &mut from.value;
        let Some(alias) = alias else { continue };
        let name = alias.name.text.to_ascii_lowercase();
        if find(contexts, &name).is_some() {
            (base.text, *platform) = (name, None);
            instructions.clear();
            replaced.insert(number);
        }
    }
    replaced
}

/// The contexts that a build of this file takes from, as far as the file says so: the triggers of a base image may name
/// more.
pub fn wanted<T>(file: &Dockerfile, given: &Given, contexts: &BTreeMap<String, T>) -> Result<BTreeSet<String>, Error> {
    let names = images(file, given, contexts)?;
    Ok(names.iter().filter_map(|name| name_of(name)).filter(|name| contexts.contains_key(name)).collect())
}

/// Images that it takes from, by the names that the file has for them; contexts that stand in their places are among them.
pub fn images<T>(file: &Dockerfile, given: &Given, contexts: &BTreeMap<String, T>) -> Result<BTreeSet<String>, Error> {
    let mut file = file.clone();
    replace_stages(&mut file, contexts);
    let global = GlobalScope::new(&file, given)?;
    let stages = Stages::new(&file, &global)?;
    let mut wanted = BTreeSet::new();
    let mut want = |name: &str| {
        wanted.insert(name.to_owned());
    };
    for number in stages.needed(stages.target(&given.target_stage)?) {
        if let Base::Image(name) = stages.base_of(number) {
            want(name);
        }
        let instructions = file.stages.get(number).map(|stage| stage.instructions.as_slice()).unwrap_or_default();
        for located in instructions {
            let step = match &located.value {
                Instruction::Step(step) => step,
                Instruction::OnBuild(on_build) => &on_build.trigger,
                Instruction::Maintainer(_) => continue,
            };
            for (from, taking) in sources(step) {
                if let Ok(Origin::Image(name)) = stages.origin(number, from, &taking) {
                    want(&name);
                }
            }
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn contexts(names: &str) -> BTreeMap<String, ()> {
        names.split(' ').map(|name| (name_of(name).unwrap(), ())).collect()
    }

    #[test]
    fn names_are_those_of_images() {
        for (text, name) in [
            ("alpine", Some("alpine")),
            ("alpine:latest", Some("alpine")),
            ("docker.io/library/alpine:3.19", Some("alpine:3.19")),
            ("example.org/team/app", Some("example.org/team/app")),
            ("scratch", None),
            ("Alpine", None),
            ("a b", None),
        ] {
            assert_eq!(name_of(text).as_deref(), name, "{text}");
        }
        let given = contexts("alpine src");
        assert!(find(&given, "docker.io/library/alpine").is_some() && find(&given, "alpine:3").is_none());
    }

    #[test]
    fn a_stage_of_the_name_does_nothing() {
        let source =
            "FROM --platform=$x a AS Tools\nRUN b\nFROM tools AS c\nRUN d\nFROM e AS tools\nCOPY --from=c f g\n";
        let mut file = parse(source).unwrap();
        assert_eq!(replace_stages(&mut file, &contexts("tools none")), BTreeSet::from([0, 2]));
        let shown: Vec<_> =
            file.stages.iter().map(|stage| (stage.from.value.base.text.as_str(), stage.instructions.len())).collect();
        assert_eq!(shown, [("tools", 0), ("tools", 1), ("tools", 0)]);
        let global = GlobalScope::new(&file, &Given::default()).unwrap();
        let stages = Stages::new(&file, &global).unwrap();
        assert_eq!((stages.base_of(0), stages.base_of(1)), (&Base::Image("tools".into()), &Base::Stage(0)));
    }

    #[test]
    fn what_is_wanted_is_what_the_target_takes() {
        let source = "ARG base=debian\nFROM ${base}:12 AS build\nCOPY --from=src:latest a b\nRUN --mount=from=tools,target=/t c\n\
            FROM scratch AS web\nCOPY --from=build d e\nFROM busybox AS other\nONBUILD COPY --from=late f g\n\
            FROM web AS replaced\nCOPY --from=unused h i\nFROM replaced AS last\n";
        let file = parse(source).unwrap();
        for (names, target, expected) in [
            ("src tools debian:12 other", "build", "debian:12 src tools"),
            ("src tools debian", "web", "src tools"),
            ("build src", "web", "build"),
            ("busybox late", "other", "busybox late"),
            ("replaced src unused", "", "replaced"),
            ("none", "web", ""),
        ] {
            let given = Given { target_stage: target.into(), ..Given::default() };
            let wanted = wanted(&file, &given, &contexts(names)).unwrap();
            assert_eq!(wanted.into_iter().collect::<Vec<_>>().join(" "), expected, "{names} {target}");
        }
    }
}
