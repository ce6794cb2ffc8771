//! Stages: what each begins from, which others it takes files from, and which of them a target needs.
//!
//! Names are the same in capitals and small letters, and of two with one name the later counts. A stage takes only from
//! those above it, so there are no cycles (docs.docker.com/build/building/multi-stage; the words are BuildKit's).

use std::collections::{BTreeMap, BTreeSet};

use dozen_model::{Reference, spelling};

use crate::Mount;
use crate::error::Error;
use crate::expand::{Quotes, expand};
use crate::instruction::{Dockerfile, Instruction, Stage, Step};
use crate::scope::GlobalScope;
use crate::text::Word;

/// The base without anything in it.
const EMPTY: &str = "scratch";

/// What a stage begins from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// `FROM scratch`.
    Empty,
    /// An earlier stage, by its number.
    Stage(usize),
    /// An image, or a named context.
    Image(String),
}

/// Where a COPY or a mount takes files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An earlier stage, by its number.
    Stage(usize),
    /// An image, or a named context.
    Image(String),
}

/// How a step takes files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taking {
    /// `COPY --from`, which also knows stages by their numbers.
    Copy,
    /// `RUN --mount=from=`.
    Mount {
        /// Where to, as it was written.
        target: String,
    },
}

/// The stages of a file and how they hang together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stages {
    nodes: Vec<Node>,
    /// The stages of each name, in order.
    named: BTreeMap<String, Vec<usize>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    /// In small letters.
    name: Option<String>,
    base: Base,
    /// `--platform`, expanded.
    platform: Option<String>,
    /// The stages that it takes from, its base not among them.
    origins: BTreeSet<usize>,
}

impl Stages {
    /// Looks at how a file's stages hang together.
    pub fn new(file: &Dockerfile, global: &GlobalScope) -> Result<Self, Error> {
        let mut stages = Self { nodes: Vec::new(), named: BTreeMap::new() };
        let escape = file.directives.escape.character();
        let text = |word: &Word| expand(word, escape, Quotes::Taken, global).map(|it| it.text);
        for stage in file.stages.iter() {
            let from = &stage.from.value;
            let base = text(&from.base)?;
            if base.is_empty() {
                return Err(Error::new(format!("base name ({}) should not be blank", from.base.text), from.base.span)
                    .with_hint("give the ARG a default, or pass --build-arg"));
            }
            let platform = from.platform.as_ref().map(|word| platform(word, text(word)?));
            let node = Node {
                name: from.alias.as_ref().map(|alias| alias.name.text.to_ascii_lowercase()),
                base: stages.base(&base, &from.base)?,
                platform: platform.transpose()?,
                origins: BTreeSet::new(),
            };
            if let Some(name) = &node.name {
                stages.named.entry(name.clone()).or_default().push(stages.nodes.len());
            }
            stages.nodes.push(node);
        }
        for (index, stage) in file.stages.iter().enumerate() {
            stages.nodes[index].origins = stages.origins(file, index, stage)?;
        }
        Ok(stages)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// What a stage begins from.
    pub fn base_of(&self, stage: usize) -> &Base {
        &self.nodes[stage].base
    }

    /// The `--platform` of a stage's FROM.
    pub fn platform_of(&self, stage: usize) -> Option<&str> {
        self.nodes[stage].platform.as_deref()
    }

    /// The stages that a stage takes files from.
    pub fn origins_of(&self, stage: usize) -> impl Iterator<Item = usize> {
        self.nodes[stage].origins.iter().copied()
    }

    /// The stage that the build is to end with: by name or number, or the last.
    pub fn target(&self, name: &str) -> Result<usize, Error> {
        if name.is_empty() {
            return Ok(self.nodes.len() - 1);
        }
        if let Some(stage) = self.named(name, self.nodes.len()) {
            return Ok(stage);
        }
        if let Some(stage) = number(name).filter(|stage| *stage < self.nodes.len()) {
            return Ok(stage);
        }
        let error = Error::of_caller(format!("target stage {name:?} could not be found"));
        let error = error.with_suggestion(self.near(name));
        let names: Vec<&str> = self.names().collect();
        Err(if names.is_empty() { error } else { error.with_hint(format!("the stages are: {}", names.join(", "))) })
    }

    /// The stages that a target needs, itself included, in the order of the file. Each needs only stages before it.
    pub fn needed(&self, target: usize) -> BTreeSet<usize> {
        let mut needed = BTreeSet::from([target]);
        for stage in (0..=target).rev() {
            if needed.contains(&stage) {
                needed.extend(&self.nodes[stage].origins);
                if let Base::Stage(base) = self.nodes[stage].base {
                    needed.insert(base);
                }
            }
        }
        needed
    }

    /// What `from` of a COPY or of a mount in a stage means.
    pub fn origin(&self, stage: usize, from: &Word, taking: &Taking) -> Result<Origin, Error> {
        let name = &from.text;
        let late = |message: String| {
            Err(Error::new(message, from.span)
                .with_hint("a stage takes files only from stages above it: move that one up"))
        };
        if let Some(origin) = self.named(name, stage) {
            return Ok(Origin::Stage(origin));
        }
        if let (Some(index), Taking::Copy) = (number(name), taking) {
            if index < stage {
                return Ok(Origin::Stage(index));
            }
            return Err(Error::new(format!("invalid stage index {index}"), from.span)
                .with_hint("the first stage is 0; a stage takes files only from stages above it"));
        }
        let own = self.nodes[stage].name.as_deref();
        if own.is_some_and(|own| own == name.to_ascii_lowercase()) {
            return late(format!("circular dependency detected on stage: {name}"));
        }
        if self.named(name, self.nodes.len()).is_some() {
            let here = own.map_or_else(|| stage.to_string(), str::to_owned);
            return late(match taking {
                Taking::Copy => {
                    format!("cannot copy from stage {name:?}, it needs to be defined before current stage {here:?}")
                }
                Taking::Mount { target } => format!(
                    "cannot mount from stage {name:?} to {target:?}, stage needs to be defined before current command"
                ),
            });
        }
        self.image(name, from).map(Origin::Image)
    }

    /// The stage whose name is a slip of the pen away from an image's: for who finds no such image.
    pub fn near(&self, name: &str) -> Option<&str> {
        spelling::closest(&name.to_ascii_lowercase(), self.names())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter_map(|node| node.name.as_deref())
    }

    /// The last of the stages before `end` that has this name.
    fn named(&self, name: &str, end: usize) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        let stages = self.named.get(&name)?;
        stages[..stages.partition_point(|stage| *stage < end)].last().copied()
    }

    fn base(&self, name: &str, word: &Word) -> Result<Base, Error> {
        match self.named(name, self.nodes.len()) {
            Some(stage) => Ok(Base::Stage(stage)),
            None if name == EMPTY => Ok(Base::Empty),
            None => self.image(name, word).map(Base::Image),
        }
    }

    /// A name that is no stage's.
    fn image(&self, name: &str, word: &Word) -> Result<String, Error> {
        match name.parse::<Reference>() {
            Ok(_) => Ok(name.to_owned()),
            Err(error) => Err(Error::new(format!("failed to parse stage name {name:?}: {error}"), word.span)
                .with_suggestion(self.near(name))),
        }
    }

    fn origins(&self, file: &Dockerfile, index: usize, stage: &Stage) -> Result<BTreeSet<usize>, Error> {
        let mut origins = BTreeSet::new();
        let mut add = |step: &Step| -> Result<(), Error> {
            for (from, taking) in sources(step) {
                if let Origin::Stage(origin) = self.origin(index, from, &taking)? {
                    origins.insert(origin);
                }
            }
            Ok(())
        };
        // What the base says that is to be done on it is done here.
        let base = match self.nodes[index].base {
            Base::Stage(base) => file.stages.get(base),
            Base::Empty | Base::Image(_) => None,
        };
        for located in base.iter().flat_map(|base| &base.instructions) {
            if let Instruction::OnBuild(on_build) = &located.value {
                add(&on_build.trigger)?;
            }
        }
        for located in &stage.instructions {
            if let Instruction::Step(step) = &located.value {
                add(step)?;
            }
        }
        Ok(origins)
    }
}

/// The `from`s of a step, with what is done with them.
pub fn sources(step: &Step) -> Vec<(&Word, Taking)> {
    match step {
        Step::Copy(copy) => copy.from.iter().map(|from| (from, Taking::Copy)).collect(),
        Step::Run(run) => {
            let taking = |mount: &Mount| Taking::Mount {
                target: mount.target().map(|target| target.text.clone()).unwrap_or_default(),
            };
            run.mounts.iter().filter_map(|mount| Some((mount.from()?, taking(mount)))).collect()
        }
        _ => Vec::new(),
    }
}

/// A `--platform` whose variables are known: one to three words between slashes.
fn platform(word: &Word, platform: String) -> Result<String, Error> {
    if platform.is_empty() {
        return Err(Error::new(format!("empty platform value from expression {}", word.text), word.span));
    }
    let is_word = |part: &&str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    };
    let wrong = platform.split('/').find(|part| !is_word(part));
    match wrong {
        None if platform.split('/').count() <= 3 => Ok(platform),
        _ => {
            let part = wrong.unwrap_or(&platform);
            let message =
                format!("failed to parse platform {}: {part:?} is an invalid component of {platform:?}", word.text);
            Err(Error::new(message, word.span).with_hint("a platform is os/architecture[/variant]: linux/arm64"))
        }
    }
}

fn number(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use crate::scope::Given;

    fn stages(source: &str) -> Result<Stages, Error> {
        let file = parse(source).unwrap();
        Stages::new(&file, &GlobalScope::new(&file, &Given::default()).unwrap())
    }

    fn needed(source: &str, target: &str) -> Result<Vec<usize>, String> {
        let stages = stages(source).map_err(|error| error.message)?;
        let target = stages.target(target).map_err(|error| error.message)?;
        Ok(stages.needed(target).into_iter().collect())
    }

    const WEB: &str = "ARG base=Build\nFROM go AS build\nFROM node AS front\nCOPY --from=0 a b\nFROM ${base} AS test\n\
                       FROM scratch AS last\nCOPY --from=FRONT a b\nRUN --mount=from=nginx,target=/x true\nFROM alpine";

    #[test]
    fn a_target_needs_what_it_takes_from() {
        for (target, expected) in [
            ("", &[4][..]),
            ("build", &[0]),
            ("Front", &[0, 1]),
            ("test", &[0, 2]),
            ("last", &[0, 1, 3]),
            ("2", &[0, 2]),
        ] {
            assert_eq!(needed(WEB, target), Ok(expected.to_vec()), "{target}");
        }
        let message = "target stage \"frnot\" could not be found (did you mean front?)";
        assert_eq!(needed(WEB, "frnot"), Err(message.to_owned()));
        assert!(needed(WEB, "5").unwrap_err().contains("could not be found"));
    }

    #[test]
    fn names_mean_the_nearest_stage_above() {
        let twice = "FROM x AS a\nFROM a AS a\nFROM y\nCOPY --from=a b c\n";
        assert_eq!(needed(twice, ""), Ok(vec![0, 1, 2]));
        let later = stages("FROM b AS a\nFROM x AS b").unwrap();
        assert_eq!(later.base_of(0), &Base::Image("b".into()));
        let bases = stages("FROM scratch\nFROM scratch AS scratch\nFROM scratch\nFROM 0").unwrap();
        assert_eq!(
            (0..4).map(|stage| bases.base_of(stage).clone()).collect::<Vec<_>>(),
            [Base::Empty, Base::Empty, Base::Stage(1), Base::Image("0".into())]
        );
        let triggered = "FROM x AS a\nFROM y AS b\nONBUILD COPY --from=a c d\nFROM b";
        assert_eq!((needed(triggered, "b"), needed(triggered, "")), (Ok(vec![1]), Ok(vec![0, 1, 2])));
    }

    #[test]
    fn nothing_is_taken_from_below() {
        for (source, message) in [
            (
                "FROM x AS a\nCOPY --from=b c d\nFROM y AS b",
                "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
            ),
            (
                "FROM x\nRUN --mount=from=b,target=/c true\nFROM y AS b",
                "cannot mount from stage \"b\" to \"/c\", stage needs to be defined before current command",
            ),
            ("FROM x AS a\nCOPY --from=A c d", "circular dependency detected on stage: A"),
            ("FROM x\nCOPY --from=0 c d", "invalid stage index 0"),
            ("FROM x\nCOPY --from=7 c d", "invalid stage index 7"),
            ("ARG a\nFROM $a", "base name ($a) should not be blank"),
            (
                "ARG MY_ARCH=arm64\nFROM --platform=linux/${MYARCH} x",
                "failed to parse platform linux/${MYARCH}: \"\" is an invalid component of \"linux/\"",
            ),
            (
                "FROM x AS build\nFROM Biuld:",
                "failed to parse stage name \"Biuld:\": invalid reference format: a tag is up to 128 letters, digits, '_', '.' and '-': \"Biuld:\" (did you mean build?)",
            ),
            ("FROM --platform=$a x", "empty platform value from expression $a"),
        ] {
            assert_eq!(stages(source).unwrap_err().message, message);
        }
        assert!(stages("FROM x\nRUN --mount=from=0,target=/c true").is_ok(), "an image may have that name");
        let image = stages("FROM x\nCOPY --from=99999999999999999999999 c d");
        assert!(image.is_ok(), "{image:?}");
        let error = stages("FROM x AS build\nCOPY --from=Bild! c d").unwrap_err();
        assert!(error.message.ends_with("(did you mean build?)"), "{error}");
    }
}
