//! ADD and COPY (docs.docker.com/reference/dockerfile).

use super::Request;
use crate::error::Error;
use crate::flags::{Flags, Takes};
use crate::heredoc::Heredoc;
use crate::instruction::{Add, Copy, Source, Transfer};
use crate::one_or_more::OneOrMore;
use crate::span::Span;
use crate::text::{Text, Word};
use crate::words::json;

pub(super) fn add(request: Request<'_, '_, '_>) -> Result<Add, Error> {
    let (flags, rest) = request.flags(&[
        ("checksum", Takes::Value),
        ("keep-git-dir", Takes::Switch),
        ("unpack", Takes::Switch),
        ("chown", Takes::Value),
        ("chmod", Takes::Value),
        ("link", Takes::Switch),
        ("exclude", Takes::Values),
    ])?;
    Ok(Add {
        checksum: flags.value("checksum"),
        keep_git_directory: flags.switch("keep-git-dir").unwrap_or(false),
        unpack: flags.switch("unpack"),
        transfer: transfer(request, &flags, rest)?,
    })
}

pub(super) fn copy(request: Request<'_, '_, '_>) -> Result<Copy, Error> {
    let (flags, rest) = request.flags(&[
        ("from", Takes::Value),
        ("parents", Takes::Switch),
        ("chown", Takes::Value),
        ("chmod", Takes::Value),
        ("link", Takes::Switch),
        ("exclude", Takes::Values),
    ])?;
    let from = flags.value("from");
    if let Some(from) = &from {
        if from.text.contains('$') {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from \
                           global scope as a workaround";
            return Err(Error::new(message, from.span).with_hint("FROM $IMAGE AS name, and then COPY --from=name"));
        }
        if from.text.is_empty() {
            return Err(Error::new("missing a value on flag: from", from.span));
        }
    }
    let parents = flags.switch("parents").unwrap_or(false);
    let transfer = transfer(request, &flags, rest)?;
    if let (Some(_), Some(heredoc)) = (&from, transfer.sources.iter().find_map(Source::heredoc)) {
        return Err(Error::new("COPY with --from cannot take a heredoc: its text stands in this file", heredoc.mark));
    }
    Ok(Copy { from, parents, transfer })
}

/// Sources and destination. The words of a JSON array are no heredocs' marks.
fn transfer(mut request: Request<'_, '_, '_>, flags: &Flags, rest: Text<'_>) -> Result<Transfer, Error> {
    let name = request.name.clone();
    let (mut words, heredocs) = match json(rest)? {
        Some(words) => (words, Vec::new()),
        None => (rest.split_blanks().into_iter().map(Text::word).collect(), request.heredocs()?),
    };
    let Some(destination) = words.pop() else {
        return Err(request.error(format!("{name} requires at least two arguments: sources and a destination")));
    };
    let marks: Vec<Span> = heredocs.iter().map(|heredoc| heredoc.mark).collect();
    let mark_of = |word: &Word| {
        let next = marks.partition_point(|mark| mark.end <= word.span.start);
        marks.get(next).is_some_and(|mark| mark.start < word.span.end).then_some(next)
    };
    if mark_of(&destination).is_some() {
        return Err(Error::new(format!("{name} cannot accept a heredoc as a destination"), destination.span));
    }
    let mut heredocs: Vec<Option<Heredoc>> = heredocs.into_iter().map(Some).collect();
    let mut sources = Vec::new();
    for word in words {
        match mark_of(&word) {
            None => sources.push(Source::Named(word)),
            // A mark with blanks in it is several words, and one source.
            Some(mark) => sources.extend(heredocs[mark].take().map(Source::Heredoc)),
        }
    }
    let Some(sources) = OneOrMore::new(sources) else {
        let message = format!(
            "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        );
        return Err(request.error(message));
    };
    Ok(Transfer {
        owner: flags.value("chown"),
        mode: flags.value("chmod"),
        link: flags.switch("link").unwrap_or(false),
        exclude: flags.values("exclude"),
        sources,
        destination,
    })
}
