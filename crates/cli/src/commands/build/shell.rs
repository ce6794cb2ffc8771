//! `--debug-shell`: where a RUN has failed, the build waits, and a shell opens on our terminal in the container that the
//! engine has made ready for it. When it ends, however it does, the build goes on and fails.

use std::io::IsTerminal;

use super::product::Product;
use crate::arguments::detach_keys::DetachKeys;
use crate::client::Query;
use crate::commands::attach::{Attachment, Inspected, converse};
use crate::commands::{Context, container_path};
use crate::failure::Failure;
use crate::output;

/// A shell needs somebody who types, and a place where its words are seen. The first words are Docker's.
pub(super) fn check_terminal(product: &Product) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("the input device is not a TTY: --debug-shell needs a terminal on stdin")
            .with_hint("leave out --debug-shell, or run this command in a terminal"));
    }
    if product.is_on_stdout() || !std::io::stdout().is_terminal() {
        return Err(Failure::new("--debug-shell needs a terminal on stdout")
            .with_hint("write the output to a file, or leave out --debug-shell"));
    }
    Ok(())
}

/// Returns when it is over. That it could not be had does not change what the build says in the end.
pub(super) async fn open(context: &Context, container: &str, step: &str) {
    output::say(&format!("{step} has failed; this is a shell in it, and when it ends (exit), so does the build"));
    if let Err(failure) = attached(context, container).await {
        output::say(&format!("WARNING: no shell in the step that has failed: {}", failure.message));
    }
    // Whoever left it with the keys for that has left it, and one that could not be had is waited for no longer.
    let _ = context.client.delete(&container_path(container, &Query::new().with("force", "1").to_string())).await;
}

async fn attached(context: &Context, container: &str) -> Result<u8, Failure> {
    let inspected: Inspected = context.client.get(&container_path(container, "/json")).await?;
    let keys = DetachKeys::default();
    let attachment = Attachment { keys, with_stdin: true, is_proxied: true, condition: "next-exit" };
    let start = async {
        let path = container_path(container, "/start");
        Ok(context.client.post_for_nothing(&path, None).await?)
    };
    converse(context, &inspected, attachment, start).await
}
