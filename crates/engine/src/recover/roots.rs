//! Whether a root can be a directory, said in words that name what stands in the way.

use std::path::Path;

use crate::{EngineConfig, EngineError};

/// Looks at both roots before anything is made in them.
pub(crate) fn check(config: &EngineConfig) -> Result<(), EngineError> {
    for (name, flag, variable, path) in [
        ("data root", "--data-root", "DOZEN_DATA_ROOT", &config.data_root),
        ("run root", "--run-root", "DOZEN_RUN_ROOT", &config.run_root),
    ] {
        if let Some(why) = obstacle(path) {
            return Err(EngineError::Invalid {
                message: format!("{} cannot be the {name}: {why}", path.display()),
                hint: Some(format!(
                    "{flag}, or {variable} in the environment, names a directory, or where one can be made"
                )),
            });
        }
    }
    Ok(())
}

/// What stands in the way of a directory there; `None` if nothing is seen to. What only shows when it is made, as a
/// read-only file system does, has its own words.
fn obstacle(path: &Path) -> Option<String> {
    if !path.is_absolute() {
        return Some("it does not begin with /".to_owned());
    }
    // The nearest that is there decides: what is missing below it can be made.
    for ancestor in path.ancestors() {
        let Ok(there) = ancestor.symlink_metadata() else { continue };
        let subject = if ancestor == path { "it".to_owned() } else { ancestor.display().to_string() };
        return match ancestor.metadata() {
            Ok(metadata) if metadata.is_dir() => None,
            Ok(_) => Some(format!("{subject} is not a directory")),
            Err(_) if there.is_symlink() => Some(format!("{subject} is a link that leads nowhere")),
            Err(error) => Some(format!("{subject} cannot be looked at: {error}")),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_of_a_root_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        std::fs::create_dir(at("there")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        std::os::unix::fs::symlink("there", at("link")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        let below = format!("{} is not a directory", at("file").display());
        for (path, want) in [
            (at("there"), None),
            (at("link"), None),
            (at("link/new/newer"), None),
            (at("new/newer"), None),
            (at("file"), Some("it is not a directory")),
            (at("file/below/it"), Some(below.as_str())),
            (at("dangling"), Some("it is a link that leads nowhere")),
            (at("loop"), Some("it is a link that leads nowhere")),
            ("relative".into(), Some("it does not begin with /")),
            ("".into(), Some("it does not begin with /")),
        ] {
            assert_eq!(obstacle(&path).as_deref(), want, "{}", path.display());
        }
    }

    #[test]
    fn the_root_is_named_and_the_way_out() {
        use dozen_model::Classified;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let good = directory.path().join("good");
        for (data_root, run_root, name, flag) in
            [(&file, &good, "data root", "--data-root"), (&good, &file, "run root", "--run-root")]
        {
            let config = EngineConfig {
                data_root: data_root.clone(),
                run_root: run_root.clone(),
                program: "dozen".into(),
                settings: Default::default(),
            };
            let error = check(&config).unwrap_err();
            assert_eq!(error.to_string(), format!("{} cannot be the {name}: it is not a directory", file.display()));
            assert!(error.hint().unwrap().starts_with(flag));
        }
    }
}
