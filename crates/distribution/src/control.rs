//! What the registry's owner asks a server that runs: by a socket in the registry's directory, which nobody else can reach.
//!
//! One question for each connection: a line, what belongs to it, and the end. The answer is a line, `ok` or `error` with the
//! reason, and what belongs to it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use dozen_accept::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::retention::Retention;
use crate::store::{Released, Store};

/// Who neither asks nor listens for so long is let go.
const PATIENCE: Duration = Duration::from_secs(30);
/// A file of rules is shorter.
const LARGEST_BYTES: u64 = 1 << 20;
/// What would go, by the rules that come, or by the server's own.
const RETENTION: &str = "retention";

/// Where a server listens that keeps its things in this directory.
pub fn control_socket(root: &Path) -> PathBuf {
    root.join("control.sock")
}

/// Answers for ever. `own`: the rules that the server carries out.
///
/// # Errors
/// The socket cannot be made.
pub fn control(store: Arc<Store>, own: Option<Retention>, root: &Path) -> io::Result<impl Future<Output = ()> + use<>> {
    let path = control_socket(root);
    let unfinished = path.with_extension("sock.new");
    for old in [&path, &unfinished] {
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&unfinished)?;
    // It has its name once it is its owner's alone.
    std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unfinished, &path)?;
    let accept = move |context: &mut Context<'_>| listener.poll_accept(context);
    let limits = Limits { most: None, grace: Duration::ZERO };
    Ok(async move {
        let speak = |(stream, _), _| {
            let (store, own) = (store.clone(), own.clone());
            async move { drop(tokio::time::timeout(PATIENCE, answer(stream, &store, own.as_ref())).await) }
        };
        dozen_accept::serve(accept, speak, limits, std::future::pending()).await;
    })
}

async fn answer(mut stream: UnixStream, store: &Store, own: Option<&Retention>) -> io::Result<()> {
    let mut text = String::new();
    (&mut stream).take(LARGEST_BYTES).read_to_string(&mut text).await?;
    let (question, body) = text.split_once('\n').unwrap_or((&text, ""));
    let answered = match question.split_once(' ').unwrap_or((question, "")) {
        (RETENTION, path) if !body.is_empty() => match Retention::parse(body, Path::new(path)) {
            Ok(rules) => would_go(store, &rules).await,
            Err(error) => Err(error.to_string()),
        },
        (RETENTION, _) => match own {
            Some(own) => would_go(store, own).await,
            None => Err("the server has no rules: name a file of them".to_owned()),
        },
        _ => Err("the server does not know this question: it is of another version".to_owned()),
    };
    let text = match answered {
        Ok(text) => format!("ok\n{text}"),
        Err(why) => format!("error {}\n", why.replace('\n', " ")),
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

async fn would_go(store: &Store, rules: &Retention) -> Result<String, String> {
    let released = store.retain(rules, true).await.map_err(|refusal| refusal.to_string())?;
    Ok(shown(&released))
}

/// A line for each.
pub fn shown(released: &[Released]) -> String {
    released.iter().map(|one| format!("{}{}: {}\n", one.repository, one.what, one.why)).collect()
}

/// Asks the server that serves this directory what would go; by these rules, with the path by which errors name them, or by
/// its own. `None`: there is no server.
///
/// # Errors
/// It does not answer, or says why not.
pub async fn ask_retention(root: &Path, rules: Option<(&Path, &str)>) -> Result<Option<String>, String> {
    let failed = |error: io::Error| format!("cannot ask the server of {}: {error}", root.display());
    let mut stream = match UnixStream::connect(control_socket(root)).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let (path, text) = rules.map_or((String::new(), ""), |(path, text)| (path.display().to_string(), text));
    let asked = async {
        stream.write_all(format!("{RETENTION} {path}\n{text}").as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.map_err(|_| format!("the server of {} does not answer", root.display()))?.map_err(failed)?;
    match answer.split_once('\n') {
        Some(("ok", rest)) => Ok(Some(rest.to_owned())),
        Some((line, _)) => Err(line.strip_prefix("error ").unwrap_or(line).to_owned()),
        None => Err(format!("the server of {} has ended", root.display())),
    }
}
