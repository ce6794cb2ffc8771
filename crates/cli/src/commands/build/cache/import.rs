//! Caches that come from directories: what they say of steps is told at once, and layers are brought when they are wanted.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;

use dozen_build::carried::{Cache, Descriptor, Step};
use dozen_model::Digest;
use http::Method;

use super::super::layout::{self, Choice, Layout};
use super::format;
use crate::client::Query;
use crate::commands::pieces::outgoing;
use crate::commands::{Context, system_words};

/// What all directories have.
#[derive(Debug, Default)]
pub(super) struct Imports {
    pub steps: Vec<Step>,
    /// Where the blob of a layer is, by its diff id.
    layers: BTreeMap<Digest, (PathBuf, Descriptor)>,
    /// Layers whose blobs are not what they are said to be.
    spoiled: RefCell<BTreeSet<Digest>>,
}

impl Imports {
    /// Of two that say something of the same step or layer the first counts.
    pub(super) fn add(&mut self, layout: &Layout, choice: &Choice) -> Result<(), String> {
        let Cache { steps, layers } = format::read(layout, choice)?;
        self.steps.extend(steps);
        for (diff_id, descriptor) in layers {
            let path = layout.blob(&descriptor.digest);
            self.layers.entry(diff_id).or_insert((path, descriptor));
        }
        Ok(())
    }

    /// A layer's blob, and what it has to be; `None`: none of the directories has it.
    pub(super) fn blob(&self, diff_id: &Digest) -> Option<(File, &Descriptor)> {
        self.open(diff_id).ok()
    }

    fn open(&self, diff_id: &Digest) -> Result<(File, &Descriptor), String> {
        let (path, descriptor) = self.layers.get(diff_id).ok_or("its client has not got it")?;
        let failed = |error: io::Error| format!("open {}: {}", path.display(), system_words(&error));
        let file = layout::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        if size != descriptor.size {
            return Err(format!("{} has {size} bytes, and is to have {}", path.display(), descriptor.size));
        }
        Ok((file, descriptor))
    }

    /// Its blob was found to be missing or damaged: no use is to be made of it.
    pub(super) fn is_spoiled(&self, diff_id: &Digest) -> bool {
        self.spoiled.borrow().contains(diff_id)
    }

    /// Brings it, or says that there is none. The engine looks at what comes, and says what is wrong with it.
    pub(super) async fn bring(&self, context: &Context, build: &str, diff_id: Digest) {
        let query = Query::new().with("id", build).with("layer", diff_id.as_str());
        match self.open(&diff_id) {
            Ok((mut file, _)) => {
                let (mut out, body, _) = outgoing();
                let sending = tokio::task::spawn_blocking(move || {
                    let sent = io::copy(&mut file, &mut out).and_then(|_| io::Write::flush(&mut out));
                    if let Err(error) = sent {
                        out.abort(&error.to_string());
                    }
                });
                let path = format!("/build/carried/layer{query}");
                if context.client.stream(Method::PUT, &path, Some(body)).await.is_err() {
                    self.spoiled.borrow_mut().insert(diff_id);
                }
                let _ = sending.await;
            }
            Err(why) => {
                let path = format!("/build/carried/layer{}", query.with("why", &why));
                self.spoiled.borrow_mut().insert(diff_id);
                let _ = context.client.delete(&path).await;
            }
        }
    }
}
