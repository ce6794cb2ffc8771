//! `--ssh default`, `--ssh id=SOCKET`: an SSH agent of ours answers what the steps of a build ask. The keys stay with it, and
//! whoever is at the other end, the engine included, can have them listed and have something signed, and no more.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use dozen_model::{ContainerId, agent};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::arguments::flags::invalid;
use crate::arguments::key_values::Environment;
use crate::commands::{Context, system_words};
use crate::failure::Failure;

/// Agents' sockets by id, as buildx finds them.
pub(super) fn read(texts: &[&str], environment: Environment<'_>) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut agents = BTreeMap::new();
    for text in texts {
        let (id, path) = parse(text, environment).map_err(|why| invalid(text, "ssh", why))?;
        check(text, &path)?;
        if agents.insert(id.to_owned(), path).is_some() {
            return Err(invalid(text, "ssh", format_args!("invalid duplicate ID {id}")));
        }
    }
    Ok(agents)
}

fn parse<'a>(text: &'a str, environment: Environment<'_>) -> Result<(&'a str, PathBuf), String> {
    let (id, places) = text.split_once('=').unwrap_or((text, ""));
    if id.is_empty() {
        return Err("it has no ID".to_owned());
    }
    let mut places = places.split(',').filter(|place| !place.is_empty());
    match (places.next(), places.next()) {
        (None, _) => match environment("SSH_AUTH_SOCK").filter(|path| !path.is_empty()) {
            Some(path) => Ok((id, path.into())),
            None => Err("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set".to_owned()),
        },
        (Some(path), None) => Ok((id, path.into())),
        (Some(_), Some(_)) => Err("only single socket allowed".to_owned()),
    }
}

/// What is no socket may be a key: that stays where it is.
fn check(text: &str, path: &Path) -> Result<(), Failure> {
    let found = std::fs::metadata(path)
        .map_err(|error| invalid(text, "ssh", format_args!("{}: {}", path.display(), system_words(&error))))?;
    if found.file_type().is_socket() {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::not_built(&format!("a file with a key ({path}) for --ssh"))
        .with_hint(format!("give it to an agent: ssh-add {path}, and then: --ssh default")))
}

/// Opens a connection for each, over which the engine asks; they go with the process. By id, the names by which the build
/// will find them.
pub(super) async fn open(
    context: &Context,
    agents: BTreeMap<String, PathBuf>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut names = BTreeMap::new();
    for (id, path) in agents {
        // Nobody guesses it.
        let name = ContainerId::random().to_string();
        let (engine, _) = context.client.take_over("/build/agent", Some(&json!({ "Name": name }))).await?;
        tokio::spawn(answer(engine, path));
        names.insert(id, name);
    }
    Ok(names)
}

/// Answers until nobody asks any more. Each question is a conversation with the agent: one that has been started anew in
/// between is found again.
async fn answer(mut engine: impl AsyncRead + AsyncWrite + Unpin, path: PathBuf) {
    while let Some(message) = message(&mut engine).await {
        let answer = match agent::only_uses_keys(&message) {
            true => ask(&path, &message).await,
            false => None,
        };
        let answer = answer.unwrap_or_else(|| agent::REFUSED.to_vec());
        if engine.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The agent's answer with its length.
async fn ask(path: &Path, question: &[u8]) -> Option<Vec<u8>> {
    let mut agent = UnixStream::connect(path).await.ok()?;
    agent.write_all(&agent::framed(question)?).await.ok()?;
    agent::framed(&message(&mut agent).await?)
}

async fn message(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).await.ok()?;
    let mut message = vec![0; agent::length(prefix)?];
    from.read_exact(&mut message).await.ok()?;
    Some(message)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn agents_are_found_where_buildx_finds_them() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, key) = (directory.path().join("socket"), directory.path().join("key"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::write(&key, "").unwrap();
        let (socket, key) = (socket.to_str().unwrap(), key.to_str().unwrap());
        let read = |texts: &[&str], environment: Environment<'_>| {
            let found = read(texts, environment).map_err(|failure| failure.message);
            found.map(|found| found.into_iter().map(|(id, path)| format!("{id} {}", path.display())).collect())
        };
        let (with, without) = (|_: &str| Some(socket.to_owned()), |_: &str| None);
        let expected: Result<Vec<String>, String> = Ok(vec![format!("default {socket}"), format!("git {socket}")]);
        assert_eq!(read(&["default", &format!("git={socket}")], &with), expected);
        for (text, environment, words) in [
            (
                "default".to_owned(),
                &without as Environment<'_>,
                "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set",
            ),
            (format!("a={socket},{socket}"), &with, "only single socket allowed"),
            (format!("a={key}"), &with, "a file with a key"),
            ("a=/nowhere".to_owned(), &with, "/nowhere: no such file or directory"),
            (format!("={socket}"), &with, "it has no ID"),
        ] {
            let said = read(&[&text], environment).unwrap_err();
            assert!(said.contains(words), "{text}: {said}");
        }
        assert!(read(&["a", "a"], &with).unwrap_err().contains("invalid duplicate ID a"));
    }

    #[tokio::test]
    async fn only_the_use_of_keys_comes_to_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in [&[12, 0][..], &[]] {
                let (mut stream, _) = listener.accept().await.unwrap();
                asked.push(message(&mut stream).await.unwrap());
                stream.write_all(&agent::framed(answer).unwrap_or_default()).await.unwrap();
            }
            asked
        });
        let (mut engine, ours) = UnixStream::pair().unwrap();
        let answering = tokio::spawn(answer(ours, path));
        // To list, to add a key, to lock; to sign, and the agent goes away instead.
        for (question, expected) in
            [(&[11][..], &[12, 0][..]), (&[17, 1], &[5]), (&[22, 1], &[5]), (&[13, 1], &[5]), (&[11], &[5])]
        {
            engine.write_all(&agent::framed(question).unwrap()).await.unwrap();
            assert_eq!(message(&mut engine).await.unwrap(), expected, "{question:?}");
        }
        assert_eq!(agent.await.unwrap(), [vec![11], vec![13, 1]]);
        drop(engine);
        answering.await.unwrap();
    }
}
