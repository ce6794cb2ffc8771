use dozen_settings::Mirror;

use super::*;
use crate::endpoints;

fn settings(directory: &Path) -> RegistrySettings {
    RegistrySettings { certs_dirs: vec![directory.to_owned()], ..RegistrySettings::default() }
}

/// URLs of those that are asked, with their security, and whether they get a password.
fn asked(registry: &str, text: &str, access: Option<Access>) -> Vec<(String, Security, bool)> {
    let file = HostsFile::read(text).unwrap();
    let planned = endpoints(registry, &RegistrySettings::default());
    let decided = decide(registry, planned, file, access);
    let shown = |endpoint: Endpoint| {
        (endpoint.url(endpoint.security != Security::Plain, "x"), endpoint.security, !endpoint.is_mirror)
    };
    decided.into_iter().map(|(endpoint, _)| shown(endpoint)).collect()
}

#[test]
fn who_is_asked_is_decided() {
    use Security::{Any, Plain, Unverified, Verified};
    let pull = Some(Access::Pull);
    type Want<'a> = &'a [(&'a str, Security, bool)];
    let cases: [(&str, &str, Option<Access>, Want<'_>); 14] = [
        ("a.example", "", pull, &[("https://a.example/v2/x", Verified, true)]),
        (
            "docker.io",
            "[host.'https://m.example/hub']\n[host.'http://n.example:5000']",
            pull,
            &[
                ("https://m.example/hub/v2/x?ns=docker.io", Verified, false),
                ("http://n.example:5000/v2/x?ns=docker.io", Plain, false),
                ("https://registry-1.docker.io/v2/x", Verified, true),
            ],
        ),
        (
            "a.example",
            "[host.'https://m.example']\nskip_verify = true\n[host.'https://p/api']\noverride_path = true\ncapabilities = ['resolve']",
            pull,
            &[
                ("https://m.example/v2/x?ns=a.example", Unverified, false),
                ("https://p/api/x?ns=a.example", Verified, false),
                ("https://a.example/v2/x", Verified, true),
            ],
        ),
        // The registry itself, by whatever way, is no stranger.
        (
            "a.example:5000",
            "[host.'http://A.example:5000']",
            pull,
            &[("http://a.example:5000/v2/x", Plain, true), ("https://a.example:5000/v2/x", Verified, true)],
        ),
        (
            "a.example",
            "[host.'https://a.example:443']",
            pull,
            &[("https://a.example:443/v2/x", Verified, true), ("https://a.example/v2/x", Verified, true)],
        ),
        (
            "a.example",
            "[host.'http://a.example']",
            pull,
            &[("http://a.example/v2/x?ns=a.example", Plain, false), ("https://a.example/v2/x", Verified, true)],
        ),
        // Another server in its place is none that was logged in to.
        (
            "a.example",
            "server = 'https://b.example'",
            pull,
            &[("https://b.example/v2/x?ns=a.example", Verified, false)],
        ),
        ("docker.io", "server = 'https://docker.io'", pull, &[("https://registry-1.docker.io/v2/x", Verified, true)]),
        ("localhost:5000", "", pull, &[("https://localhost:5000/v2/x", Any, true)]),
        ("localhost:5000", "ca = 'ca.crt'", pull, &[("https://localhost:5000/v2/x", Verified, true)]),
        (
            "a.example",
            "[host.'https://m']\ncapabilities = ['push']",
            pull,
            &[("https://a.example/v2/x", Verified, true)],
        ),
        // What is new goes to who is said to take it, and else to the server.
        (
            "a.example",
            "[host.'https://m']\n[host.'https://n']\ncapabilities = ['push']\n[host.'https://o']\ncapabilities = ['push']",
            Some(Access::Push),
            &[("https://n/v2/x?ns=a.example", Verified, false)],
        ),
        (
            "a.example",
            "server = 'https://b.example'\nskip_verify = true",
            None,
            &[("https://a.example/v2/x", Verified, true)],
        ),
        ("a.example", "[host.'https://m']", None, &[("https://a.example/v2/x", Verified, true)]),
    ];
    for (registry, text, access, want) in cases {
        let want: Vec<_> = want.iter().map(|(url, security, own)| ((*url).to_owned(), *security, *own)).collect();
        assert_eq!(asked(registry, text, access), want, "{registry} {text}");
    }
}

#[test]
fn mirrors_of_the_settings_stay() {
    let mirror = Mirror { is_secure: true, host: "set.example".into(), path: String::new() };
    let settings = RegistrySettings { mirrors: vec![mirror], ..RegistrySettings::default() };
    let file = HostsFile::read("[host.'https://said.example']").unwrap();
    let decided = decide(HUB, endpoints(HUB, &settings), file, Some(Access::Pull));
    let hosts: Vec<_> = decided.iter().map(|(endpoint, _)| endpoint.host.as_str()).collect();
    assert_eq!(hosts, ["said.example", "set.example", HUB_SERVER]);
}

#[test]
fn no_name_leads_elsewhere() {
    let all = |host: &str| names(host).collect::<Vec<_>>();
    assert_eq!(all("a.example:5000"), ["a.example:5000", "a.example_5000_"]);
    assert_eq!(all("[::1]:5000"), ["[::1]:5000", "[::1]_5000_"]);
    assert_eq!(all("a.example"), ["a.example"]);
    for name in ["..", ".", "", "a/b", "_default"] {
        assert_eq!(all(name), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn directories_are_found_and_read() {
    let place = tempfile::tempdir().unwrap();
    let known = Authorities::anybody();
    let find = |registry: &str| {
        let planned = endpoints(registry, &RegistrySettings::default());
        let refined = refine(planned, Some(Access::Pull), &settings(place.path()), &known);
        let hosts = |all: Vec<Endpoint>| all.into_iter().map(|endpoint| endpoint.host).collect::<Vec<_>>();
        refined.map(hosts).map_err(|error| error.to_string())
    };
    assert_eq!(find("a.example:5000"), Ok(vec!["a.example:5000".to_owned()]));
    let put = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("_default/hosts.toml", "[host.'https://any.example']");
    assert_eq!(find("a.example:5000").unwrap(), ["any.example", "a.example:5000"]);
    put("a.example_5000_/hosts.toml", "[host.'https://old.example']");
    assert_eq!(find("a.example:5000").unwrap(), ["old.example", "a.example:5000"]);
    put("a.example:5000/hosts.toml", "");
    assert_eq!(find("a.example:5000").unwrap(), ["a.example:5000"]);
    assert_eq!(find("docker.io").unwrap(), ["any.example", HUB_SERVER]);

    let named = |found: Result<Vec<String>, String>, words: &str| {
        let error = found.unwrap_err();
        assert!(error.starts_with("cannot use ") && error.contains(words), "{error}");
    };
    put("b.example/hosts.toml", "x = 1");
    named(find("b.example"), "b.example/hosts.toml: unknown key \"x\"");
    put("c.example", "");
    named(find("c.example"), "c.example: it is no directory");
    put("d.example/me.cert", "");
    named(find("d.example"), "d.example: missing key me.key for client certificate me.cert");
    put("e.example/hosts.toml", "ca = 'nothing.crt'");
    named(find("e.example"), "e.example/nothing.crt: No such file");
    put("f.example/hosts.toml", "client = 'both.pem'");
    put("f.example/both.pem", "hunter2");
    named(find("f.example"), "f.example/both.pem: the certificates cannot be used: there is no certificate in it");
}
