//! Rights for each repository, by the real clients: skopeo, docker's command line and ours log in, push and pull by tokens,
//! and what one may not is refused in words.

use std::path::PathBuf;

use dozen_testbox::{Done, Machine, dozen_program, image_archive, until};
use rustix::process::Signal;

use crate::server::{HOST, Server, check, curl, root};

/// `htpasswd -nbB -C 4 ann secret`, and of eve with the same.
const PASSWORDS: &str = "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n\
                         eve:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
const RULES: &str = r#"
[groups]
developers = ["ann"]

[[rule]]
repositories = ["public/**"]
pull = ["@anyone"]
push = ["@developers"]

[[rule]]
repositories = ["team/**"]
push = ["@developers"]
delete = ["@developers"]
"#;

struct Files {
    passwords: PathBuf,
    rights: PathBuf,
}

fn files(machine: &Machine) -> Files {
    let (passwords, rights) = (machine.directory().join("passwords"), machine.directory().join("rights.toml"));
    std::fs::write(&passwords, PASSWORDS).unwrap();
    std::fs::write(&rights, RULES).unwrap();
    Files { passwords, rights }
}

fn start<'a>(machine: &'a Machine, files: &Files) -> Server<'a> {
    let (passwords, rights) = (files.passwords.to_str().unwrap(), files.rights.to_str().unwrap());
    Server::start(machine, &["-D", "--htpasswd", passwords, "--rights", rights])
}

fn skopeo(machine: &Machine, user: Option<&str>, image: &str, name: &str) -> Done {
    let (source, target) =
        (format!("oci-archive:{}", image_archive(image).display()), format!("docker://{HOST}/{name}"));
    let pair = user.map(|user| format!("{user}:secret"));
    let known = pair.as_ref().map_or(vec!["--dest-no-creds"], |pair| vec!["--dest-creds", pair]);
    let copy = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    machine.run("skopeo", &[&copy[..], &known, &[&source, &target]].concat())
}

/// In skopeo's words, which are others for a blob and for a manifest.
fn is_refused(done: &Done) -> bool {
    let words =
        ["403 (Forbidden)", "requested access to the resource is denied", "authentication required", "unauthorized"];
    done.code != 0 && words.iter().any(|words| done.err.contains(words))
}

#[test]
fn skopeo_our_engine_and_docker_push_and_pull_by_tokens() {
    let machine = Machine::new();
    let files = files(&machine);
    let server = start(&machine, &files);
    skopeo(&machine, Some("ann"), "busybox", "public/box:1").expect(0);
    skopeo(&machine, Some("ann"), "busybox", "team/box:1").expect(0);
    let refused = skopeo(&machine, Some("eve"), "busybox", "team/box:2");
    assert!(is_refused(&refused), "{refused:?}");
    let refused = skopeo(&machine, None, "busybox", "team/box:2");
    assert!(is_refused(&refused), "{refused:?}");
    // What is open to everyone is pulled without a login.
    let engine = machine.engine();
    let (public, team) = (format!("{HOST}/public/box:1"), format!("{HOST}/team/box:1"));
    engine.dozen(&["run", "--rm", &public, "true"]).expect(0);
    let refused = engine.dozen(&["pull", &team]).expect(1);
    assert!(refused.err.contains("log in to 127.0.0.1:5000 first"), "{}", refused.err);
    // By our command line, and by docker's.
    let log_in = |program: &str, user: &str| {
        let run =
            |arguments: &[&str]| if program == "docker" { engine.docker(arguments) } else { engine.dozen(arguments) };
        run(&["login", "-u", user, "-p", "secret", HOST])
    };
    let wrong = engine.dozen(&["login", "-u", "ann", "-p", "wrong", HOST]).expect(1);
    log_in("dozen", "ann").expect(0);
    engine.dozen(&["pull", &team]).expect(0);
    let mine = format!("{HOST}/team/mine:1");
    engine.dozen(&["tag", &public, &mine]).expect(0);
    engine.dozen(&["push", &mine]).expect(0);
    engine.dozen(&["logout", HOST]).expect(0);
    log_in("docker", "ann").expect(0);
    let theirs = format!("{HOST}/team/theirs:1");
    engine.docker(&["tag", &public, &theirs]).expect(0);
    engine.docker(&["push", &theirs]).expect(0);
    engine.docker(&["pull", &mine]).expect(0);
    log_in("dozen", "eve").expect(0);
    let denied = engine.dozen(&["push", &mine]).expect(1);
    assert!(denied.err.contains("denied: requested access to the resource is denied"), "{}", denied.err);
    let denied_pull = engine.dozen(&["pull", &theirs]).expect(1);
    assert!(denied_pull.err.contains("denied: requested access to the resource is denied"), "{}", denied_pull.err);
    // Who may delete, and who may not.
    let delete = |user: &str| {
        let pair = format!("{user}:secret");
        machine.run("skopeo", &["delete", "--tls-verify=false", "--creds", &pair, &format!("docker://{mine}")])
    };
    assert!(delete("eve").code != 0);
    delete("ann").expect(0);
    // What proves who somebody is stands in no log.
    let said = [server.said(), engine.log(), wrong.err, denied.err, denied_pull.err];
    for text in &said {
        for secret in ["secret\"", "YW5uOnNlY3JldA", "eyJ0eXAi", "password=secret"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(server.said().contains("a token for Some(\"ann\")"), "the log is the one that could have it");
    drop(server);
    check(&machine).expect(0);
}

#[test]
fn files_are_read_again_and_tokens_outlive_the_server() {
    let machine = Machine::new();
    let files = files(&machine);
    let server = start(&machine, &files);
    let token = || {
        let form = "grant_type=password&service=dozen-registry&client_id=curl&username=ann&password=secret&access_type=offline";
        let answer = curl(&machine, &["--data", form, &format!("http://{HOST}/v2/token")]).text();
        let rest = answer.split_once("\"refresh_token\":\"").unwrap_or_else(|| panic!("{answer}")).1;
        rest.split_once('"').unwrap().0.to_owned()
    };
    let refresh = token();
    let again = |token: &str| {
        let form = format!("grant_type=refresh_token&service=dozen-registry&client_id=curl&refresh_token={token}");
        curl(&machine, &["--data", &form, &format!("http://{HOST}/v2/token")]).text()
    };
    assert!(again(&refresh).contains("200 OK"));
    server.signal(Signal::TERM);
    assert!(server.ended());
    let server = start(&machine, &files);
    assert!(again(&refresh).contains("200 OK"));
    let key = root(&machine).join("token.key");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&key).unwrap());
    assert_eq!(mode & 0o7777, 0o600);
    // A file that is wrong changes nothing and is named; one that is right counts.
    std::fs::write(&files.rights, "[[rule]]\nrepositories = [\"a\"]\nread = [\"ann\"]\n").unwrap();
    server.signal(Signal::HUP);
    until("the rights are refused", || server.said().contains("line 3: unknown field `read`").then_some(()));
    skopeo(&machine, Some("ann"), "busybox", "team/box:1").expect(0);
    std::fs::write(&files.rights, "[[rule]]\nrepositories = [\"**\"]\npull = [\"@anyone\", \"bob\"]\n").unwrap();
    server.signal(Signal::HUP);
    until("the rights are read", || server.said().contains("have been read again").then_some(()));
    assert!(server.said().contains("the rights name \"bob\""));
    let refused = skopeo(&machine, Some("ann"), "busybox", "team/box:2");
    assert!(is_refused(&refused), "{refused:?}");
    // Without the key everyone logs in again.
    drop(server);
    std::fs::remove_file(&key).unwrap();
    let server = start(&machine, &files);
    assert!(again(&refresh).contains("401 Unauthorized"));
    drop(server);
    let rights = files.rights.to_str().unwrap();
    let serve = |arguments: &[&str]| machine.run(dozen_program(), &[&["registry", "serve"], arguments].concat());
    serve(&["--rights", rights]).refuses(2, &["--htpasswd"]);
    let passwords = files.passwords.to_str().unwrap();
    serve(&["--htpasswd", passwords, "--rights", "/nowhere"]).refuses(1, &["cannot read the rights in /nowhere"]);
}
