//! `dozen registry retention`: what goes by rules, told by the server that runs, or found out where none does.

use std::error::Error;
use std::io::Write;

use dozen_distribution::{OpenError, Store, StoreOptions, ask_retention, shown};

use super::arguments::Retention;

pub(super) async fn run(asked: Retention) -> Result<(), Box<dyn Error>> {
    let failed = |path: &std::path::Path, error| format!("cannot read {}: {error}", path.display());
    let text = match &asked.retention {
        Some(path) => Some((path.as_path(), std::fs::read_to_string(path).map_err(|error| failed(path, error))?)),
        None => None,
    };
    let rules = text.as_ref().map(|(path, text)| (*path, text.as_str()));
    // An empty file would be a question for the server's own.
    let rules = rules.map(|(path, text)| (path, if text.is_empty() { "\n" } else { text }));
    let served = if asked.dry_run { ask_retention(&asked.root, rules).await? } else { None };
    let told = match (served, rules) {
        (Some(told), _) => told,
        (None, None) => return Err("no server is running whose rules could be told: give --retention FILE".into()),
        (None, Some((path, text))) => {
            let rules = dozen_distribution::Retention::parse(text, path)?;
            let index = asked.root.join("index.db");
            std::fs::metadata(&index).map_err(|error| failed(&index, error))?;
            let store = match Store::open(&asked.root, StoreOptions::default()).await {
                Err(OpenError::Busy(root)) if !asked.dry_run => {
                    let root = root.display();
                    return Err(format!("the server of {root} carries out its own rules: say --dry-run").into());
                }
                opened => opened?,
            };
            shown(&store.retain(&rules, asked.dry_run).await?)
        }
    };
    let mut out = std::io::stdout().lock();
    out.write_all(told.as_bytes())?;
    let count = told.lines().count();
    let words = if asked.dry_run { "would go" } else { "went" };
    writeln!(std::io::stderr(), "{count} {words}{}", if asked.dry_run { "; nothing was changed" } else { "" })?;
    Ok(())
}
