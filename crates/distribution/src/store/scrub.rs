//! One round of a scrub (`crate::scrub`).
//!
//! **What is not to be read is lost only where others are.** A disk that is gone for a while has lost nothing, and a blob that
//! is set aside is given to nobody. So one that is missing or unreadable is looked at again, and then some others, from all
//! over the store: if none of them can be read either, it is the store that is not there, and nothing is done to a blob.

use std::sync::Arc;
use std::time::Instant;

use super::directory::BlobFile;
use super::index::{Due, Round};
use super::reading::Verdict;
use super::shelves::object_name;
use super::{Store, now};
use crate::failpoint::failpoint;
use crate::metrics::Metrics;
use crate::refusal::{Kind, Refusal};
use crate::scrub::{ASIDE_EVERY, Pace};

/// Blobs that are looked up at once.
const STEP: i64 = 100;
/// A blob that cannot be seen at the moment is read so often. The next round tries again.
const MOST_TRIES: u32 = 8;
/// The same, of one that is missing or unreadable.
const TRIES_OF_LOST: u32 = 4;
/// Others that are looked at then, at the most, and how long they may be: an image's configuration is shorter.
const WITNESSES: u32 = 10;
const LONGEST_WITNESS_BYTES: u64 = 1 << 20;

/// How often it is read until this is believed of it.
fn tries(verdict: &Verdict) -> u32 {
    match verdict {
        Verdict::Right | Verdict::Damaged(_) => 1,
        Verdict::Missing | Verdict::Unreadable(_) => TRIES_OF_LOST,
        Verdict::Unknown(_) => MOST_TRIES,
    }
}

impl Store {
    /// Reads all blobs after that of this row, and those that were set aside.
    pub(crate) async fn scrub(
        self: &Arc<Self>,
        begun_at: i64,
        mut after: i64,
        pace: &Pace,
        metrics: &Metrics,
    ) -> Result<(), Refusal> {
        let mut unseen = 0;
        self.look_aside(pace).await?;
        let mut looked_aside = Instant::now();
        loop {
            let step = self.index.blobs_after(after, STEP).await?;
            if step.is_empty() {
                break;
            }
            for due in step {
                if looked_aside.elapsed() >= ASIDE_EVERY {
                    self.look_aside(pace).await?;
                    looked_aside = Instant::now();
                }
                after = due.row;
                let verdict = self.see(&due, pace).await?;
                let is_lost = matches!(verdict, Verdict::Missing | Verdict::Unreadable(_));
                if is_lost && !self.has_others(&due).await? {
                    let words = format!(
                        "neither the blob {} nor any other can be read: see whether their disk or store is there",
                        due.file.digest
                    );
                    return Err(Refusal::new(Kind::StoreUnavailable, words));
                }
                metrics.scrubbed(due.size_bytes, is_lost || matches!(verdict, Verdict::Damaged(_)));
                unseen += usize::from(matches!(verdict, Verdict::Unknown(_)));
                self.act(due.file, due.size_bytes, verdict).await?;
                self.index.note_round(Round { begun_at, after: Some(after) }).await?;
                failpoint("scrub.noted");
            }
        }
        self.index.note_round(Round { begun_at, after: None }).await?;
        metrics.scrubbed_all(u64::try_from(now()).unwrap_or_default());
        match unseen {
            0 => tracing::info!("all blobs have been read"),
            count => tracing::warn!("all blobs have been read but {count}, which could not be"),
        }
        Ok(())
    }

    /// What a blob turns out to be; what cannot be seen is tried again.
    async fn see(&self, due: &Due, pace: &Pace) -> Result<Verdict, Refusal> {
        let (mut pause, mut tried) = (pace.first_pause, 1);
        loop {
            let verdict = self.shelves.verify(&due.file, due.size_bytes, Some(pace)).await?;
            if tried >= tries(&verdict) {
                return Ok(verdict);
            }
            tracing::debug!("the blob {} is read again in {pause:?}: {verdict:?}", due.file.digest);
            tokio::time::sleep(pause).await;
            pause *= 2;
            tried += 1;
        }
    }

    /// Whether another blob can be read at this moment, or there is none to be asked.
    async fn has_others(&self, due: &Due) -> Result<bool, Refusal> {
        let others = self.index.witnesses(due.row, WITNESSES, LONGEST_WITNESS_BYTES).await?;
        for other in &others {
            let verdict = self.shelves.verify(&other.file, other.size_bytes, None).await?;
            if matches!(verdict, Verdict::Right | Verdict::Damaged(_)) {
                return Ok(true);
            }
        }
        Ok(others.is_empty())
    }

    async fn act(&self, file: BlobFile, size_bytes: u64, verdict: Verdict) -> Result<(), Refusal> {
        let digest = file.digest.clone();
        let (what, is_damaged) = match verdict {
            Verdict::Right => return Ok(()),
            Verdict::Unknown(why) => {
                tracing::warn!("the blob {digest} cannot be read: {why}");
                return Ok(());
            }
            Verdict::Damaged(why) => (format!("is damaged: {why}; {} stays as it is", object_name(&file)), true),
            Verdict::Unreadable(why) => {
                (format!("is damaged: it cannot be read: {why}; {} stays as it is", object_name(&file)), true)
            }
            Verdict::Missing => ("is lost: its file is not there".to_owned(), false),
        };
        // One that was collected or deleted while it was read was nobody's already.
        let Some(names) = self.index.set_aside(file, size_bytes, is_damaged).await? else { return Ok(()) };
        failpoint("scrub.set_aside");
        let hint = match names.as_slice() {
            [] => "no manifest names it".to_owned(),
            names => format!("it is in {}: push it again (what an upstream has comes by itself)", names.join(", ")),
        };
        tracing::error!("the blob {digest} {what}; nobody is given it any more; {hint}");
        Ok(())
    }

    /// What was set aside may be right after all: a disk that was gone is there again, or somebody has mended the file.
    pub(crate) async fn look_aside(&self, pace: &Pace) -> Result<(), Refusal> {
        for aside in self.index.aside().await? {
            if self.shelves.verify(&aside.file, aside.size_bytes, Some(pace)).await? == Verdict::Right {
                let file = aside.file.clone();
                if self.index.take_back(aside).await? {
                    tracing::info!("the blob {} is right again: it is given as before", file.digest);
                } else {
                    self.shelves.remove(vec![file]).await?;
                }
            }
        }
        Ok(())
    }
}
