//! `ps`: whoever is in the container, as the host sees them.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use clap::Args;

use super::state::{Directory, Status};
use crate::error::{Context, RuntimeError};

#[derive(Debug, Args)]
pub(super) struct PsArguments {
    /// The container's id
    pub(super) id: String,
    /// `table`, or `json` for the ids alone
    #[arg(long, short, default_value = "table")]
    format: String,
    /// Options of the host's ps(1), `-ef` if there are none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub(super) fn list_processes(arguments: &PsArguments, directory: &Directory) -> Result<(), RuntimeError> {
    // Of a container that has ended the title is told, as with runc.
    let record = directory.read()?;
    let mut pids = match record.status() {
        Status::Stopped => Vec::new(),
        _ => record.cgroup()?.map_or(Ok(Vec::new()), |cgroup| cgroup.pids())?,
    };
    pids.sort_unstable();
    let printed = match arguments.format.as_str() {
        "json" => format!("{}\n", serde_json::json!(pids)),
        "table" => {
            let options = if arguments.options.is_empty() { &["-ef".to_owned()][..] } else { &arguments.options };
            select(&host_ps(options)?, &pids)?
        }
        other => return Err(RuntimeError::Invalid(format!("invalid format {other:?}: want table or json"))),
    };
    io::stdout().write_all(printed.as_bytes()).context(|| "write to standard output".to_owned())
}

fn host_ps(options: &[String]) -> Result<String, RuntimeError> {
    let output = Command::new("ps").args(options).stdin(Stdio::null()).output();
    let output = output.context(|| "execute the host's ps, which has the table".to_owned())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(RuntimeError::Invalid(format!("ps {}: {}: {said}", options.join(" "), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The title and those lines of a table whose column PID names one of these.
fn select(table: &str, pids: &[i32]) -> Result<String, RuntimeError> {
    let mut lines = table.lines();
    let title = lines.next().unwrap_or_default();
    let column = title.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| RuntimeError::Invalid("ps prints no column PID".to_owned()))?;
    let of_container = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|text| text.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok(std::iter::once(title).chain(lines.filter(of_container)).flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_their_pid() {
        let table = "UID   PID CMD\nroot   17 a b\nroot    7 17\n\nroot  x y\n";
        assert_eq!(select(table, &[7, 9]).unwrap(), "UID   PID CMD\nroot    7 17\n");
        assert!(select("UID CMD\n", &[7]).is_err());
    }
}
