//! Registries that want to know who writes: what proves it is told to nobody else, and is seen nowhere.

use std::sync::{Arc, Mutex};

use dozen_testbox::{Engine, Machine};
use serde_json::json;

use crate::between::{Between, reply};
use crate::registry::Registry;

/// `crypt(3)` of `sesame-open`.
const HASH: &str = "me:$2b$04$9ULVbFsTw5Nq1NZDdtLuPOjZ0qqRPXpuo9rf9/CTesD895H0xI756\n";
const PASSWORD: &str = "sesame-open";
/// RFC 7617, of both.
const PAIR: &str = "bWU6c2VzYW1lLW9wZW4=";

fn log_in(machine: &Machine, host: &str, pair: &str) {
    let directory = machine.directory().join("docker-config");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.json"), json!({ "auths": { host: { "auth": pair } } }).to_string()).unwrap();
}

fn check_nobody_said_it(engine: &Engine<'_>, said: &[String]) {
    for text in said.iter().chain([&engine.log()]) {
        for secret in [PASSWORD, PAIR, "token.1", "token.2"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn a_password_lets_one_write() {
    let machine = Machine::new();
    let file = machine.directory().join("htpasswd");
    std::fs::write(&file, HASH).unwrap();
    let guarded = format!("auth: {{ htpasswd: {{ realm: r, path: {} }} }}", file.display());
    let registry = Registry::with(&machine, 5001, &guarded);
    let engine = machine.engine();
    engine.load("busybox");
    let host = format!("127.0.0.1:{}", registry.port);
    let name = format!("{host}/box:1");
    engine.dozen(&["tag", "busybox", &name]).expect(0);
    let nobody = engine.dozen(&["push", &name]).expect(1);
    assert!(nobody.err.contains("no basic auth credentials"), "{}", nobody.err);
    log_in(&machine, &host, "bWU6d3Jvbmc=");
    let wrong = engine.dozen(&["push", &name]).expect(1);
    assert!(wrong.err.contains("unauthorized: authentication required"), "{}", wrong.err);
    assert!(
        wrong.err.contains(&format!("hint: log in as somebody who may write there: dozen login {host}")),
        "{}",
        wrong.err
    );
    std::fs::remove_file(machine.directory().join("docker-config/config.json")).unwrap();
    let login = ["login", "-u", "me", "--password-stdin", &host];
    machine.run_with(dozen_testbox::dozen_program(), &login, format!("{PASSWORD}\n").as_bytes(), &[]).expect(0);
    let pushed = engine.dozen(&["-D", "push", &name]).expect(0);
    assert!(pushed.out.contains(": Pushed\n"), "{}", pushed.out);
    let again = engine.docker(&["push", &name]).expect(0);
    assert!(again.out.contains(": Layer already exists\n"), "{}", again.out);
    // A list goes as who is logged in, from one repository to another.
    let list = format!("{host}/lists/all:1");
    engine.dozen(&["manifest", "create", &list, &name]).expect(0);
    engine.dozen(&["manifest", "push", &list]).expect(0);
    engine.dozen(&["logout", &host]).expect(0);
    let refused = engine.dozen(&["manifest", "push", &list]).expect(1);
    assert!(refused.err.contains("no basic auth credentials"), "{}", refused.err);
    check_nobody_said_it(&engine, &[nobody.err, wrong.err, pushed.out, pushed.err, again.out, again.err]);
}

#[test]
fn a_token_is_for_what_is_written_and_is_fetched_anew() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    let scopes: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked_for = scopes.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let host = asked.field("host").unwrap();
        if asked.path.starts_with("/token") {
            let mut scopes = asked_for.lock().unwrap();
            scopes.push(asked.path.clone());
            let pair = format!("Basic {PAIR}");
            return match asked.field("authorization") == Some(pair.as_str()) {
                true => {
                    let token = format!(r#"{{"token":"token.{}","expires_in":300}}"#, scopes.len());
                    reply("200 OK", &[], token.as_bytes())
                }
                false => reply("401 Unauthorized", &[], b"{}"),
            };
        }
        // The first token is called back when a layer has gone half way.
        let sent = asked.field("authorization").unwrap_or_default();
        if sent == "Bearer token.2" || (sent == "Bearer token.1" && !asked.is_layer()) {
            return asked.forward();
        }
        let challenge =
            format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:web:pull,push\"");
        asked.body().ok()?;
        reply("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"")
    });
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{}/web:1", between.host);
    engine.dozen(&["tag", "busybox", &name]).expect(0);
    log_in(&machine, &between.host, PAIR);
    let pushed = engine.dozen(&["push", &name]).expect(0);
    let scopes = scopes.lock().unwrap().clone();
    assert_eq!(scopes.len(), 2, "{scopes:?}");
    assert!(scopes.iter().all(|path| path.contains("scope=repository%3Aweb%3Apull%2Cpush")), "{scopes:?}");
    check_nobody_said_it(&engine, &[pushed.err, pushed.out]);
    between.stop(&machine);
}

#[test]
fn who_is_named_by_a_registry_is_told_no_password() {
    let machine = Machine::new();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = told.clone();
    let stranger = Between::start(&machine, 0, move |asked| {
        asked.body().ok()?;
        heard.lock().unwrap().push(format!("{} {}\n{}", asked.method, asked.path, asked.head));
        reply("201 Created", &[], b"")
    });
    let elsewhere = format!("http://{}/take?signed=1", stranger.host);
    let registry = Between::start(&machine, 0, move |asked| {
        asked.body().ok()?;
        let pair = format!("Basic {PAIR}");
        if asked.field("authorization") != Some(pair.as_str()) {
            return reply("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b"");
        }
        match asked.method.as_str() {
            "HEAD" => reply("404 Not Found", &[], b""),
            "POST" => reply("202 Accepted", &[("Location", &elsewhere)], b""),
            _ => reply("201 Created", &[], b""),
        }
    });
    let engine = machine.engine();
    engine.load("busybox");
    let name = format!("{}/web:1", registry.host);
    engine.dozen(&["tag", "busybox", &name]).expect(0);
    log_in(&machine, &registry.host, PAIR);
    let pushed = engine.dozen(&["push", &name]).expect(0);
    let told = told.lock().unwrap().clone();
    assert!(
        told.len() >= 2 && told.iter().all(|head| head.starts_with("PUT /take?signed=1&digest=sha256%3A")),
        "{told:?}"
    );
    assert!(told.iter().all(|head| !head.to_ascii_lowercase().contains("authorization")), "{told:?}");
    check_nobody_said_it(&engine, &[pushed.err, pushed.out]);
    registry.stop(&machine);
    stranger.stop(&machine);
}
