//! What of an instruction is expanded (docs.docker.com/reference/dockerfile, "Environment replacement": the list of
//! instructions; what of each, as BuildKit does it). Nothing else ever is: what RUN, CMD, ENTRYPOINT, HEALTHCHECK and
//! SHELL run is for a shell or for nobody, and ONBUILD's step waits for its own build.

use super::Quotes;
use crate::instruction::{KeyValues, Source, Step, Transfer};
use crate::text::Word;

/// A word that is expanded, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expandable<'a> {
    /// The word.
    pub word: &'a Word,
    /// What quotes in it mean.
    pub quotes: Quotes,
    /// It may become several words, or none: EXPOSE's.
    pub is_list: bool,
}

/// The words of a step that are expanded, in the order in which they stand there.
pub fn of(step: &Step) -> Vec<Expandable<'_>> {
    let one = |word| Expandable { word, quotes: Quotes::Taken, is_list: false };
    match step {
        Step::Add(add) => add.checksum.iter().map(one).chain(of_transfer(&add.transfer)).collect(),
        Step::Copy(copy) => of_transfer(&copy.transfer),
        // And that only if the caller says nothing.
        Step::Arg(arg) => arg.declarations.iter().flat_map(|it| &it.default).map(one).collect(),
        Step::Env(pairs) | Step::Label(pairs) => of_pairs(pairs).map(one).collect(),
        Step::Expose(ports) => ports.iter().map(|word| Expandable { is_list: true, ..one(word) }).collect(),
        Step::Run(run) => run.mounts.iter().flat_map(crate::Mount::words).map(one).collect(),
        Step::StopSignal(word) | Step::User(word) | Step::WorkDir(word) => vec![one(word)],
        Step::Volume(paths) => paths.iter().map(one).collect(),
        Step::Cmd(_) | Step::Entrypoint(_) | Step::HealthCheck(_) | Step::Shell(_) => Vec::new(),
    }
}

fn of_pairs(pairs: &KeyValues) -> impl Iterator<Item = &Word> {
    pairs.iter().flat_map(|pair| [&pair.key, &pair.value])
}

fn of_transfer(transfer: &Transfer) -> Vec<Expandable<'_>> {
    let one = |word| Expandable { word, quotes: Quotes::Taken, is_list: false };
    let flags = transfer.owner.iter().chain(&transfer.mode).map(one);
    let sources = transfer.sources.iter().filter_map(|source| match source {
        Source::Named(word) => Some(one(word)),
        Source::Heredoc(heredoc) if heredoc.expand => {
            Some(Expandable { quotes: Quotes::Kept, ..one(&heredoc.content) })
        }
        Source::Heredoc(_) => None,
    });
    flags.chain(sources).chain([one(&transfer.destination)]).collect()
}
