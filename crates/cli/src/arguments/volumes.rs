//! `-v [source:]target[:options]`.

use std::path::Path;

/// What the API takes for one `-v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// A target alone: an entry of `Volumes`.
    Anonymous(String),
    /// An entry of `Binds`: a path of the host, or a volume's name.
    Bind(String),
}

/// Parses one. A host path that begins with `.` or `~` is relative to `directory`, as Docker's client has it.
pub fn parse(text: &str, directory: &Path) -> Result<Volume, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let check_target = |target: &str| match target {
        "" => Err(format!("invalid volume specification: '{text}': the path in the container is empty")),
        "/" => Err(format!("invalid volume specification: '{text}': destination can't be '/'")),
        path if !path.starts_with('/') => {
            Err(format!("invalid volume specification: '{text}': mount path must be absolute"))
        }
        _ => Ok(()),
    };
    match parts.as_slice() {
        [target] => {
            check_target(target)?;
            Ok(Volume::Anonymous((*target).to_owned()))
        }
        [source, target, options @ ..] if options.len() <= 1 => {
            check_target(target)?;
            if source.is_empty() {
                return Err(format!("invalid volume specification: '{text}': the source is empty"));
            }
            if options == [""] {
                return Err(format!("invalid volume specification: '{text}': the options are empty"));
            }
            let source = absolute(source, directory)?;
            let options = options.first().map(|options| format!(":{options}")).unwrap_or_default();
            Ok(Volume::Bind(format!("{source}:{target}{options}")))
        }
        _ => Err(format!("invalid spec: {text}: too many colons")),
    }
}

/// The host's path in full; a name stays a name.
pub fn absolute(source: &str, directory: &Path) -> Result<String, String> {
    if source != "." && source != ".." && !source.starts_with("./") && !source.starts_with("../") {
        return Ok(source.to_owned());
    }
    let mut path = directory.to_path_buf();
    for step in source.split('/') {
        match step {
            "" | "." => {}
            ".." => {
                path.pop();
            }
            name => path.push(name),
        }
    }
    path.into_os_string().into_string().map_err(|_| format!("the path of '{source}' is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms() {
        let bind = |text: &str| Ok(Volume::Bind(text.to_owned()));
        for (text, parsed) in [
            ("/data", Ok(Volume::Anonymous("/data".to_owned()))),
            ("vol:/data", bind("vol:/data")),
            ("/a:/b:ro", bind("/a:/b:ro")),
            ("./a:/b", bind("/here/now/a:/b")),
            ("../a:/b:rw", bind("/here/a:/b:rw")),
            (".:/b", bind("/here/now:/b")),
            ("vol:/b:nocopy", bind("vol:/b:nocopy")),
            ("a:b:c:d", Err("invalid spec: a:b:c:d: too many colons")),
            ("a:b", Err("invalid volume specification: 'a:b': mount path must be absolute")),
            ("a:/", Err("invalid volume specification: 'a:/': destination can't be '/'")),
            (":/b", Err("invalid volume specification: ':/b': the source is empty")),
            ("", Err("invalid volume specification: '': the path in the container is empty")),
        ] {
            assert_eq!(parse(text, Path::new("/here/now")), parsed.map_err(str::to_owned), "{text}");
        }
    }
}
