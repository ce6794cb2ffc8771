//! `dozen registry migrate`: all of a registry from a directory to a store, or back.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use dozen_distribution::{Migrated, Progress, migrate_to_bucket, migrate_to_directory};
use indicatif::{ProgressBar, ProgressStyle};

use super::arguments::Migrate;

/// A place, as it is said.
fn is_store(place: &str) -> bool {
    place.starts_with("s3://")
}

/// Blobs first, the rows that name them last: what is cut goes on when it is said again.
pub(super) async fn migrate(migrate: Migrate) -> Result<(), Box<dyn Error>> {
    let (from, to) = (migrate.from.as_str(), migrate.to.as_str());
    let bar = ProgressBar::new(0);
    let form = "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}";
    bar.set_style(ProgressStyle::with_template(form).expect("the form is ours"));
    let show = {
        let bar = bar.clone();
        move |progress: Progress| {
            bar.set_length(progress.total_bytes);
            bar.set_position(progress.bytes);
            bar.set_message(format!("{} of {} blobs", progress.blobs, progress.total_blobs));
        }
    };
    let moved = match (is_store(from), is_store(to)) {
        (false, true) if migrate.access.take_over => Err("--take-over is about a store that is moved from".into()),
        (false, true) => migrate_to_bucket(Path::new(from), migrate.access.bucket(to)?, show).await.map_err(Into::into),
        (true, false) => {
            let bucket = migrate.access.bucket(from)?;
            migrate_to_directory(bucket, Path::new(to), migrate.access.take_over, show).await.map_err(Into::into)
        }
        _ => Err::<Migrated, Box<dyn Error>>(
            "a registry moves between a directory and a store: one of --from and --to is s3://BUCKET/PREFIX".into(),
        ),
    };
    bar.finish_and_clear();
    let Migrated { blobs, bytes, known } = moved?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "moved {blobs} blobs of {bytes} bytes from {from} to {to}; {known} of them were there already")?;
    writeln!(out, "{from} is as it was: serve {to} from now on")?;
    Ok(())
}
