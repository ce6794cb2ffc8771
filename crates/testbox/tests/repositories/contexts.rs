//! Contexts that the engine fetches: `dozen build URL`, and `POST /build?remote=` of other clients.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use dozen_testbox::{Machine, NEIGHBOUR_ADDRESS, Side, docker_program, dozen_program};

use super::server::{GitDaemon, Work, answer, serve};
use super::{repositories, with_busybox};

/// A tar archive of files, as they are made by tar(1).
fn archive(machine: &Machine, flags: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let cell = machine.directory().join("packed");
    let _ = std::fs::remove_dir_all(&cell);
    for (name, text) in files {
        let path = cell.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let done = std::process::Command::new("tar").arg(flags).arg("-C").arg(&cell).arg(".").output().unwrap();
    assert!(done.status.success());
    done.stdout
}

/// A request of any client's: the status and all that is answered.
fn post(machine: &Machine, query: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    let request =
        format!("POST /v1.45/build?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    (all[9..12].parse().unwrap(), all)
}

#[test]
fn a_repository_is_a_context() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let root = repositories(&machine);
    let app = Work::new(&root, "app.git");
    app.file("Dockerfile", "FROM busybox\nCOPY . /a/\nRUN ls -a /a >/list\nCMD cat /list\n");
    app.file(".dockerignore", "secret\n");
    app.file("secret", "s\n");
    app.file("deploy/web.Dockerfile", "FROM busybox\nCOPY text /text\nCMD cat /text\n");
    app.file("deploy/text", "one\n");
    app.link("deploy/out", "../secret");
    app.commit();
    app.git(&["tag", "v1"]);
    app.file("deploy/text", "two\n");
    app.commit();
    let _daemon = GitDaemon::new(&machine, &root);
    let url = format!("git://{NEIGHBOUR_ADDRESS}/app.git");
    let run = |image: &str| engine.dozen(&["run", "--rm", "--network", "none", image]).text();

    engine.dozen(&["build", "-t", "whole", &url]).expect(0);
    assert_eq!(run("whole"), ".\n..\n.dockerignore\nDockerfile\ndeploy\n");
    for (part, want) in [("#v1:deploy", "one\n"), ("#:deploy", "two\n"), ("?tag=v1&subdir=deploy", "one\n")] {
        engine.dozen(&["build", "-t", "part", "-f", "web.Dockerfile", &format!("{url}{part}")]).expect(0);
        assert_eq!(run("part"), want, "{part}");
    }
    // With .git, for who asks for it; and with a Dockerfile that is not in it.
    let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
    engine.dozen(&[&["build", "-t", "kept"], &keep[..], &[url.as_str()]].concat()).expect(0);
    assert!(run("kept").lines().any(|line| line == ".git"));
    let dockerfile = b"FROM busybox\nCOPY . /b/\nCMD ls /b\n";
    machine.run_with(dozen_program(), &["build", "-t", "given", "-f", "-", &url], dockerfile, &[]).expect(0);
    assert_eq!(run("given"), "Dockerfile\ndeploy\n");

    let refuses = |words: &[&str], says: &[&str]| engine.dozen(&[&["build"], words].concat()).refuses(1, says);
    refuses(&[&format!("{url}#v2")], &["repository does not contain ref v2"]);
    refuses(&[&format!("{url}#v1:none")], &["failed to open subdir none"]);
    // What leads out of the part leads nowhere.
    let out = format!("{url}#:deploy");
    refuses(&["-f", "out", &out], &["failed to read dockerfile: open out: no such file or directory"]);
    refuses(&["git@example.org:a/b.git"], &["repositories by ssh are not built yet"]);
    refuses(&["--check", &url], &["checking a remote build context is not built yet"]);
    refuses(&["git://localhost/app.git"], &["localhost is 127.0.0.1, which is this host itself"]);

    // Docker's own clients: the classic builder hands a repository's directory on, and the API takes its name.
    let (status, said) = post(&machine, &format!("remote={url}%23v1:deploy&dockerfile=web.Dockerfile&t=raw"));
    assert!(status == 200 && said.contains("Successfully tagged raw:latest"), "{said}");
    assert_eq!(run("raw"), "one\n");
    let (status, said) = post(&machine, &format!("remote={url}%23nowhere"));
    assert!(status == 400 && said.contains("repository does not contain ref nowhere"), "{said}");
    for remote in ["file:///etc/x.git", "/etc", "client-session"] {
        let (status, said) = post(&machine, &format!("remote={remote}"));
        assert!(status == 400 && said.contains("could not be recognized as URL"), "{said}");
    }
}

#[test]
fn a_file_by_http_is_a_context() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let files = [
        ("Dockerfile", "FROM busybox\nCOPY text /\nCMD cat /text\n"),
        ("text", "packed\n"),
        ("web/D", "FROM busybox\nCMD echo web\n"),
    ];
    let plain = archive(&machine, "-c", &files);
    let packed = archive(&machine, "-cz", &files);
    let log = serve(&machine, Side::Neighbour, move |request| match request.path.as_str() {
        "/plain" => answer("200 OK", &["Content-Type: application/x-tar"], &plain),
        "/packed.tar.gz" => answer("200 OK", &["Content-Type: text/plain"], &packed),
        "/Dockerfile" => {
            answer("200 OK", &["Content-Type: text/plain; charset=utf-8"], b"FROM busybox\nCMD echo alone\n")
        }
        "/files" => answer("200 OK", &["Content-Type: text/plain"], b"FROM busybox\nCOPY a /\n"),
        "/nameless" => answer("200 OK", &[], b"FROM busybox\nCMD echo nameless\n"),
        "/page" => answer("200 OK", &["Content-Type: text/html"], b"<html>"),
        "/nothing" => answer("200 OK", &["Content-Type: text/plain"], b""),
        "/bytes" => answer("200 OK", &["Content-Type: text/plain"], b"FROM \0\xff"),
        "/cut" => answer("200 OK", &["Content-Type: application/x-tar"], &plain[..700]),
        "/away" => answer("302 Found", &["Location: http://127.0.0.1:8000/x"], b""),
        _ => answer("404 Not Found", &[], b""),
    });
    let server = format!("http://{NEIGHBOUR_ADDRESS}:8000");
    let run = |image: &str| engine.dozen(&["run", "--rm", "--network", "none", image]).text();
    for (path, flags, want) in [
        ("plain", &[][..], "packed\n"),
        ("packed.tar.gz", &[], "packed\n"),
        ("packed.tar.gz", &["-f", "web/D"], "web\n"),
        ("Dockerfile", &[], "alone\n"),
        ("nameless", &[], "nameless\n"),
    ] {
        engine.dozen(&[&["build", "-t", "made"], flags, &[&format!("{server}/{path}")]].concat()).expect(0);
        assert_eq!(run("made"), want, "{path}");
    }
    for (path, says) in [
        ("page", "unsupported Content-Type \"text/html\""),
        ("nothing", "empty response"),
        ("bytes", "no Dockerfile in UTF-8"),
        ("none", "invalid response status 404 Not Found"),
        ("cut", "the archive cannot be read: it is cut short"),
        ("files", "\"/a\": not found"),
        ("away", "127.0.0.1 is 127.0.0.1, which is this host itself"),
    ] {
        engine.dozen(&["build", &format!("{server}/{path}")]).refuses(1, &[says]);
    }
    // Beside one that the client sends.
    let beside = machine.directory().join("beside");
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(beside.join("note"), "sent\n").unwrap();
    let named = format!("beside={}", beside.display());
    let words = ["build", "-t", "both", "--build-context", &named, "-f", "-", &format!("{server}/plain")];
    let file = b"FROM busybox\nCOPY text /\nCOPY --from=beside note /\nCMD cat /text /note\n";
    machine.run_with(dozen_program(), &words, file, &[]).expect(0);
    assert_eq!(run("both"), "packed\nsent\n");
    // By docker's classic builder, which fetches nothing itself but a repository.
    let variables = [("DOCKER_BUILDKIT", "0")];
    let words = ["build", "-t", "docker", &format!("{server}/plain")];
    machine.run_with(docker_program(), &words, b"", &variables).expect(0);
    assert_eq!(run("docker"), "packed\n");
    let program = format!("import docker\ndocker.from_env().images.build(path='{server}/plain', tag='python')");
    engine.python(&program).expect(0);
    assert_eq!(run("python"), "packed\n");
    assert!(log.lock().unwrap().iter().any(|line| line == "GET /plain? 200"));
}
