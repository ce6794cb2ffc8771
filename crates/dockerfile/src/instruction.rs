//! What a Dockerfile says, as a tree (docs.docker.com/reference/dockerfile). What may not be said cannot be written down
//! here: a FROM begins a stage and is no instruction in one, ONBUILD holds none of its kind, lists are not empty.
//!
//! Words are as they were written; what of them may be expanded says [`crate::expand::words`].

use std::time::Duration;

use crate::directives::Directives;
use crate::heredoc::Heredoc;
use crate::mount::Mount;
use crate::one_or_more::OneOrMore;
use crate::span::Span;
use crate::text::Word;

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// `# syntax=`, `# escape=` and `# check=`.
    pub directives: Directives,
    /// The ARGs before the first FROM.
    pub global: Vec<Located<Arg>>,
    /// The stages, in order.
    pub stages: OneOrMore<Stage>,
}

/// A FROM with what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The FROM.
    pub from: Located<From>,
    /// What is done in the stage.
    pub instructions: Vec<Located<Instruction>>,
}

/// An instruction and where it stands.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// What it says.
    pub value: T,
    /// Its keyword as it was written: `RUN`, `run`.
    pub keyword: Word,
    /// All of it in one line as it was written, heredocs left out.
    pub line: String,
    /// From the keyword to the end of its last line, heredocs included.
    pub span: Span,
    /// The end of the instruction's own lines, where the first heredoc begins.
    pub line_end: usize,
    /// The comments directly above it.
    pub comments: Vec<Word>,
    /// Among its continuation lines there is an empty one.
    pub has_empty_continuation: bool,
}

/// Equal if they say the same, wherever they stand.
impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value && self.keyword == other.keyword
    }
}

impl<T: Eq> Eq for Located<T> {}

/// Anything but FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// What is done at once.
    Step(Step),
    /// What is done at the beginning of a build upon this image.
    OnBuild(OnBuild),
    /// Who made it: deprecated, a label says it better.
    Maintainer(Word),
}

/// What may also stand behind ONBUILD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Files, archives, URLs and repositories come into the image.
    Add(Add),
    /// A build argument is declared.
    Arg(Arg),
    /// What a container runs, or the arguments of its entry point.
    Cmd(CommandLine),
    /// Files come into the image.
    Copy(Copy),
    /// The program that a container is.
    Entrypoint(CommandLine),
    /// Environment variables, for the build and for containers.
    Env(KeyValues),
    /// Ports that containers listen on.
    Expose(OneOrMore<Word>),
    /// How to tell whether a container is well.
    HealthCheck(HealthCheck),
    /// Labels of the image.
    Label(KeyValues),
    /// A command is run, and what it changes is a layer.
    Run(Run),
    /// The shell of the shell form.
    Shell(OneOrMore<Word>),
    /// The signal that asks a container to stop.
    StopSignal(Word),
    /// The user of RUN and of containers.
    User(Word),
    /// Directories that are volumes.
    Volume(OneOrMore<Word>),
    /// The working directory.
    WorkDir(Word),
}

/// `FROM [--platform=…] IMAGE [AS NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// `--platform`.
    pub platform: Option<Word>,
    /// An image, or an earlier stage.
    pub base: Word,
    /// The stage's name.
    pub alias: Option<Alias>,
}

/// `AS name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// `AS`, `as`.
    pub keyword: Word,
    /// As it was written; compared without regard to case.
    pub name: Word,
}

/// `ARG NAME[=DEFAULT]…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// What is declared.
    pub declarations: OneOrMore<Declaration>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// Its name.
    pub name: Word,
    /// What it is if nobody says otherwise.
    pub default: Option<Word>,
}

/// The two forms of ENV and LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyValues {
    /// `key=value key=value`.
    Pairs(OneOrMore<KeyValue>),
    /// `key the rest of the line`.
    Legacy(KeyValue),
}

impl KeyValues {
    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = &KeyValue> {
        let (first, rest): (&KeyValue, &[KeyValue]) = match self {
            Self::Pairs(pairs) => (&pairs.first, &pairs.rest),
            Self::Legacy(pair) => (pair, &[]),
        };
        std::iter::once(first).chain(rest)
    }
}

/// A key, which is not empty, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Word,
    /// The value.
    pub value: Word,
}

/// What a shell is given, or a program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// The rest of the line, for a shell.
    Shell(Word),
    /// `["program", "argument"]`; empty: none, also not the base image's.
    Exec(Vec<Word>),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: RunNetwork,
    /// `--security`.
    pub security: RunSecurity,
    /// What is run.
    pub command: RunCommand,
}

/// What a RUN runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunCommand {
    /// A shell's command line, with the heredocs that it names.
    Shell {
        /// The line. If it is nothing but the heredoc's mark, the heredoc is the script.
        line: Word,
        /// In the order of their marks.
        heredocs: Vec<Heredoc>,
    },
    /// A program with its arguments.
    Exec(OneOrMore<Word>),
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// The build's.
    #[default]
    Default,
    /// None but loopback.
    None,
    /// The host's.
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunSecurity {
    /// As containers are.
    #[default]
    Sandbox,
    /// With all of the builder's rights.
    Insecure,
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// `--from`: a stage by name or number, an image, a named context; never expanded.
    pub from: Option<Word>,
    /// `--parents`: the sources keep the directories above them.
    pub parents: bool,
    /// What COPY and ADD have in common.
    pub transfer: Transfer,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// `--checksum`: what the source must be, a digest or a commit.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`.
    pub keep_git_directory: bool,
    /// `--unpack`: archives are unpacked; where it is not said, local ones are and remote ones are not.
    pub unpack: Option<bool>,
    /// What COPY and ADD have in common.
    pub transfer: Transfer,
}

/// From where to where, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// `--chown`.
    pub owner: Option<Word>,
    /// `--chmod`.
    pub mode: Option<Word>,
    /// `--link`: the files are a layer of their own, whatever is below.
    pub link: bool,
    /// `--exclude`, in order; never expanded.
    pub exclude: Vec<Word>,
    /// What comes in.
    pub sources: OneOrMore<Source>,
    /// Where it goes.
    pub destination: Word,
}

/// A source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, a pattern, or what ADD may fetch: which one is seen when it has been expanded.
    Named(Word),
    /// A file whose contents stand in the Dockerfile.
    Heredoc(Heredoc),
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheck {
    /// No check, also not the base image's.
    None,
    /// A command that fails if the container is not well.
    Check {
        /// What is run; not an empty list.
        command: CommandLine,
        /// How often, how long.
        timing: HealthTiming,
    },
}

/// The flags of HEALTHCHECK; what is not given is the engine's to choose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HealthTiming {
    /// `--interval`.
    pub interval: Option<Duration>,
    /// `--timeout`.
    pub timeout: Option<Duration>,
    /// `--start-period`.
    pub start_period: Option<Duration>,
    /// `--start-interval`.
    pub start_interval: Option<Duration>,
    /// `--retries`.
    pub retries: Option<u32>,
}

/// `ONBUILD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnBuild {
    /// The instruction's keyword as it was written.
    pub keyword: Word,
    /// What is to be done.
    pub trigger: Step,
    /// As the image's configuration keeps it: the instruction in one line, its heredocs behind it.
    pub source: String,
}

impl Source {
    /// The heredoc, if it is one.
    pub fn heredoc(&self) -> Option<&Heredoc> {
        match self {
            Self::Heredoc(heredoc) => Some(heredoc),
            Self::Named(_) => None,
        }
    }
}

impl Dockerfile {
    /// The ARGs before the first FROM, each declaration by itself.
    pub fn global_declarations(&self) -> impl Iterator<Item = &Declaration> {
        self.global.iter().flat_map(|arg| arg.value.declarations.iter())
    }
}
