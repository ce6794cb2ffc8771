//! Registries that want to know who asks: what proves it is seen nowhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dozen_testbox::{Engine, Machine};
use serde_json::json;

use crate::registry::{Between, Registry, reply};

/// `crypt(3)` of `sesame-open`.
const HASH: &str = "me:$2b$04$9ULVbFsTw5Nq1NZDdtLuPOjZ0qqRPXpuo9rf9/CTesD895H0xI756\n";
const PASSWORD: &str = "sesame-open";
/// RFC 7617, of both.
const PAIR: &str = "bWU6c2VzYW1lLW9wZW4=";

pub fn log_in(machine: &Machine, host: &str, pair: &str) {
    let directory = machine.directory().join("docker-config");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.json"), json!({ "auths": { host: { "auth": pair } } }).to_string()).unwrap();
}

pub fn check_nobody_said_it(engine: &Engine<'_>, said: &[String]) {
    for text in said.iter().chain([&engine.log()]) {
        for secret in [PASSWORD, PAIR, "good.token"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

/// A registry with `box:1`, which wants name and password.
pub fn guarded(machine: &Machine) -> Registry<'_> {
    let open = Registry::with(machine, 5001, "");
    open.fill("busybox", "box:1");
    drop(open);
    let file = machine.directory().join("htpasswd");
    std::fs::write(&file, HASH).unwrap();
    let guarded = format!("auth: {{ htpasswd: {{ realm: r, path: {} }} }}", file.display());
    Registry::with(machine, 5001, &guarded)
}

#[test]
fn a_password_opens_a_registry() {
    let machine = Machine::new();
    let registry = guarded(&machine);
    let engine = machine.engine();
    let host = format!("127.0.0.1:{}", registry.port);
    let name = format!("{host}/box:1");
    let refused = engine.dozen(&["pull", &name]).expect(1);
    assert!(refused.err.contains("no basic auth credentials"), "{}", refused.err);
    log_in(&machine, &host, "bWU6d3Jvbmc=");
    let wrong = engine.dozen(&["pull", &name]).expect(1);
    assert!(wrong.err.contains("unauthorized: authentication required"), "{}", wrong.err);
    log_in(&machine, &host, PAIR);
    let debugged = engine.dozen(&["-D", "pull", &name]).expect(0);
    engine.dozen(&["run", "--rm", &name, "true"]).expect(0);
    check_nobody_said_it(&engine, &[refused.err, wrong.err, debugged.err, debugged.out]);
    // As people do it.
    std::fs::remove_file(machine.directory().join("docker-config/config.json")).unwrap();
    engine.dozen(&["rmi", &name]).expect(0);
    let login = ["login", "-u", "me", "--password-stdin", &host];
    let dozen = dozen_testbox::dozen_program();
    let refused = machine.run_with(&dozen, &login, b"wrong\n", &[]).expect(1);
    assert!(
        refused.err.contains(&format!("login attempt to {host} failed with status: 401 Unauthorized")),
        "{refused:?}"
    );
    engine.dozen(&["pull", &name]).refuses(1, &["no basic auth credentials"]);
    let done = machine.run_with(&dozen, &login, format!("{PASSWORD}\n").as_bytes(), &[]).expect(0);
    assert_eq!(done.out, "Login Succeeded\n");
    assert!(done.err.contains("WARNING! Your credentials are stored unencrypted in"), "{}", done.err);
    engine.dozen(&["login", &host]).expect(0);
    engine.dozen(&["pull", &name]).expect(0);
    assert_eq!(engine.dozen(&["logout", &host]).text(), format!("Removing login credentials for {host}\n"));
    assert_eq!(engine.dozen(&["logout", &host]).text(), format!("Not logged in to {host}\n"));
    engine.docker(&["login", "-u", "me", "-p", PASSWORD, &host]).expect(0);
    check_nobody_said_it(&engine, &[done.err, done.out]);
    // docker's own command line sends it as well.
    engine.dozen(&["rmi", &name]).expect(0);
    engine.docker(&["pull", &name]).expect(0);
    check_nobody_said_it(&engine, &[]);
}

#[test]
fn on_a_terminal_a_password_is_typed_and_not_seen() {
    let machine = Machine::new();
    let open = Registry::with(&machine, 5001, "");
    open.fill("busybox", "box:1");
    drop(open);
    let file = machine.directory().join("htpasswd");
    std::fs::write(&file, HASH).unwrap();
    let registry =
        Registry::with(&machine, 5001, &format!("auth: {{ htpasswd: {{ realm: r, path: {} }} }}", file.display()));
    let engine = machine.engine();
    let host = format!("127.0.0.1:{}", registry.port);
    let dozen = dozen_testbox::dozen_program();
    let mut screen = machine.screen(&dozen, &["login", &host]);
    screen.shows("Username: ");
    screen.type_in("me\r");
    screen.shows("Password: ");
    screen.type_in("sesame-x\x7fopen\r");
    let (code, rest) = screen.end();
    assert!(code == 0 && rest.contains("Login Succeeded") && !rest.contains("sesame"), "{code} {rest}");
    // Its layer has one line, which ends as it has to.
    let name = format!("{host}/box:1");
    let (code, rest) = machine.screen(&dozen, &["pull", &name]).end();
    assert!(code == 0 && rest.contains(": Pull complete") && rest.contains("Downloaded newer image"), "{rest}");
    let mut screen = machine.screen(&dozen, &["login", "-u", "me", &host]);
    screen.shows("Password: ");
    screen.type_in("\x03");
    let (code, rest) = screen.end();
    assert!(code == 1 && rest.contains("the login was given up"), "{rest}");
    check_nobody_said_it(&engine, &[]);
}

#[test]
fn a_token_opens_a_registry() {
    let machine = Machine::new();
    let registry = Registry::start(&machine);
    registry.fill("busybox", "web:1");
    let tokens = Arc::new(AtomicUsize::new(0));
    let count = tokens.clone();
    let between = Between::start(&machine, registry.port, move |asked| {
        let host = asked.field("host").unwrap();
        if asked.path.starts_with("/token") {
            count.fetch_add(1, Ordering::SeqCst);
            assert!(asked.path.contains("scope=repository%3Aweb%3Apull"), "{}", asked.path);
            return match asked.field("authorization") {
                Some(sent) if sent == format!("Basic {PAIR}") => {
                    reply("200 OK", &[], br#"{"token":"good.token","expires_in":300}"#)
                }
                // It says what it was told.
                sent => reply("401 Unauthorized", &[], format!(r#"{{"details":"not {sent:?}"}}"#).as_bytes()),
            };
        }
        if asked.field("authorization") == Some("Bearer good.token") {
            return asked.forward();
        }
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:web:pull\"");
        reply("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"")
    });
    let engine = machine.engine();
    let name = format!("{}/web:1", between.host);
    let nobody = engine.dozen(&["pull", &name]).expect(1);
    assert!(nobody.err.contains("the token service"), "{}", nobody.err);
    log_in(&machine, &between.host, "bWU6d3Jvbmc=");
    let wrong = engine.dozen(&["pull", &name]).expect(1);
    assert!(!wrong.err.contains("d3Jvbmc"), "{}", wrong.err);
    log_in(&machine, &between.host, PAIR);
    let before = tokens.load(Ordering::SeqCst);
    let pulled = engine.dozen(&["pull", &name]).expect(0);
    assert_eq!(tokens.load(Ordering::SeqCst), before + 1, "one token is for all layers");
    engine.dozen(&["pull", &name]).expect(0);
    assert_eq!(tokens.load(Ordering::SeqCst), before + 1, "and for the next pull");
    check_nobody_said_it(&engine, &[nobody.err, wrong.err, pulled.err, pulled.out]);
    between.stop(&machine);
}
