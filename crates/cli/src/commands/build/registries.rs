//! Registries that a build may have to ask, by its Dockerfile and by its caches: what proves who we are for them goes along,
//! and for no others. Of a Dockerfile that the engine has to find itself nothing is known here, so its are told nothing.

use std::collections::BTreeSet;

use dozen_dockerfile::named;
use dozen_dockerfile::scope::Given;
use dozen_model::Reference;

use super::contexts::{Contexts, Named};
use crate::context::store::Store;
use crate::credentials::{self, RegistryAuth};
use crate::failure::Failure;

/// For the registries that this Dockerfile names, and for those of caches. A file that cannot be read is the engine's to
/// refuse.
pub(super) fn credentials(
    text: Option<&str>,
    given: &Given,
    contexts: &Contexts,
    of_caches: &BTreeSet<String>,
) -> Result<Option<RegistryAuth>, Failure> {
    let mut registries = text.map(|text| registries(text, given, contexts)).unwrap_or_default();
    registries.extend(of_caches.iter().cloned());
    let store = Store::of(&|name| std::env::var(name).ok());
    credentials::of_registries(store.directory(), registries.iter().map(String::as_str))
}

fn registries(text: &str, given: &Given, contexts: &Contexts) -> BTreeSet<String> {
    let Ok(file) = dozen_dockerfile::parse(text) else { return BTreeSet::new() };
    let Ok(images) = named::images(&file, given, contexts) else { return BTreeSet::new() };
    let meant = |name: &String| match named::find(contexts, name) {
        None => Some(name.clone()),
        Some(Named::Image(image)) => Some(image.clone()),
        Some(_) => None,
    };
    let reference = |name: String| name.parse::<Reference>().ok();
    images.iter().filter_map(meant).filter_map(reference).map(|image| image.registry().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_are_asked_that_the_file_names() {
        let given = |target: &str, base: &str| Given {
            arguments: [("BASE".to_owned(), base.to_owned())].into(),
            target_stage: target.to_owned(),
            ..Given::default()
        };
        let contexts: Contexts = [
            ("here.example/a".to_owned(), Named::Unused),
            ("there".to_owned(), Named::Image("far.example/b".to_owned())),
        ]
        .into();
        let file = "ARG BASE=debian\nFROM ${BASE} AS base\nRUN --mount=from=tools.example/t,target=/t true\n\
                    FROM base AS made\nCOPY --from=files.example:5000/f:1 /a /b\n\
                    FROM unwanted.example/x AS other\nFROM here.example/a AS h\nFROM there AS t\nFROM scratch AS s\n";
        for (target, base, want) in [
            ("base", "", "docker.io tools.example"),
            ("made", "private.example/p", "files.example:5000 private.example tools.example"),
            ("h", "", ""),
            ("t", "", "far.example"),
            ("s", "", ""),
            ("nothing", "", ""),
        ] {
            let base = if base.is_empty() { "debian" } else { base };
            let found = registries(file, &given(target, base), &contexts);
            assert_eq!(found.into_iter().collect::<Vec<_>>().join(" "), want, "{target} {base}");
        }
        assert!(registries("FROM\n", &given("", "a"), &contexts).is_empty());
    }
}
