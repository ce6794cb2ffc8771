//! `dozen artifact add`: files go to the engine in one archive, so that all of them are added or none.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use clap::ArgMatches;
use http_body_util::BodyExt;

use super::{Moved, auth_for, digits, reference, with_tls};
use crate::arguments::flags::{is_on, required, text, texts};
use crate::client::Query;
use crate::commands::build::tar;
use crate::commands::pieces::{self, Copied, Outgoing, joined};
use crate::commands::{Context, source_date_epoch, system_words};
use crate::failure::{Failure, Outcome};
use crate::output;

/// A file that is to be added.
struct Added {
    title: String,
    path: String,
    file: File,
    size_bytes: u64,
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = reference(required(matches, "artifact"))?;
    let files = texts(matches, "names").into_iter().map(open).collect::<Result<Vec<_>, Failure>>()?;
    let mut query = Query::new().with("name", &name.to_string()).with("archive", "true");
    query = texts(matches, "annotation").into_iter().fold(query, |query, note| query.with("annotations", note));
    query = query.with_flag("append", is_on(matches, "append")).with_flag("replace", is_on(matches, "replace"));
    query = query.with_some("artifactMIMEType", text(matches, "type"));
    query = query.with_some("fileMIMEType", text(matches, "file-type"));
    query = query.with_some("sourceDateEpoch", source_date_epoch()?.as_deref());
    let subject = text(matches, "subject").map(reference).transpose()?;
    let auth = match &subject {
        Some(subject) => auth_for(subject.registry())?,
        None => None,
    };
    query = with_tls(query.with_some("subject", subject.map(|subject| subject.to_string()).as_deref()), matches);
    let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
    let (out, body, _) = pieces::outgoing();
    let packing = tokio::task::spawn_blocking(move || pack(files, out));
    let path = format!("/libpod/artifacts/add{query}");
    let answered = context.client.exchange(&path, "application/x-tar", "application/json", body, &fields).await;
    let packed = joined(packing.await);
    let response = match answered {
        Ok(response) => response,
        // Why it broke off is known here, unless the engine refused.
        Err(error @ crate::client::ClientError::Refused { .. }) => return Err(error.into()),
        Err(error) => return Err(packed.err().unwrap_or_else(|| error.into())),
    };
    packed?;
    let answer = response.into_body().collect().await;
    let answer = answer.map_err(|error| Failure::new(format!("the engine's answer ended early: {error}")))?;
    let added: Moved = serde_json::from_slice(&answer.to_bytes())
        .map_err(|error| Failure::new(format!("the engine's answer cannot be read: {error}")))?;
    output::print_line(digits(&added.artifact_digest, false))?;
    Ok(0)
}

fn open(path: &str) -> Result<Added, Failure> {
    let failed = |error: io::Error| Failure::new(format!("open {path}: {}", system_words(&error)));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "no regular file" };
        return Err(Failure::new(format!("{path} is {what}, and an artifact is made of files"))
            .with_hint("pack a directory first: tar -C DIRECTORY -c . > FILE"));
    }
    let title = Path::new(path).file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let title = title.ok_or_else(|| Failure::new(format!("{path}: its name is not UTF-8")))?;
    Ok(Added { title, path: path.to_owned(), file, size_bytes: metadata.len() })
}

fn pack(files: Vec<Added>, mut out: Outgoing) -> Copied {
    match write(files, &mut out) {
        Ok(()) => Ok(out.flush()?),
        Err(error) => {
            // The engine has stopped reading, and says why; or a file is not what it was.
            let is_gone = error.kind() == io::ErrorKind::BrokenPipe;
            out.abort(&error.to_string());
            if is_gone { Ok(()) } else { Err(error.into()) }
        }
    }
}

fn write(files: Vec<Added>, out: &mut Outgoing) -> io::Result<()> {
    for Added { title, path, file, size_bytes } in files {
        let mut header = Vec::new();
        let entry =
            tar::Entry { name: title.as_bytes(), kind: b'0', mode: 0o644, size: size_bytes, ..tar::Entry::default() };
        tar::write_header(&entry, &mut header);
        out.write_all(&header)?;
        let copied = io::copy(&mut file.take(size_bytes), out)?;
        if copied != size_bytes {
            return Err(io::Error::other(format!("{path} has become shorter while it was read")));
        }
        out.write_all(&vec![0; tar::padding(size_bytes)])?;
    }
    out.write_all(&[0; 2 * tar::BLOCK])
}
