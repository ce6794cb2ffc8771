//! One round of a scrub (`crate::scrub`).

use std::sync::Arc;
use std::time::Duration;

use super::directory::BlobFile;
use super::index::{Due, Round};
use super::reading::Verdict;
use super::shelves::object_name;
use super::{Store, now};
use crate::failpoint::failpoint;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::scrub::Pace;

/// Blobs that are looked up at once.
const STEP: i64 = 100;
/// A blob that cannot be seen at the moment is tried again after this, and then after twice as long, so often in all. The
/// next round tries again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MOST_TRIES: u32 = 8;

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
        loop {
            let step = self.index.blobs_after(after, STEP).await?;
            if step.is_empty() {
                break;
            }
            for due in step {
                after = due.row;
                let verdict = self.see(&due, pace).await?;
                metrics.scrubbed(due.size_bytes, matches!(verdict, Verdict::Damaged(_) | Verdict::Missing));
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
        let mut pause = FIRST_PAUSE;
        for tried in 1.. {
            match self.shelves.verify(&due.file, due.size_bytes, Some(pace)).await? {
                Verdict::Unknown(why) if tried < MOST_TRIES => {
                    tracing::debug!("the blob {} is read again in {pause:?}: {why}", due.file.digest);
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                verdict => return Ok(verdict),
            }
        }
        unreachable!("the last try is the last")
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
    async fn look_aside(&self, pace: &Pace) -> Result<(), Refusal> {
        for aside in self.index.aside().await? {
            if self.shelves.verify(&aside.file, aside.size_bytes, Some(pace)).await? == Verdict::Right {
                let digest = aside.file.digest.clone();
                if self.index.take_back(aside).await? {
                    tracing::info!("the blob {digest} is right again: it is given as before");
                }
            }
        }
        Ok(())
    }
}
