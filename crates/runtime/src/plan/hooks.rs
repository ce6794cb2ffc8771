//! Which programs are run at which stage of a container's life (runtime-spec, config.md, "POSIX-platform Hooks").

use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::Hook as SpecHook;

use super::invalid;
use crate::Spec;
use crate::error::RuntimeError;

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hook {
    /// Absolute; looked up where the stage says.
    pub(crate) path: CString,
    /// With the program's own name. Never empty.
    pub(crate) arguments: Vec<CString>,
    /// All that it gets. `None`: that of who runs it, or inside, of the container's process. The specification is silent;
    /// other runtimes do so, and scripts expect a PATH.
    pub(crate) environment: Option<Vec<CString>>,
    /// How long it may take; then it is killed.
    pub(crate) timeout: Option<Duration>,
}

/// A container's hooks by stage, in the order in which they are run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    pub(crate) prestart: Vec<Hook>,
    pub(crate) create_runtime: Vec<Hook>,
    pub(crate) create_container: Vec<Hook>,
    pub(crate) start_container: Vec<Hook>,
    pub(crate) poststart: Vec<Hook>,
    pub(crate) poststop: Vec<Hook>,
}

impl Hooks {
    pub(crate) fn new(spec: &Spec) -> Result<Self, RuntimeError> {
        let Some(hooks) = spec.hooks() else { return Ok(Self::default()) };
        let all = |stage: &str, list: &Option<Vec<SpecHook>>| -> Result<Vec<Hook>, RuntimeError> {
            list.iter().flatten().map(|hook| Hook::new(stage, hook)).collect()
        };
        Ok(Self {
            prestart: all("prestart", hooks.prestart())?,
            create_runtime: all("createRuntime", hooks.create_runtime())?,
            create_container: all("createContainer", hooks.create_container())?,
            start_container: all("startContainer", hooks.start_container())?,
            poststart: all("poststart", hooks.poststart())?,
            poststop: all("poststop", hooks.poststop())?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Some are run between the namespaces and the container's own root.
    pub(crate) fn before_pivot(&self) -> bool {
        !(self.prestart.is_empty() && self.create_runtime.is_empty() && self.create_container.is_empty())
    }
}

impl Hook {
    fn new(stage: &str, hook: &SpecHook) -> Result<Self, RuntimeError> {
        let path = hook.path();
        let string = |text: &str| {
            CString::new(text).map_err(|_| invalid(format!("{stage} hook {}: a null byte", path.display())))
        };
        if !Path::is_absolute(path) {
            return Err(invalid(format!("{stage} hook {path:?}: the path must be absolute")));
        }
        let timeout = match hook.timeout() {
            None => None,
            Some(seconds) => match u64::try_from(seconds) {
                Ok(seconds @ 1..) => Some(Duration::from_secs(seconds)),
                _ => return Err(invalid(format!("{stage} hook {}: the timeout must be above 0", path.display()))),
            },
        };
        let path = string(&path.to_string_lossy())?;
        let strings = |list: &Vec<String>| -> Result<Vec<CString>, RuntimeError> {
            list.iter().map(|text| string(text)).collect()
        };
        let mut arguments = hook.args().as_ref().map(strings).transpose()?.unwrap_or_default();
        if arguments.is_empty() {
            arguments.push(path.clone());
        }
        Ok(Self { path, arguments, environment: hook.env().as_ref().map(strings).transpose()?, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hooks(hooks: serde_json::Value) -> Result<Hooks, RuntimeError> {
        Hooks::new(&serde_json::from_value(json!({"ociVersion": "1.2.0", "hooks": hooks})).unwrap())
    }

    #[test]
    fn hooks_are_taken_as_they_are_given() {
        let given = hooks(json!({
            "prestart": [{"path": "/a"}, {"path": "/b", "args": ["x", "y"], "env": ["K=v"], "timeout": 3}],
            "poststop": [],
        }))
        .unwrap();
        let [first, second] = given.prestart.as_slice() else { panic!("{given:?}") };
        assert_eq!((first.arguments.as_slice(), &first.environment), ([c"/a".to_owned()].as_slice(), &None));
        assert_eq!(second.arguments, [c"x".to_owned(), c"y".to_owned()]);
        assert_eq!(second.environment, Some(vec![c"K=v".to_owned()]));
        assert_eq!(second.timeout, Some(Duration::from_secs(3)));
        assert!(given.before_pivot() && !given.is_empty());
        assert!(hooks(json!({})).unwrap().is_empty());
        assert!(!hooks(json!({"startContainer": [{"path": "/a"}]})).unwrap().before_pivot());
    }

    #[test]
    fn hooks_that_cannot_be_right_are_refused() {
        for (hook, words) in [
            (json!({"path": "a"}), "absolute"),
            (json!({"path": "/a", "timeout": 0}), "above 0"),
            (json!({"path": "/a", "timeout": -1}), "above 0"),
            (json!({"path": "/a", "args": ["\0"]}), "null byte"),
        ] {
            let error = hooks(json!({"poststart": [hook]})).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("poststart hook"), "{error}");
        }
    }
}
