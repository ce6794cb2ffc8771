//! Contexts: names for engines, kept where docker keeps them (`~/.docker/contexts`), so that both programs share them.

pub mod store;

use crate::failure::Failure;
use crate::host::HostChoice;
use store::{DEFAULT, Store};

/// The name of the context in force, and what decided it. Docker's order: `--context`; an address in the environment,
/// which means none; `DOCKER_CONTEXT`; what `context use` has set.
pub fn current(named: Option<&str>, environment: &dyn Fn(&str) -> Option<String>, store: &Store) -> String {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    if ["DOZEN_HOST", "DOCKER_HOST"].into_iter().any(|name| variable(name).is_some()) {
        return DEFAULT.to_owned();
    }
    variable("DOCKER_CONTEXT").or_else(|| store.chosen()).unwrap_or_else(|| DEFAULT.to_owned())
}

/// Puts the context's address into the choice, unless the command line names an engine by itself.
pub fn apply(
    mut choice: HostChoice,
    named: Option<&str>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<HostChoice, Failure> {
    if choice.host.is_some() && named.is_some() {
        return Err(Failure::new("conflicting options: cannot specify both --host and --context"));
    }
    if choice.host.is_some() || choice.run_root.is_some() && named.is_none() {
        return Ok(choice);
    }
    let store = Store::of(environment);
    let name = current(named, environment, &store);
    if name != DEFAULT {
        let context = store.get(&name)?;
        if !store.names_of_certificates(&name).is_empty() {
            choice.tls = Some(crate::tcp::files_in(&store.certificates(&name)));
        }
        choice.host =
            Some(context.host().ok_or_else(|| Failure::new(format!("context \"{name}\" has no docker endpoint")))?);
    } else if named.is_some() {
        choice.is_default = true;
    }
    Ok(choice)
}
