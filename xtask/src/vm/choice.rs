//! Which tests are run in the machine. Pure.

use super::report::Test;
use super::{Options, Security};
use crate::suite::{REGISTRY_SOAK, SOAK};

/// The tests of `--smoke`: of each kind of edge that Debian's kernel, systemd and cgroup v2 could make different, what
/// meets it in the shortest time. A binary, and how the names of its tests begin.
const SMOKE: &[(&str, &str)] = &[
    // Limits, devices and mounts, judged by runc and crun.
    ("runtime", "device_filter::"),
    ("runtime::runtime", ""),
    // Scopes of systemd's.
    ("runtime::systemd", ""),
    // nftables and netlink of an older kernel.
    ("network::edges", ""),
    // The product: its life under systemd, and what people do most.
    ("testbox::systemd", "vm_only_"),
    ("testbox::systemd", "installed::"),
    ("testbox::box", ""),
    ("testbox::run", ""),
    ("testbox::survival", ""),
    // Control files of version 2, when a container starts and while it runs; names, through nftables and dead keepers.
    ("testbox::limits", "limits_"),
    ("testbox::names", "containers_of_a_network"),
    // Layers, volumes and binds that are idmapped.
    ("testbox::userns", "a_container_has_users"),
    ("testbox::userns", "what_a_container_has_anyway"),
    ("testbox::escapes", ""),
    ("testbox::escapes_runtime", "n"),
    ("testbox::hostile", ""),
    // Archives that mean ill, but for those whose size is what is hostile.
    ("image", "tests::hostile::attributes"),
    ("image", "tests::hostile::documents"),
    ("image", "tests::hostile::headers"),
    ("image", "tests::hostile::names"),
    ("image", "tests::hostile::whiteouts"),
    ("image", "tests::judge"),
    // Overlays without lowerdir+, and cgroups in cgroups.
    ("testbox::layers", ""),
    ("testbox::applications", "dozen_in_dozen"),
];

/// Of the libraries' own tests, those that meet the kernel: a library, and how the names begin. Decisions are the same on
/// every machine, and slow on this one.
const LIBRARIES: &[(&str, &str)] = &[("image", ""), ("runtime", "device_filter::")];
/// What cannot be run there: node, the other engines and a browser are no part of that machine.
const NOT_THERE: &[&str] = &["testbox::node_clients", "testbox::registry_clients", "testbox::registry_page"];
/// How the names of tests begin that no other machine can run.
pub const HERE_ONLY: &str = "vm_only_";
/// Of those, they that one module's rules are for.
const OF_MODULES: [(Security, &str); 2] = [(Security::Apparmor, "apparmor_"), (Security::Selinux, "selinux_")];

/// Chooses from a binary's tests; each has a name, and whether it is ignored by default.
pub fn choose(binary: &str, tests: &[(String, bool)], options: &Options) -> Vec<Test> {
    let listed =
        |list: &[(&str, &str)], name: &str| list.iter().any(|(of, begin)| *of == binary && name.starts_with(begin));
    let wanted = |(name, ignored): &&(String, bool)| {
        let is_soak = name.rsplit("::").next() == Some(SOAK);
        if options.soak.is_some() || is_soak {
            return options.soak.is_some() && is_soak;
        }
        let here = name.rsplit("::").next().unwrap_or(name).strip_prefix(HERE_ONLY);
        let has_module = |rest: &str| {
            OF_MODULES.iter().all(|(module, begin)| !rest.starts_with(begin) || *module == options.security)
        };
        here.map_or(options.heavy || !ignored, has_module)
            && (binary.contains("::") || listed(LIBRARIES, name))
            && !NOT_THERE.contains(&binary)
            && name != REGISTRY_SOAK
            && (!options.smoke || listed(SMOKE, name))
            // The corpora of the fuzzers lie in the work tree, which is not there; and they are decisions.
            && !name.starts_with("fuzzing::")
            && (options.binaries.is_empty() || options.binaries.iter().any(|word| is_named(binary, word)))
            && options.filter.as_ref().is_none_or(|word| name.contains(word.as_str()))
    };
    let test = |(name, _): &(String, bool)| Test { binary: binary.to_owned(), name: name.clone() };
    tests.iter().filter(wanted).map(test).collect()
}

/// `testbox::run` is named by itself, by `run`, and by `testbox`.
fn is_named(binary: &str, word: &str) -> bool {
    binary == word || binary.split("::").any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_can_run_is_run() {
        let names = ["vm_only_it_works", "labels::vm_only_apparmor_confines", "labels::vm_only_selinux_confines"];
        let tests = names.map(|name| (name.to_owned(), true));
        let chosen = |security: Security| -> Vec<String> {
            let options = Options { security, heavy: true, ..Options::default() };
            choose("runtime::runtime", &tests, &options).into_iter().map(|test| test.name).collect()
        };
        assert_eq!(chosen(Security::Apparmor), names[..2]);
        assert_eq!(chosen(Security::Selinux), [names[0], names[2]]);
    }

    fn check(options: Options, expected: &[&str]) {
        let tests = [("a_run".to_owned(), false), ("a_database".to_owned(), true)];
        let chosen: Vec<String> = ["testbox::run", "testbox::crash", "runtime::runtime", "runtime"]
            .into_iter()
            .flat_map(|binary| choose(binary, &tests, &options))
            .map(|test| format!("{} {}", test.binary, test.name))
            .collect();
        assert_eq!(chosen, expected, "{options:?}");
    }

    #[test]
    fn an_hour_is_chosen_by_its_own_word_alone() {
        let tests = [(format!("soak::{SOAK}"), true), ("kills::a_kill".to_owned(), false)];
        let chosen = |options: Options| -> Vec<String> {
            choose("testbox::crash", &tests, &options).into_iter().map(|test| test.name).collect()
        };
        assert_eq!(chosen(Options { soak: Some(5), ..Options::default() }), [tests[0].0.as_str()]);
        assert_eq!(chosen(Options { heavy: true, ..Options::default() }), ["kills::a_kill"]);
        let registry = [(REGISTRY_SOAK.to_owned(), true)];
        assert!(choose("testbox::registry_soak", &registry, &Options { heavy: true, ..Options::default() }).is_empty());
    }

    #[test]
    fn words_choose_tests() {
        let default = Options::default;
        check(default(), &["testbox::run a_run", "testbox::crash a_run", "runtime::runtime a_run"]);
        check(Options { binaries: vec!["run".into()], ..default() }, &["testbox::run a_run"]);
        check(
            Options { binaries: vec!["testbox".into()], ..default() },
            &["testbox::run a_run", "testbox::crash a_run"],
        );
        check(
            Options { binaries: vec!["run".into(), "runtime".into()], heavy: true, ..default() },
            &["testbox::run a_run", "testbox::run a_database", "runtime::runtime a_run", "runtime::runtime a_database"],
        );
        check(Options { filter: Some("data".into()), ..default() }, &[]);
        check(Options { smoke: true, ..default() }, &["testbox::run a_run", "runtime::runtime a_run"]);
    }
}
