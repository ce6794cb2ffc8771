//! `dozen system dial-stdio`: the other end of `ssh://`. What comes on stdin goes to the engine, what it says to stdout.

use clap::{ArgMatches, Command};
use tokio::io::AsyncWriteExt;

use super::Context;
use crate::arguments::flags::verb;
use crate::failure::{Failure, Outcome};

pub fn command() -> Command {
    verb(
        "dial-stdio",
        "Proxy the stdio stream to the engine; for ssh:// alone",
        "system dial-stdio",
        "ssh me@there dozen system dial-stdio",
    )
    .hide(true)
}

pub async fn execute(context: &Context, _matches: &ArgMatches) -> Outcome {
    let (mut from_engine, mut to_engine) = context.client.open().await?.into_split();
    let input = async {
        let copied = tokio::io::copy(&mut tokio::io::stdin(), &mut to_engine).await;
        // The other side has said all; the engine has not.
        let _ = to_engine.shutdown().await;
        match copied {
            Ok(_) => std::future::pending().await,
            // The engine reads no more; what it still says tells why.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::future::pending().await,
            Err(error) => Failure::new(format!("cannot pass on stdin: {error}")),
        }
    };
    let output = async {
        let mut stdout = tokio::io::stdout();
        tokio::io::copy(&mut from_engine, &mut stdout).await?;
        stdout.flush().await
    };
    tokio::select! {
        output = output => match output {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(0),
            output => output.map(|()| 0).map_err(Failure::from),
        },
        failure = input => Err(failure),
    }
}
