//! `--security-opt`.

use crate::arguments::key_values::Environment;

/// What the options come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// The API's `SecurityOpt`, with profiles in place of their paths.
    pub options: Vec<String>,
    /// `systempaths=unconfined`: no path of /proc and /sys is masked or read-only.
    pub unmasks_system_paths: bool,
}

/// Parses all of them; `read_file` gives a seccomp profile's text.
pub fn parse(texts: &[&str], read_file: &dyn Fn(&str) -> Result<String, String>) -> Result<Security, String> {
    let mut security = Security::default();
    for text in texts {
        // Docker's old form has a colon; a path may have both.
        let (key, value) = match text.find(['=', ':']) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (*text, None),
        };
        match (key, value) {
            ("no-new-privileges", None | Some("true")) => security.options.push("no-new-privileges".to_owned()),
            // The engine may have another default.
            ("no-new-privileges", Some("false")) => security.options.push("no-new-privileges=false".to_owned()),
            ("systempaths", Some("unconfined")) => security.unmasks_system_paths = true,
            ("seccomp", Some("unconfined" | "builtin")) => security.options.push((*text).replacen(':', "=", 1)),
            ("seccomp", Some(path)) if !path.is_empty() => {
                let profile = read_file(path)?;
                let document: serde_json::Value = serde_json::from_str(&profile)
                    .map_err(|error| format!("compacting json for seccomp profile ({path}) failed: {error}"))?;
                security.options.push(format!("seccomp={document}"));
            }
            // Neither confines a container of ours; another engine's, it may.
            ("apparmor", Some("unconfined")) | ("label", Some("disable")) => {
                security.options.push((*text).replacen(':', "=", 1));
            }
            ("apparmor" | "label" | "proc-opts" | "writable-cgroups", _) => {
                return Err(format!("--security-opt {key} is not built yet"));
            }
            _ => return Err(format!("invalid --security-opt: \"{text}\"")),
        }
    }
    Ok(security)
}

/// A capability as the API takes it: `CAP_NET_ADMIN`, or `ALL`. Which ones exist is the engine's to say.
pub fn capability(text: &str) -> String {
    let upper = text.trim().to_ascii_uppercase();
    if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

/// The world around a command line: its environment, its directory and its files.
pub struct Surroundings<'a> {
    /// Our environment variables.
    pub environment: Environment<'a>,
    /// The directory that relative paths begin in.
    pub directory: &'a std::path::Path,
    /// The content of a file, or words on why there is none.
    pub read_file: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_files(path: &str) -> Result<String, String> {
        Err(format!("opening seccomp profile ({path}) failed"))
    }

    #[test]
    fn options_parse() {
        let profile = |path: &str| match path {
            "p.json" => Ok("{\n \"defaultAction\": \"SCMP_ACT_ALLOW\" }".to_owned()),
            "bad.json" => Ok("{".to_owned()),
            other => no_files(other),
        };
        let options = |texts: &[&str]| parse(texts, &profile).map(|security| security.options.join(" "));
        for (texts, parsed) in [
            (&["no-new-privileges"][..], Ok("no-new-privileges")),
            (&["no-new-privileges:true"], Ok("no-new-privileges")),
            (&["no-new-privileges:false"], Ok("no-new-privileges=false")),
            (&["seccomp=unconfined"], Ok("seccomp=unconfined")),
            (&["seccomp:unconfined"], Ok("seccomp=unconfined")),
            (&["seccomp=p.json"], Ok("seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}")),
            (&["apparmor=unconfined"], Ok("apparmor=unconfined")),
            (&["label=disable", "apparmor:unconfined"], Ok("label=disable apparmor=unconfined")),
            (&["label:disable"], Ok("label=disable")),
            (&["apparmor=docker-default"], Err("--security-opt apparmor is not built yet")),
            (&["label=type:x"], Err("--security-opt label is not built yet")),
            (&["what"], Err("invalid --security-opt: \"what\"")),
            (&["seccomp=none.json"], Err("opening seccomp profile (none.json) failed")),
        ] {
            assert_eq!(options(texts).as_deref().map_err(String::as_str), parsed, "{texts:?}");
        }
        assert!(
            options(&["seccomp=bad.json"]).unwrap_err().starts_with("compacting json for seccomp profile (bad.json)")
        );
        assert!(parse(&["systempaths=unconfined"], &no_files).unwrap().unmasks_system_paths);
    }

    #[test]
    fn capabilities_have_their_prefix() {
        for (text, full) in [("net_admin", "CAP_NET_ADMIN"), ("CAP_CHOWN", "CAP_CHOWN"), ("all", "ALL")] {
            assert_eq!(capability(text), full);
        }
    }
}
