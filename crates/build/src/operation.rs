//! What a step does to the file system, its variables known. Steps that only say something of the image do nothing here.

use std::borrow::Cow;

use dozen_dockerfile::instruction::{RunNetwork, RunSecurity};
use dozen_dockerfile::{FileMode, MountSpec};
use dozen_model::without_credentials;
use serde::Serialize;

/// Something that may add a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// RUN.
    Run(Run),
    /// COPY and ADD.
    Copy(Copy),
    /// WORKDIR: the directory is made if it is missing.
    MakeDirectory(MakeDirectory),
}

/// A command that is run in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments, the shell among them.
    pub arguments: Vec<String>,
    /// A heredoc with an interpreter of its own (`#!`): mounted read-only at `path` while the command runs.
    pub script: Option<Script>,
    /// Variables of the image and build arguments, in order, each once.
    pub environment: Vec<(String, String)>,
    /// Proxies: given to the command, no part of what the step is known by.
    pub proxies: Vec<(String, String)>,
    /// `user[:group]` by name or number; empty: root.
    pub user: String,
    /// Absolute.
    pub working_directory: String,
    /// In order. Targets are absolute and clean, and a cache mount has an id.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: RunNetwork,
    /// `--security`.
    pub security: RunSecurity,
}

/// What a command sees beside the image's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// A bind, or a cache that begins with some files.
    Taking(MountSpec, Origin),
    /// Anything else.
    Plain(MountSpec),
}

impl Mount {
    /// What it is.
    pub fn spec(&self) -> &MountSpec {
        match self {
            Self::Taking(spec, _) | Self::Plain(spec) => spec,
        }
    }

    /// Where its files come from.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Taking(_, origin) => Some(origin),
            Self::Plain(_) => None,
        }
    }
}

/// A file that a RUN executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Script {
    /// Where it is mounted.
    pub path: String,
    /// Its contents.
    pub content: String,
}

/// Files that come into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where they come from.
    pub origin: Origin,
    /// What is taken.
    pub sources: Vec<Source>,
    /// Absolute and clean; a slash at the end says that it is a directory.
    pub destination: String,
    /// `--chown`: `user[:group]` by name or number.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<FileMode>,
    /// The files are a layer of their own, whatever is below: `--link`, unless the owner is one by name.
    pub link: bool,
    /// The sources keep the directories above them.
    pub parents: bool,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// What ADD does besides; `None`: it is a COPY.
    pub add: Option<Add>,
}

/// What only ADD does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// What the source must be: a digest, or a commit.
    pub checksum: Option<String>,
    /// The repository's `.git` comes too.
    pub keep_git_directory: bool,
    /// Archives are unpacked; `None`: local ones are, remote ones are not.
    pub unpack: Option<bool>,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// What the caller sent.
    Context,
    /// An earlier stage, by its number.
    Stage(usize),
    /// An image, or a named context.
    Image(String),
    /// Nothing: `scratch`.
    Empty,
}

/// A source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path or a pattern.
    Path(String),
    /// A heredoc: its file name and its contents.
    Inline {
        /// The mark's word.
        name: String,
        /// The text, expanded.
        content: String,
    },
    /// A file by HTTP.
    Url(String),
    /// A repository: `URL[#REF[:DIRECTORY]]`.
    Git(String),
}

impl Source {
    /// For people: what an address has of a password stays out.
    pub fn shown(&self) -> Cow<'_, str> {
        match self {
            Self::Path(text) | Self::Inline { name: text, .. } => Cow::Borrowed(text),
            Self::Url(text) | Self::Git(text) => without_credentials(text),
        }
    }
}

/// A directory that is made, with those above it, if it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MakeDirectory {
    /// Absolute and clean.
    pub path: String,
    /// Who owns what is made: `user[:group]`; empty: root.
    pub user: String,
}
