//! Builds from repositories and URLs: ADD of a repository, contexts that the engine fetches, files that have not changed.
//! The servers are git's own.

#![allow(clippy::unwrap_used, missing_docs)]

mod contexts;
mod luck;
mod server;
mod unchanged;

use std::path::PathBuf;

use dozen_testbox::{Daemon, Done, Engine, Machine, NEIGHBOUR_ADDRESS, Side, dozen_program};
use server::{GitDaemon, Secure, Work, answer, git_backend, serve};

/// Where the neighbour has its repositories.
fn repositories(machine: &Machine) -> PathBuf {
    machine.directory().join("repositories")
}

/// `dozen build FLAGS -`, the Dockerfile on its standard input.
fn build(machine: &Machine, flags: &[&str], dockerfile: &str) -> Done {
    let words = [&["build", "--progress", "plain"], flags, &["-"]].concat();
    machine.run_with(dozen_program(), &words, dockerfile.as_bytes(), &[])
}

/// What the built image has in `/a`: a line for each name, with its mode and what it leads to or holds.
fn look(engine: &Engine<'_>, image: &str) -> Vec<String> {
    let script = "cd /a && find . | sort | while read -r f; do \
        if [ -L $f ]; then echo $f '->' $(readlink $f); elif [ -d $f ]; then echo $f/; \
        else echo $(stat -c '%n %a %u:%g' $f) $(head -c 40 $f); fi; done";
    let text = engine.dozen(&["run", "--rm", "--network", "none", image, "sh", "-c", script]).text();
    text.lines().map(str::to_owned).collect()
}

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

#[test]
fn a_repository_is_added() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let root = repositories(&machine);
    let app = Work::new(&root, "app.git");
    app.file("README", "one\n");
    app.file("deploy/run.sh", "#!/bin/sh\necho run\n");
    app.executable("deploy/run.sh");
    app.file("dos.bat", "a\nb\n");
    app.file(".gitattributes", "dos.bat eol=crlf\nREADME export-ignore\n");
    app.link("out", "/etc/passwd");
    app.link("deploy/up", "../../../../etc");
    let first = app.commit();
    app.git(&["tag", "-a", "-m", "v1", "v1"]);
    app.file("README", "two\n");
    let second = app.commit();
    let _daemon = GitDaemon::new(&machine, &root);
    let url = format!("git://{NEIGHBOUR_ADDRESS}/app.git");
    let adds = |words: &str| build(&machine, &["-t", "made"], &format!("FROM busybox\nADD {words} /a/\n"));

    adds(&url).expect(0);
    let all = [
        "./",
        "./.gitattributes 644 0:0 dos.bat eol=crlf README export-ignore",
        "./README 644 0:0 two",
        "./deploy/",
        "./deploy/run.sh 755 0:0 #!/bin/sh echo run",
        "./deploy/up -> ../../../../etc",
        "./dos.bat 644 0:0 a\r b",
        "./out -> /etc/passwd",
    ];
    assert_eq!(look(&engine, "made"), all);
    for words in ["#v1", "#refs/tags/v1", &format!("#{first}"), "?tag=v1", &format!("?checksum={first}")] {
        adds(&format!("{url}{words}")).expect(0);
        assert!(look(&engine, "made").contains(&"./README 644 0:0 one".to_owned()), "{words}");
    }
    for words in ["#main:deploy", "#:/deploy/", "?branch=main&subdir=deploy"] {
        adds(&format!("{url}{words}")).expect(0);
        assert_eq!(look(&engine, "made"), ["./", "./run.sh 755 0:0 #!/bin/sh echo run", "./up -> ../../../../etc"]);
    }
    adds(&format!("--checksum={first} {url}#v1")).expect(0);
    adds(&format!("--chown=7:8 --exclude=*.bat --exclude=deploy {url}#v1")).expect(0);
    assert!(look(&engine, "made").contains(&"./README 644 7:8 one".to_owned()));

    // Of either kind of number.
    let long = Work::of_format(&root, "long.git", "sha256");
    long.file("README", "long\n");
    let number = long.commit();
    for words in [String::new(), format!("#{number}")] {
        adds(&format!("git://{NEIGHBOUR_ADDRESS}/long.git{words}")).expect(0);
        assert_eq!(look(&engine, "made"), ["./", "./README 644 0:0 long"]);
    }

    // What was not changed is found by its commit, without being fetched; what was changed is not.
    assert!(adds(&url).expect(0).err.contains("CACHED"));
    app.file("README", "three\n");
    app.commit();
    assert!(!adds(&url).expect(0).err.contains("CACHED"));
    assert!(look(&engine, "made").contains(&"./README 644 0:0 three".to_owned()));

    for (words, says) in [
        (format!("{url}#nowhere"), "repository does not contain ref nowhere: git://"),
        (format!("{url}#{}", "1".repeat(40)), "failed to fetch remote git://"),
        (format!("{url}#main:out"), "failed to open subdir out: "),
        (format!("{url}#main:deploy/up/ssl"), "failed to open subdir deploy/up/ssl: "),
        (format!("{url}#main:../../etc"), "failed to open subdir etc: "),
        (format!("git://{NEIGHBOUR_ADDRESS}/none.git"), "failed to fetch remote git://"),
        (format!("--checksum={second} {url}#v1"), &format!("expected checksum to match {second}, got {first}")),
        ("git@example.org:a/b.git".to_owned(), "repositories by ssh are not built yet"),
        (format!("{url}#--upload-pack=id"), "invalid reference \"--upload-pack=id\""),
    ] {
        adds(&words).refuses(1, &[says]);
    }
}

#[test]
fn what_belongs_to_it_comes_along() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let root = repositories(&machine);
    let deep = Work::new(&root, "libs/deep.git");
    deep.file("d", "deep\n");
    deep.commit();
    let lib = Work::new(&root, "libs/lib.git");
    lib.file("l", "lib\n");
    lib.git(&["submodule", "--quiet", "add", "../deep.git", "inner"]);
    lib.git(&["config", "-f", ".gitmodules", "submodule.inner.url", "../deep.git"]);
    lib.commit();
    let app = Work::new(&root, "app.git");
    app.file("a", "app\n");
    app.git(&["submodule", "--quiet", "add", "../libs/lib.git", "third/lib"]);
    app.commit();
    app.git(&["tag", "v1"]);
    app.git(&["tag", "-a", "-m", "v2", "v2"]);
    let _daemon = GitDaemon::new(&machine, &root);
    let url = format!("git://{NEIGHBOUR_ADDRESS}/app.git");
    let adds = |words: &str| build(&machine, &["-t", "made"], &format!("FROM busybox\nADD {words} /a/\n"));

    adds(&url).expect(0);
    let names = |image: &str| {
        look(&engine, image).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = [
        "./",
        "./.gitmodules",
        "./a",
        "./third/",
        "./third/lib/",
        "./third/lib/.gitmodules",
        "./third/lib/inner/",
        "./third/lib/inner/d",
        "./third/lib/l",
    ];
    assert_eq!(names("made"), all);
    adds(&format!("{url}?submodules=false")).expect(0);
    assert_eq!(names("made"), ["./", "./.gitmodules", "./a", "./third/", "./third/lib/"]);

    // With .git it is a repository again.
    adds(&format!("--keep-git-dir=true {url}?submodules=0&ref=v2")).expect(0);
    let here = machine.directory().join("kept");
    let at = here.to_str().unwrap();
    let dockerfile = format!("FROM scratch\nADD --keep-git-dir {url}#v2 /a/\n");
    build(&machine, &["-o", at], &dockerfile).expect(0);
    let git = |arguments: &[&str]| {
        let place = format!("{at}/a");
        let words = [&["-c", "safe.directory=*", "-C", &place], arguments].concat();
        machine.run("git", &words).text().trim().to_owned()
    };
    assert_eq!(git(&["rev-parse", "HEAD"]), app.git(&["rev-parse", "v2^{commit}"]));
    assert_eq!(git(&["describe", "--tags"]), "v2");
    assert_eq!(git(&["remote", "get-url", "origin"]), url);
    assert_eq!(git(&["status", "--porcelain", "--ignore-submodules"]), "");
    assert_eq!(git(&["log", "--oneline"]).lines().count(), 1);

    // Where a submodule comes from is looked at as where the repository does.
    for (url, says) in [
        ("file:///etc", "submodule \"third/lib\": it is reached by none of https, http and git"),
        ("ext::sh -c id", "submodule \"third/lib\": it has a blank"),
        ("git@example.org:x.git", "submodule \"third/lib\": repositories by ssh are not built yet"),
        ("git://localhost/libs/lib.git", "localhost is 127.0.0.1, which is this host itself"),
    ] {
        app.git(&["config", "-f", ".gitmodules", "submodule.third/lib.url", url]);
        app.commit();
        adds(&format!("git://{NEIGHBOUR_ADDRESS}/app.git")).refuses(1, &[says]);
    }
    app.git(&["config", "-f", ".gitmodules", "--remove-section", "submodule.third/lib"]);
    app.commit();
    adds(&url).refuses(1, &["No url found for submodule path \"third/lib\" in .gitmodules"]);
}

#[test]
fn a_repository_comes_by_http() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let root = repositories(&machine);
    let app = Work::new(&root, "app.git");
    app.file("a", "one\n");
    let first = app.commit();
    app.file("a", "two\n");
    app.commit();
    app.git(&["update-server-info"]);
    let served = root.clone();
    let log = serve(&machine, Side::Neighbour, move |request| match request.path.strip_prefix("/private") {
        // "x-access-token:hunter2" and "me:pw".
        Some(_)
            if !["Basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg==", "Basic bWU6cHc="]
                .contains(&request.fields.get("authorization").map_or("", String::as_str)) =>
        {
            answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], b"")
        }
        _ if request.path.starts_with("/moved/") => {
            let to = format!("Location: {}?{}", request.path.replace("/moved/", "/"), request.query);
            answer("301 Moved Permanently", &[&to], b"")
        }
        _ if request.path.starts_with("/home/") => {
            answer("301 Moved Permanently", &["Location: http://127.0.0.1:8000/app.git/info/refs"], b"")
        }
        // A server that knows nothing of git.
        _ if request.path.starts_with("/plain/") => {
            let path = request.path.replacen("/plain/app.git/", "/app.git/.git/", 1);
            match std::fs::read(served.join(path.trim_start_matches('/'))) {
                Ok(bytes) => answer("200 OK", &["Content-Type: application/octet-stream"], &bytes),
                Err(_) => answer("404 Not Found", &[], b""),
            }
        }
        Some(path) => git_backend(&served, &server::Request { path: path.to_owned(), ..request.clone() }),
        None => git_backend(&served, request),
    });
    let server = format!("{NEIGHBOUR_ADDRESS}:8000");
    let adds = |flags: &[&str], words: &str| {
        build(&machine, &[&["-t", "made"], flags].concat(), &format!("FROM busybox\nADD {words} /a/\n"))
    };
    let holds = || look(&engine, "made").last().unwrap().clone();
    for (path, text) in [
        ("app.git", "two"),
        (&format!("app.git#{first}"), "one"),
        ("moved/app.git", "two"),
        ("plain/app.git", "two"),
        (&format!("plain/app.git#{first}"), "one"),
    ] {
        adds(&["--no-cache"], &format!("http://{server}/{path}")).expect(0);
        assert_eq!(holds(), format!("./a 644 0:0 {text}"), "{path}");
    }
    // What is said of RUN's network is about RUN; its limits are git's, too.
    for flags in [["--network", "none"], ["--network", "host"], ["--memory", "64m"]] {
        adds(&[&["--no-cache"], &flags[..]].concat(), &format!("http://{server}/app.git")).expect(0);
    }
    let private = format!("http://{server}/private/app.git");
    adds(&[], &private).refuses(1, &["failed to fetch remote http://", "--secret id=GIT_AUTH_TOKEN"]);
    let token = machine.directory().join("token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let source = format!("src={}", token.display());
    for id in ["GIT_AUTH_TOKEN".to_owned(), format!("GIT_AUTH_TOKEN.{NEIGHBOUR_ADDRESS}")] {
        adds(&["--no-cache", "--secret", &format!("id={id},{source}")], &private).expect(0);
    }
    adds(&["--no-cache"], &format!("http://me:pw@{server}/private/app.git")).expect(0);
    let wrong = adds(&[], &format!("http://me:hunter3@{server}/private/app.git")).expect(1);
    assert!(wrong.err.contains("failed to fetch remote http://xxxxx@"), "{}", wrong.err);
    // A password follows no redirection: nobody knows to whom.
    let moved = format!("http://me:pw@{server}/moved/app.git");
    adds(&[], &moved).refuses(1, &["no redirection is followed"]);

    // The host's own loopback: in the words of ADD, and where nobody could have known before.
    let home = serve(&machine, Side::Machine, |_| answer("200 OK", &[], b"of the host"));
    for words in ["http://localhost:8000/a.git", "git://127.0.0.1/a.git", "http://[::1]:8000/a.git"] {
        adds(&[], words).refuses(1, &["which is this host itself", "--allow network.host"]);
    }
    adds(&[], &format!("http://{server}/home/app.git")).refuses(1, &["failed to fetch remote http://"]);
    assert!(home.lock().unwrap().is_empty(), "{:?}", home.lock().unwrap());
    adds(&["--allow", "network.host"], &format!("http://{server}/home/app.git"))
        .refuses(1, &["failed to fetch remote"]);
    assert!(!home.lock().unwrap().is_empty());

    // A proxy of the builder's is asked.
    let proxy = format!("HTTP_PROXY=http://{server}");
    adds(&["--build-arg", &proxy], "http://far.invalid/app.git").refuses(1, &["failed to fetch remote"]);
    let asked = log.lock().unwrap().last().unwrap().clone();
    assert!(asked.contains("GET http://far.invalid/app.git/info/refs?service=git-upload-pack"), "{asked}");
}

#[test]
fn a_certificate_is_believed_if_its_authority_is() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let root = repositories(&machine);
    let app = Work::new(&root, "app.git");
    app.file("a", "one\n");
    app.commit();
    app.git(&["update-server-info"]);
    std::fs::rename(root.join("app.git/.git"), root.join("bare.git")).unwrap();
    let (_secure, certificate) = Secure::new(&machine, &root);
    let dockerfile = format!("FROM busybox\nADD https://{NEIGHBOUR_ADDRESS}:8443/bare.git /a/\n");
    build(&machine, &[], &dockerfile).refuses(1, &["failed to fetch remote https://", "certificate"]);
    build(&machine, &["-t", "made", "--ca-bundle", certificate.to_str().unwrap()], &dockerfile).expect(0);
    assert_eq!(look(&engine, "made").last().unwrap(), "./a 644 0:0 one");
}

#[test]
fn it_is_fetched_by_users_of_its_own_too() {
    let machine = Machine::new();
    let root = repositories(&machine);
    let app = Work::new(&root, "app.git");
    app.file("a", "one\n");
    app.commit();
    let _daemon = GitDaemon::new(&machine, &root);
    let engine = Daemon::with_file(&machine, r#"{ "userns-remap": "auto" }"#);
    engine.load("busybox");
    let dockerfile =
        format!("FROM busybox\nADD --keep-git-dir git://{NEIGHBOUR_ADDRESS}/app.git /a/\nRUN cat /a/a /a/.git/HEAD\n");
    let done = build(&machine, &["-t", "made"], &dockerfile).expect(0);
    assert!(done.err.contains(&app.git(&["rev-parse", "HEAD"])), "{}", done.err);
}
