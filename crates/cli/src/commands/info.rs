//! `dozen info`.

use clap::{ArgMatches, Command};
use serde_json::Value;

use super::{Context, inspect};
use crate::arguments::flags::{inspect_format, text, verb};
use crate::failure::Outcome;
use crate::output;

pub fn command() -> Command {
    verb("info", "Display system-wide information", "info [OPTIONS]", "dozen info\ndozen info -f '{{.ServerVersion}}'")
        .arg(inspect_format())
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let document = context.client.get_text("/info").await?;
    let shown = match text(matches, "format").filter(|format| !format.is_empty()) {
        Some(format) => inspect::show(&[document], Some(format))?,
        None => {
            let info: Value = serde_json::from_str(&document)
                .map_err(|error| crate::failure::Failure::new(format!("the engine's answer: {error}")))?;
            for warning in info.get("Warnings").and_then(Value::as_array).into_iter().flatten() {
                output::say(warning.as_str().unwrap_or_default());
            }
            format!("Client:\n Version:    {}\n\nServer:\n{}", env!("CARGO_PKG_VERSION"), server(&info))
        }
    };
    output::print(&shown)?;
    Ok(0)
}

/// What Docker shows of the answer, in its order; what the engine does not say is left out.
const LINES: &[(&str, &str)] = &[
    (" Containers", "Containers"),
    ("  Running", "ContainersRunning"),
    ("  Paused", "ContainersPaused"),
    ("  Stopped", "ContainersStopped"),
    (" Images", "Images"),
    (" Server Version", "ServerVersion"),
    (" Storage Driver", "Driver"),
    (" Logging Driver", "LoggingDriver"),
    (" Cgroup Driver", "CgroupDriver"),
    (" Cgroup Version", "CgroupVersion"),
    (" Kernel Version", "KernelVersion"),
    (" Operating System", "OperatingSystem"),
    (" OSType", "OSType"),
    (" Architecture", "Architecture"),
    (" CPUs", "NCPU"),
    (" Total Memory", "MemTotal"),
    (" Name", "Name"),
    (" ID", "ID"),
    (" Docker Root Dir", "DockerRootDir"),
    (" Own Registry", "OwnRegistry"),
    (" Debug Mode", "Debug"),
    (" Live Restore Enabled", "LiveRestoreEnabled"),
];

fn server(info: &Value) -> String {
    let mut text = String::new();
    for (title, key) in LINES {
        let value = match (*key, info.get(key)) {
            (_, None | Some(Value::Null)) => continue,
            ("OwnRegistry", Some(own)) => match own.get("Address").and_then(Value::as_str).unwrap_or_default() {
                "" => "none".to_owned(),
                address => address.to_owned(),
            },
            ("MemTotal", Some(bytes)) => binary_size(bytes.as_f64().unwrap_or(0.0)),
            (_, Some(Value::String(word))) if word.is_empty() => continue,
            (_, Some(Value::String(word))) => word.clone(),
            (_, Some(other)) => other.to_string(),
        };
        text.push_str(&format!("{title}: {value}\n"));
        if *key == "ServerVersion"
            && let Some(options) = info.get("SecurityOptions").and_then(Value::as_array)
            && !options.is_empty()
        {
            let names =
                options.iter().filter_map(Value::as_str).map(|option| option.strip_prefix("name=").unwrap_or(option));
            text.push_str(&format!(" Security Options: {}\n", names.collect::<Vec<_>>().join(" ")));
        }
    }
    text
}

/// Powers of 1024: `15.49GiB`.
fn binary_size(mut size: f64) -> String {
    let mut unit = 0;
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let text = format!("{size:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_says_is_shown() {
        let info = serde_json::json!({"Containers":3,"ContainersRunning":1,"ServerVersion":"0.1","MemTotal":16_632_000_512_u64,"Name":"box"});
        assert_eq!(
            server(&info),
            " Containers: 3\n  Running: 1\n Server Version: 0.1\n Total Memory: 15.49GiB\n Name: box\n"
        );
        let own = |address: &str| server(&serde_json::json!({ "OwnRegistry": { "Address": address, "Error": "e" } }));
        assert_eq!(own("127.0.0.1:12012"), " Own Registry: 127.0.0.1:12012\n");
        assert_eq!(own(""), " Own Registry: none\n");
    }
}
