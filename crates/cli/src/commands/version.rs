//! `dozen version`.

use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::{Context, inspect};
use crate::arguments::flags::{inspect_format, text, verb};
use crate::client::API_VERSION;
use crate::failure::{Failure, Outcome};
use crate::output;

pub fn command() -> Command {
    verb(
        "version",
        "Show the Docker version information",
        "version [OPTIONS]",
        "dozen version\ndozen version -f '{{.Server.Version}}'",
    )
    .about("Show version information of client and engine")
    .arg(inspect_format())
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let client = client(context.client.api_version());
    let server: Result<Value, _> = context.client.get("/version").await;
    let format = text(matches, "format").filter(|format| !format.is_empty());
    let (server, failure) = match server {
        Ok(server) => (Some(server), None),
        Err(error) => (None, Some(Failure::from(error))),
    };
    let shown = match format {
        Some(format) => {
            let document = json!({ "Client": client, "Server": server });
            inspect::show(&[document.to_string()], Some(format))?
        }
        None => {
            let server = server.map(|server| format!("\nServer:\n{}", part(&server))).unwrap_or_default();
            format!("Client:\n{}{server}", part(&client))
        }
    };
    output::print(&shown)?;
    match failure {
        Some(failure) => Err(failure),
        None => Ok(0),
    }
}

/// Docker's fields; what a build of ours does not record is empty.
fn client(api_version: &str) -> Value {
    json!({
        "Platform": { "Name": "Dozen" },
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": api_version,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": std::env::consts::OS,
        "Arch": architecture(),
        "BuildTime": "",
        "Context": "default",
        "Experimental": false,
    })
}

fn part(version: &Value) -> String {
    let text = |key: &str| version.get(key).and_then(Value::as_str).unwrap_or_default();
    let minimum = match text("MinAPIVersion") {
        "" => String::new(),
        least => format!(" (minimum version {least})"),
    };
    let mut shown =
        format!(" Version:           {}\n API version:       {}{minimum}\n", text("Version"), text("ApiVersion"));
    for (title, key) in [("Git commit", "GitCommit"), ("Built", "BuildTime"), ("Kernel", "KernelVersion")] {
        if !text(key).is_empty() {
            shown.push_str(&format!(" {:18} {}\n", format!("{title}:"), text(key)));
        }
    }
    shown.push_str(&format!(" OS/Arch:           {}/{}\n", text("Os"), text("Arch")));
    shown
}

/// Go's word for it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_for_docker_fit_the_client() {
        let document = json!({ "Client": client("1.40"), "Server": null }).to_string();
        let format = "{{with .Client}}{{.Platform.Name}} {{.APIVersion}} {{.DefaultAPIVersion}} {{.Experimental}} \
                      {{.GitCommit}}{{.GoVersion}}{{.BuildTime}}{{.Context}}{{end}}";
        let shown = inspect::show(&[document], Some(format)).map_err(|failure| failure.message);
        assert_eq!(shown.unwrap(), format!("Dozen 1.40 {API_VERSION} false default\n"));
        assert!(part(&client("1.40")).starts_with(" Version: "));
    }
}
