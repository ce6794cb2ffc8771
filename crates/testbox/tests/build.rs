//! Builds by the built binary: our own command line, docker's classic builder, the SDK.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use dozen_testbox::{
    Daemon, Done, Engine, Machine, NEIGHBOUR_ADDRESS, Side, docker_program, dozen_program, python_program, until,
};
use serde_json::Value;

/// A directory with these files, beside the engine's.
fn directory(machine: &Machine, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let at = machine.directory().join(name);
    for (file, text) in files {
        let file = at.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    at
}

fn with_busybox(machine: &Machine) -> Engine<'_> {
    let engine = machine.engine();
    engine.load("busybox");
    engine
}

/// A path beside the engine's directories.
fn beside(machine: &Machine, name: &str) -> String {
    machine.directory().join(name).to_str().unwrap().to_owned()
}

/// `dozen build FLAGS DIRECTORY`.
fn build(engine: &Engine<'_>, flags: &[&str], directory: &Path) -> Done {
    engine.dozen(&[&["build"], flags, &[directory.to_str().unwrap()]].concat())
}

/// `docker build FLAGS DIRECTORY` with the classic builder.
fn docker_build(machine: &Machine, flags: &[&str], context: &str, input: &[u8]) -> Done {
    let variables = [("DOCKER_BUILDKIT", "0")];
    machine.run_with(docker_program(), &[&["build"], flags, &[context]].concat(), input, &variables)
}

fn inspect(engine: &Engine<'_>, image: &str) -> Value {
    let text = engine.dozen(&["image", "inspect", image]).text();
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

fn run(engine: &Engine<'_>, image: &str, command: &[&str]) -> String {
    engine.dozen(&[&["run", "--rm", "--network", "none", image], command].concat()).text()
}

#[test]
fn an_image_from_nothing() {
    let machine = Machine::new();
    let engine = machine.engine();
    let at = directory(
        &machine,
        "scratch",
        &[
            (
                "Dockerfile",
                "FROM scratch\nARG VERSION=1\nCOPY hello /srv/\nLABEL version=$VERSION\nCMD [\"/srv/hello\"]\n",
            ),
            ("hello", "hi\n"),
        ],
    );
    let iidfile = beside(&machine, "iid");
    std::fs::write(&iidfile, "of another build").unwrap();
    let flags = ["-t", "one", "-t", "two:2", "--label", "team=a", "--build-arg", "VERSION=7", "--iidfile", &iidfile];
    let done = build(&engine, &flags, &at).expect(0);
    // Stdout is for data; names and the id are told on stderr.
    assert_eq!(done.out, "");
    let id = std::fs::read_to_string(&iidfile).unwrap();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert!(
        done.err.contains(&format!("writing image {id}")) && done.err.contains("docker.io/library/two:2"),
        "{}",
        done.err
    );
    let image = inspect(&engine, "two:2");
    assert_eq!(image["Id"], id.as_str());
    assert_eq!(image["Config"]["Cmd"], serde_json::json!(["/srv/hello"]));
    assert_eq!(image["Config"]["Labels"], serde_json::json!({ "team": "a", "version": "7" }));
    assert_eq!(inspect(&engine, "one")["Id"], id.as_str());
    assert_eq!(build(&engine, &["-q", "--label", "team=a", "--build-arg", "VERSION=7"], &at).text(), format!("{id}\n"));
}

#[test]
fn steps_run_and_what_has_not_changed_is_not_run_again() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = "FROM busybox AS made\nWORKDIR /made\nCOPY requirements .\nRUN cat requirements > copy && echo ra''n it\n\
        COPY . .\nFROM busybox\nENV A=b\nCOPY --from=made /made /srv\nUSER 7:8\nWORKDIR /srv\nCMD cat copy app && id -u\n";
    let at = directory(&machine, "app", &[("Dockerfile", dockerfile), ("requirements", "r\n"), ("app", "1\n")]);
    let first = build(&engine, &["-t", "app", "--progress", "plain"], &at).expect(0);
    assert!(first.err.contains("[made 4/5] RUN cat requirements") && first.err.contains(" ran it\n"), "{}", first.err);
    assert_eq!(run(&engine, "app", &[]), "r\n1\n7\n");
    let second = build(&engine, &["-t", "app"], &at).expect(0);
    assert!(!second.err.contains("ran it") && second.err.contains("CACHED"), "{}", second.err);
    std::fs::write(at.join("app"), "2\n").unwrap();
    let third = build(&engine, &["-t", "app"], &at).expect(0);
    assert!(!third.err.contains("ran it"), "{}", third.err);
    assert_eq!(run(&engine, "app", &[]), "r\n2\n7\n");
    for flags in [&["--no-cache"][..], &["--no-cache-filter", "made"]] {
        let again = build(&engine, flags, &at).expect(0);
        assert!(again.err.contains(" ran it\n"), "{flags:?}: {}", again.err);
    }
    let target = build(&engine, &["--target", "made", "-q"], &at).text();
    assert_eq!(run(&engine, target.trim(), &["cat", "/made/app"]), "2\n");
}

#[test]
fn a_distribution_is_built_on() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("debian:bookworm-slim");
    let dockerfile = "FROM debian:bookworm-slim\nSHELL [\"/bin/bash\", \"-euc\"]\nRUN <<EOF\nuseradd -m worker\nmkdir /srv/data\n\
        chown worker /srv/data\nEOF\nCOPY --chown=worker --chmod=0750 tool /usr/local/bin/tool\nUSER worker\nENTRYPOINT [\"tool\"]\n";
    let at = directory(
        &machine,
        "deb",
        &[("Dockerfile", dockerfile), ("tool", "#!/bin/sh\nstat -c '%U %a' $0 /srv/data\n")],
    );
    build(&engine, &["-t", "tool"], &at).expect(0);
    assert_eq!(run(&engine, "tool", &[]), "worker 750\nworker 755\n");
}

#[test]
fn a_step_that_fails_says_what_it_said() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = "FROM busybox\nRUN echo before\nRUN echo to stdout; echo to stderr >&2; exit 3\nRUN echo after\n";
    let at = directory(&machine, "fails", &[("Dockerfile", dockerfile)]);
    let done = build(&engine, &["-t", "never"], &at).expect(1);
    for words in [
        " to stdout\n",
        " to stderr\n",
        "returned a non-zero code: 3",
        ">>> RUN echo to stdout",
        "------\n > [3/4] RUN",
    ] {
        assert!(done.err.contains(words), "{words}: {}", done.err);
    }
    assert!(!done.err.contains("[4/4]"), "{}", done.err);
    engine.dozen(&["image", "inspect", "never"]).expect(1);
    let quiet = build(&engine, &["-q"], &at).expect(1);
    assert!(quiet.out.is_empty() && quiet.err.contains("to stderr") && quiet.err.contains("code: 3"), "{quiet:?}");
    let broken = directory(&machine, "broken", &[("Dockerfile", "FROM busybox\nCPOY a b\n")]);
    build(&engine, &[], &broken).refuses(1, &["unknown instruction: CPOY (did you mean COPY?)", "   2 | >>> CPOY a b"]);
    let missing = directory(&machine, "missing", &[("Dockerfile", "FROM nowhere:1\n")]);
    build(&engine, &[], &missing).refuses(1, &["nowhere:1"]);
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
}

#[test]
fn what_is_ignored_is_not_in_the_context() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let at = directory(
        &machine,
        "ignore",
        &[
            ("Dockerfile", "FROM busybox\nCOPY . /c\nRUN cd /c && find . -type f | sort > /found\n"),
            (".dockerignore", "**/*.log\n!keep.log\nDockerfile*\n.dockerignore\n"),
            ("Dockerfile.own", "FROM busybox\nCOPY . /c\nRUN cd /c && find . -type f | sort > /found\n"),
            ("Dockerfile.own.dockerignore", "*\n!sub/a.log\n"),
            ("a.log", ""),
            ("keep.log", ""),
            ("sub/a.log", ""),
            ("sub/b", ""),
        ],
    );
    build(&engine, &["-t", "found"], &at).expect(0);
    assert_eq!(run(&engine, "found", &["cat", "/found"]), "./keep.log\n./sub/b\n");
    build(&engine, &["-t", "own", "-f", at.join("Dockerfile.own").to_str().unwrap()], &at).expect(0);
    assert_eq!(run(&engine, "own", &["cat", "/found"]), "./sub/a.log\n");
    // docker's client does the same with its classic builder.
    docker_build(&machine, &["-t", "theirs"], at.to_str().unwrap(), b"").expect(0);
    assert_eq!(run(&engine, "theirs", &["cat", "/found"]), "./keep.log\n./sub/b\n");
}

#[test]
fn a_context_comes_from_stdin_and_a_dockerfile_from_anywhere() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dozen = |arguments: &[&str], input: &[u8]| machine.run_with(dozen_program(), arguments, input, &[]);
    dozen(&["build", "-t", "alone", "-"], b"FROM busybox\nRUN echo alone > /a\n").expect(0);
    assert_eq!(run(&engine, "alone", &["cat", "/a"]), "alone\n");
    let at = directory(&machine, "c", &[("sub/D", "FROM busybox\nCOPY a /a\n"), ("a", "packed\n")]);
    for flags in ["-c", "-cz", "-cJ", "-cj"] {
        let packed = std::process::Command::new("tar").arg("-C").arg(&at).args([flags, "."]).output().unwrap();
        dozen(&["build", "--no-cache", "-t", "packed", "-f", "sub/D", "-"], &packed.stdout).expect(0);
        assert_eq!(run(&engine, "packed", &["cat", "/a"]), "packed\n");
    }
    let context = at.to_str().unwrap();
    dozen(&["build", "-t", "piped", "-f", "-", context], b"FROM busybox\nCOPY a /b\n").expect(0);
    assert_eq!(run(&engine, "piped", &["cat", "/b"]), "packed\n");
    let outside = beside(&machine, "elsewhere/D");
    directory(&machine, "elsewhere", &[("D", "FROM busybox\nCOPY . /c\nRUN ls -A /c > /found\n")]);
    build(&engine, &["-t", "outside", "-f", &outside, "--compress"], &at).expect(0);
    assert_eq!(run(&engine, "outside", &["cat", "/found"]), "a\nsub\n");
    let docker = |flags: &[&str], context: &str, input: &[u8]| docker_build(&machine, flags, context, input).expect(0);
    docker(&["-t", "alone2"], "-", b"FROM busybox\nRUN echo alone > /a\n");
    assert_eq!(run(&engine, "alone2", &["cat", "/a"]), "alone\n");
    docker(&["-t", "outside2", "-f", &outside], context, b"");
    // What docker's client adds to the context for that is not seen.
    assert_eq!(run(&engine, "outside2", &["cat", "/found"]), "a\nsub\n");
    let none = beside(&machine, "elsewhere/none");
    build(&engine, &["-f", &none], &at)
        .refuses(1, &["failed to read dockerfile: open", "elsewhere/none: no such file"]);
    dozen(&["build", "-"], b"").refuses(1, &["it is empty"]);
}

#[test]
fn links_modes_and_owners_arrive() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = "FROM busybox\nCOPY d /d\nRUN cd /d && stat -c '%n %a %u:%g' * > /found && readlink link >> /found && readlink up >> /found\n";
    let at = directory(&machine, "links", &[("Dockerfile", dockerfile), ("d/script", ""), ("d/secret", "")]);
    std::fs::set_permissions(at.join("d/script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(at.join("d/secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(at.join("d/secret"), Some(1000), Some(1000)).unwrap();
    symlink("script", at.join("d/link")).unwrap();
    symlink("../../../etc/shadow", at.join("d/up")).unwrap();
    build(&engine, &["-t", "links"], &at).expect(0);
    let found = run(&engine, "links", &["cat", "/found"]);
    assert_eq!(found, "link 777 0:0\nscript 755 0:0\nsecret 600 0:0\nup 777 0:0\nscript\n../../../etc/shadow\n");
}

#[test]
fn a_secret_is_seen_by_its_step_alone() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let secret = "hunter2-of-the-north";
    let dockerfile = "FROM busybox\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length\n\
        RUN --mount=type=secret,id=variable,env=V printf %s \"$V\" | wc -c >> /length && \
        ! test -e /run/secrets/variable\n\
        RUN --mount=type=secret,id=variable,env=V,target=/v test \"$V\" = \"$(cat /v)\"\nRUN test -z \"$V\" && ! test -e /run/secrets/token\n";
    let at = directory(&machine, "secret", &[("Dockerfile", dockerfile)]);
    std::fs::write(machine.directory().join("token"), secret).unwrap();
    let token = format!("id=token,src={}", beside(&machine, "token"));
    let flags = ["build", "-t", "secret", "--secret", &token, "--secret", "id=variable,env=TOKEN"];
    let line = [&flags[..], &[at.to_str().unwrap()]].concat();
    let done = machine.run_with(dozen_program(), &line, b"", &[("TOKEN", secret)]).expect(0);
    let length = secret.len();
    assert_eq!(run(&engine, "secret", &["cat", "/length"]), format!("{length}\n{length}\n"));
    assert!(!done.err.contains(secret) && !engine.log().contains(secret));
    assert!(!engine.dozen(&["history", "--no-trunc", "secret"]).text().contains(secret));
    assert!(!inspect(&engine, "secret").to_string().contains(secret));
    let archive = beside(&machine, "secret.tar");
    engine.dozen(&["save", "-o", &archive, "secret"]).expect(0);
    let archive = std::fs::read(archive).unwrap();
    assert!(!archive.windows(secret.len()).any(|window| window == secret.as_bytes()));
    // Nor is it anywhere in the engine's directories.
    let found =
        std::process::Command::new("grep").args(["-rlF", secret]).arg(machine.directory().join("data")).output();
    assert_eq!(String::from_utf8(found.unwrap().stdout).unwrap(), "");
    build(&engine, &["--secret", "id=token,src=/nowhere"], &at).refuses(1, &["/nowhere: no such file or directory"]);
}

#[test]
fn a_secret_in_a_variable_is_the_commands_alone() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let secret = "hunter3-of-the-south";
    let dockerfile = "FROM busybox\nENV V=public\n\
        RUN --mount=type=secret,id=t,env=V while ! test -e /go; do sleep 0.05; done; echo \"${#V} long\"; rm /go\n";
    let at = directory(&machine, "variable", &[("Dockerfile", dockerfile)]);
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), secret).unwrap();
    let mut client = machine.command(dozen_program());
    client.args(["build", "--progress", "plain", "--secret"]).arg(format!("id=t,src={}", token.path().display()));
    let client = client.arg(&at).stderr(Stdio::piped()).spawn().unwrap();
    let running = || Some(engine.dozen(&["ps", "-q"]).text().trim().to_owned()).filter(|id| !id.is_empty());
    let id = until("the step runs", running);
    let has_it = |path: &Path| std::fs::read(path).is_ok_and(|line| contains(&line, secret));
    // Whoever looks at the container sees nothing, nor whoever enters it, nor whoever looks at the host's processes.
    assert!(!engine.dozen(&["inspect", &id]).text().contains(secret));
    assert_eq!(engine.dozen(&["exec", &id, "sh", "-c", "echo $V"]).text(), "public\n");
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        assert!(!has_it(&process.path().join("cmdline")), "{:?}", process.path());
    }
    // Nor is it in a file.
    let found =
        std::process::Command::new("grep").args(["-rlF", "-D", "skip", secret]).arg(machine.directory()).output();
    assert_eq!(String::from_utf8(found.unwrap().stdout).unwrap(), "");
    engine.dozen(&["exec", &id, "touch", "/go"]).expect(0);
    let done = client.wait_with_output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success() && said.contains(&format!("{} long", secret.len())), "{said}");
    // A value that no variable can have is refused without a word of it.
    std::fs::write(token.path(), format!("{secret}\0")).unwrap();
    let flag = format!("id=t,src={}", token.path().display());
    let refused = build(&engine, &["--no-cache", "--secret", &flag], &at);
    assert!(!refused.err.contains(secret));
    refused.refuses(1, &["secret t cannot be in the variable V: it has a null byte in it"]);
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What steps may write to and what is left of it.
const WRITING: &str = r#"FROM busybox AS made
RUN mkdir -p /src/d && echo one > /src/a && echo two > /src/d/b && chown 5:6 /src/d
FROM busybox
RUN --mount=from=made,source=/src,target=/m,rw cat /m/a && echo new > /m/a && rm /m/d/b && echo n > /m/d/n && chown 7 /m/d && \
    cat /m/a && ls /m/d && stat -c %u:%g /m/d
RUN --mount=from=made,source=/src,target=/m cat /m/a /m/d/b && stat -c %u:%g /m/d && ! touch /m/x 2> /dev/null
RUN --mount=from=made,source=/src/a,target=/f,rw echo file > /f && cat /f
RUN --mount=from=busybox,target=/m,rw rm -r /m/bin && touch /m/x && ls /bin/sh
RUN --mount=from=scratch,target=/m,rw touch /m/x && ls /m
RUN --mount=target=/m,rw echo own > /m/context && cat /m/context
RUN --mount=target=/m cat /m/context && ! touch /m/x 2> /dev/null
RUN ls -d /m /f /x 2> /dev/null || echo nothing left
"#;
const WRITTEN: [&str; 13] =
    ["one", "new", "n", "7:6", "one", "two", "5:6", "file", "/bin/sh", "x", "own", "here", "nothing left"];

/// What the commands of a build have written.
fn said(done: &Done) -> Vec<&str> {
    let timed = |line: &str| line.split_once(' ').is_some_and(|(time, _)| time.parse::<f64>().is_ok());
    let lines = done.err.lines().filter_map(|line| line.strip_prefix('#')?.split_once(' ').map(|(_, rest)| rest));
    lines.filter(|line| timed(line)).filter_map(|line| line.split_once(' ').map(|(_, rest)| rest)).collect()
}

#[test]
fn what_a_step_writes_to_a_bind_is_thrown_away() {
    let machine = Machine::new();
    let at = directory(&machine, "writing", &[("Dockerfile", WRITING), ("context", "here\n")]);
    let engine = with_busybox(&machine);
    let done = build(&engine, &["-t", "writing", "--progress", "plain"], &at).expect(0);
    assert_eq!(said(&done), WRITTEN, "{}", done.err);
    // Nothing of it is left on the disk either.
    let builds = machine.directory().join("data/builds");
    until("the build's files are gone", || (std::fs::read_dir(&builds).unwrap().count() == 0).then_some(()));
}

#[test]
fn users_of_their_own_write_to_binds_too() {
    let machine = Machine::new();
    let at = directory(&machine, "writing", &[("Dockerfile", WRITING), ("context", "here\n")]);
    let daemon = Daemon::with_file(&machine, r#"{ "userns-remap": "auto" }"#);
    daemon.load("busybox");
    let done = daemon.dozen(&["build", "--progress", "plain", at.to_str().unwrap()]).expect(0);
    assert_eq!(said(&done), WRITTEN, "{}", done.err);
}

#[test]
fn a_cache_begins_with_files_and_goes_on_with_its_own() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = "FROM busybox AS made\nARG WORD=one\n\
        RUN mkdir -p /src/d && echo $WORD > /src/a && chown 5:6 /src && chmod 750 /src && ln -s a /src/l\n\
        FROM busybox AS last\nRUN --mount=type=cache,id=c,from=made,source=/src,target=/c cat /c/l && stat -c '%a %u:%g' /c && \
        echo more >> /c/a\n\
        RUN --mount=type=cache,id=c,from=made,source=src/,target=/c,ro wc -l < /c/a\n\
        RUN --mount=type=cache,id=c,target=/c ls -A /c\n\
        RUN --mount=type=cache,id=o,from=made,source=/src,target=/c,uid=9,mode=0700 stat -c '%a %u:%g' /c\n\
        RUN --mount=type=cache,id=e,from=scratch,target=/c ls -A /c && stat -c '%a %u:%g' /c\n";
    let at = directory(&machine, "beginning", &[("Dockerfile", dockerfile)]);
    let flags = |word| ["--no-cache-filter=last", "--build-arg", word, "--progress=plain"];
    let first = build(&engine, &flags("WORD=one"), &at).expect(0);
    assert_eq!(said(&first), ["one", "750 5:6", "2", "700 9:6", "755 0:0"], "{}", first.err);
    let second = build(&engine, &flags("WORD=one"), &at).expect(0);
    assert_eq!(said(&second), ["one", "more", "750 5:6", "3", "700 9:6", "755 0:0"], "{}", second.err);
    // Other files are another beginning.
    let third = build(&engine, &flags("WORD=two"), &at).expect(0);
    assert_eq!(said(&third), ["two", "750 5:6", "2", "700 9:6", "755 0:0"], "{}", third.err);

    let dockerfile = "FROM busybox\nRUN --mount=type=cache,id=n,from=busybox,source=/bin/sh,target=/c true\n";
    let at = directory(&machine, "none", &[("Dockerfile", dockerfile)]);
    let words = "a cache mount cannot begin with \"/bin/sh\": there is no such directory";
    build(&engine, &[], &at).refuses(1, &[words]);
    let left = std::fs::read_dir(machine.directory().join("data/cache-mounts")).unwrap().flatten();
    let hidden: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

/// A server on that side of the wire, on port 8000, which gives each path what `answer` says, until the process ends; how
/// often it was asked for what.
fn serve(machine: &Machine, side: Side, answer: impl Fn(&str) -> String + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let listener = machine.on(side, || TcpListener::bind("0.0.0.0:8000")).unwrap();
    let log = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(&stream);
            reader.read_line(&mut line).unwrap();
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            // All that was said is read, or the kernel breaks the connection off.
            while line.trim_end() != "" {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            let body = answer(&path);
            log.lock().unwrap().push(path);
            let modified = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
            let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\n{modified}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    asked
}

#[test]
fn a_file_is_added_from_far_away() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let version = Arc::new(AtomicU32::new(1));
    let now = version.clone();
    let asked = serve(&machine, Side::Neighbour, move |path| match path {
        "/a/tool.sh?v=1" => format!("#!/bin/sh\necho {}\n", now.load(Ordering::Relaxed)),
        "/fixed" => "fixed\n".to_owned(),
        "/archive.tar" => "a/".to_owned() + &"\0".repeat(98) + "0000755\0",
        _ => String::new(),
    });
    let far = format!("http://{NEIGHBOUR_ADDRESS}:8000");
    let sum = |text: &str| {
        let done = machine.run_with("sha256sum", &[], text.as_bytes(), &[]).text();
        format!("sha256:{}", &done[..64])
    };
    let fixed = sum("fixed\n");
    let dockerfile = format!(
        "FROM busybox\nADD {far}/a/tool.sh?v=1 /srv/\nADD --chmod=755 --chown=5:6 {far}/a/tool.sh?v=1 /bin/tool\n\
         ADD {far}/archive.tar /\nADD --checksum={fixed} {far}/fixed /fixed\nRUN echo after\n"
    );
    let at = directory(&machine, "far", &[("Dockerfile", &dockerfile)]);
    let flags = ["-t", "far", "--progress", "plain"];
    build(&engine, &flags, &at).expect(0);
    let look = "stat -c '%n %a %u:%g %Y' /srv/tool.sh /bin/tool /archive.tar /fixed; tool; cat /fixed";
    let want = "/srv/tool.sh 600 0:0 784111777\n/bin/tool 755 5:6 784111777\n/archive.tar 600 0:0 784111777\n\
        /fixed 600 0:0 784111777\n1\nfixed\n";
    assert_eq!(run(&engine, "far", &["sh", "-c", look]), want);
    // What has not changed is known by what it is; what is promised is not even asked for.
    let before = asked.lock().unwrap().len();
    let again = build(&engine, &flags, &at).expect(0);
    assert_eq!(again.err.matches("CACHED").count(), 5, "{}", again.err);
    assert!(!asked.lock().unwrap()[before..].contains(&"/fixed".to_owned()));
    version.store(2, Ordering::Relaxed);
    let changed = build(&engine, &flags, &at).expect(0);
    assert!(!changed.err.contains("CACHED"), "{}", changed.err);
    assert_eq!(run(&engine, "far", &["tool"]), "2\n");

    let try_out = |line: &str, flags: &[&str]| {
        let at = directory(&machine, "tried", &[("Dockerfile", &format!("FROM busybox\n{line}\n"))]);
        build(&engine, flags, &at)
    };
    let wrong = sum("other\n");
    let words = format!("digest mismatch {fixed}: {wrong}");
    try_out(&format!("ADD --checksum={wrong} {far}/fixed /"), &[]).refuses(1, &[&words]);
    try_out(&format!("ADD {far}/none /"), &[]).refuses(1, &["/none: invalid response status 404 Not Found"]);
    // A password in an address is sent there, and seen nowhere.
    let secret = |path: &str| format!("ADD http://me:hunter2@{NEIGHBOUR_ADDRESS}:8000/{path} /fixed");
    let built = try_out(&secret("fixed"), &["-t", "secret", "--progress", "plain"]).expect(0);
    let refused = try_out(&secret("none"), &[]).expect(1);
    let history = engine.dozen(&["history", "--no-trunc", "secret"]).text();
    assert!(history.contains(&format!("ADD http://xxxxx@{NEIGHBOUR_ADDRESS}:8000/fixed /fixed")), "{history}");
    let kept = engine.dozen(&["builder", "du", "--verbose"]).text();
    let archive = beside(&machine, "secret.tar");
    engine.dozen(&["save", "-o", &archive, "secret"]).expect(0);
    let archive = String::from_utf8_lossy(&std::fs::read(archive).unwrap()).into_owned();
    for said in [&built.out, &built.err, &refused.err, &history, &kept, &archive, &engine.log()] {
        assert!(!said.contains("hunter2"), "{said}");
    }
    try_out("ADD http://169.254.169.254/latest /", &[])
        .refuses(1, &["169.254.169.254, which is where clouds tell a machine its secrets", "--allow network.host"]);
    // A Dockerfile sees no more of the host than its containers do, unless its builder says so.
    serve(&machine, Side::Machine, |_| "of the host".to_owned());
    let line = "ADD http://localhost:8000/x /";
    try_out(line, &[]).refuses(1, &["localhost is 127.0.0.1, which is this host itself", "--allow network.host"]);
    try_out(line, &["--allow", "network.host"]).expect(0);
    // A proxy of the builder's is asked.
    let proxy = format!("HTTP_PROXY=http://{NEIGHBOUR_ADDRESS}:8000");
    try_out("ADD http://nowhere.invalid/x /", &["--build-arg", &proxy]).refuses(1, &["404 Not Found"]);
    assert_eq!(asked.lock().unwrap().last().unwrap(), "http://nowhere.invalid/x");
}

#[test]
fn what_stands_on_nothing_runs() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = "FROM scratch\nRUN --mount=from=busybox,target=/m [\"/m/bin/busybox\", \"touch\", \"/made\"]\n";
    let at =
        directory(&machine, "nothing", &[("Dockerfile", dockerfile), ("empty/Dockerfile", "FROM scratch\nCMD x\n")]);
    let out = beside(&machine, "out");
    build(&engine, &["-o", &out], &at).expect(0);
    let names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["made"]);
    build(&engine, &["-t", "empty"], &at.join("empty")).expect(0);
    let words = ["run", "--rm", "--mount", "type=image,source=busybox,target=/m", "empty", "/m/bin/busybox", "ls", "/"];
    let seen = engine.dozen(&words).text();
    assert!(seen.lines().any(|line| line == "m"), "{seen}");
}

#[test]
fn an_image_goes_elsewhere() {
    let machine = Machine::new();
    let engine = machine.engine();
    let dockerfile = "FROM scratch\nCOPY a b/ /srv/\n";
    let at = directory(&machine, "out", &[("Dockerfile", dockerfile), ("a", "1"), ("b/c", "2")]);
    let here = |name: &str| beside(&machine, name);
    build(&engine, &["-o", &format!("type=local,dest={}", here("local"))], &at).expect(0);
    assert_eq!(std::fs::read_to_string(here("local/srv/c")).unwrap(), "2");
    build(&engine, &["-o", &here("plain")], &at).expect(0);
    assert_eq!(std::fs::read_to_string(here("plain/srv/a")).unwrap(), "1");
    build(&engine, &["-o", &format!("type=tar,dest={}", here("files.tar"))], &at).expect(0);
    let list = |file: &str| {
        let output = std::process::Command::new("tar").arg("-tf").arg(here(file)).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(list("files.tar").contains("srv/c"));
    for kind in ["oci", "docker"] {
        let output = format!("type={kind},dest={}", here(&format!("{kind}.tar")));
        build(&engine, &["-t", "out:1", "-o", &output], &at).expect(0);
        assert!(list(&format!("{kind}.tar")).contains("manifest.json"));
    }
    let id = inspect(&engine, "out:1")["Id"].clone();
    engine.dozen(&["rmi", "-f", "out:1"]).expect(0);
    engine.dozen(&["load", "-i", &here("oci.tar")]).expect(0);
    assert_eq!(inspect(&engine, "out:1")["Id"], id);
    assert_eq!(engine.dozen(&["ps", "-aq"]).text(), "");
    build(&engine, &["-o", "type=tar,dest=/nowhere/x.tar"], &at).refuses(1, &["nowhere"]);
}

#[test]
fn progress_for_programs() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let at = directory(&machine, "raw", &[("Dockerfile", "FROM busybox\nRUN echo out\n")]);
    let done = build(&engine, &["--progress", "rawjson"], &at).expect(0);
    let lines: Vec<Value> = done.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = lines.iter().filter_map(|line| line["vertexes"][0]["name"].as_str()).collect();
    assert!(names.contains(&"[internal] load build context") && names.contains(&"[2/2] RUN echo out"), "{names:?}");
    let logs: Vec<&str> = lines.iter().filter_map(|line| line["logs"][0]["data"].as_str()).collect();
    // "out\n"
    assert_eq!(logs.concat(), "b3V0Cg==");
}

#[test]
fn docker_builds_in_its_classic_way() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = "FROM busybox\nARG A\nRUN echo out $A; echo err >&2\nCOPY a /a\nCMD [\"cat\", \"/a\"]\n";
    let at = directory(&machine, "classic", &[("Dockerfile", dockerfile), ("a", "1\n")]);
    let context = at.to_str().unwrap();
    let done =
        docker_build(&machine, &["-t", "web:1", "-t", "web:2", "--build-arg", "A=b", "--label", "l=m"], context, b"");
    let said = done.text();
    let id = inspect(&engine, "web:1")["Id"].as_str().unwrap().to_owned();
    for words in [
        "Step 1/5 : FROM busybox\n".to_owned(),
        "Step 3/5 : RUN echo out $A; echo err >&2\n ---> Running in ".to_owned(),
        "out b\n".to_owned(),
        "err\n".to_owned(),
        "Step 5/5 : CMD [\"cat\", \"/a\"]\n".to_owned(),
        format!("Successfully built {}\nSuccessfully tagged web:1\nSuccessfully tagged web:2\n", &id[7..19]),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }
    assert_eq!(inspect(&engine, "web:2")["Config"]["Labels"]["l"], "m");
    assert_eq!(run(&engine, "web:2", &[]), "1\n");
    let again = docker_build(&machine, &["--build-arg", "A=b", "--label", "l=m"], context, b"").text();
    assert!(again.contains(" ---> Using cache\n") && !again.contains("Running in"), "{again}");
    assert_eq!(
        docker_build(&machine, &["-q", "--build-arg", "A=b", "--label", "l=m"], context, b"").text(),
        format!("{id}\n")
    );
    std::fs::write(at.join("Dockerfile"), "FROM busybox\nRUN exit 7\n").unwrap();
    let failed = docker_build(&machine, &[], context, b"").expect(7);
    assert!(failed.err.contains("The command '/bin/sh -c exit 7' returned a non-zero code: 7"), "{}", failed.err);
    std::fs::write(at.join("Dockerfile"), "FROM busybox\nRNU x\n").unwrap();
    docker_build(&machine, &[], context, b"")
        .refuses(1, &["dockerfile parse error on line 2: unknown instruction: RNU"]);
    // No registry is in reach here.
    std::fs::write(at.join("Dockerfile"), "FROM busybox\n").unwrap();
    docker_build(&machine, &["--pull"], context, b"").refuses(1, &["failed to resolve source metadata for busybox"]);
}

#[test]
fn a_build_ends_with_its_client() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    let dockerfile = "FROM busybox\nRUN echo begun && sleep 4242\n";
    let at = directory(&machine, "long", &[("Dockerfile", dockerfile)]);
    let sleeps = || {
        let commands = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
        commands.filter(|path| std::fs::read(path).is_ok_and(|line| line == b"sleep\x004242\0")).count()
    };
    let mut client = machine.command(dozen_program());
    let mut client = client.arg("build").arg(&at).stderr(Stdio::null()).spawn().unwrap();
    until("the step runs", || (sleeps() > 0).then_some(()));
    client.kill().unwrap();
    client.wait().unwrap();
    until("the step ends", || (sleeps() == 0).then_some(()));
    until("nothing of it is left", || engine.dozen(&["ps", "-aq"]).text().is_empty().then_some(()));
}

#[test]
fn the_python_sdk_builds() {
    let machine = Machine::new();
    let engine = with_busybox(&machine);
    directory(
        &machine,
        "sdk",
        &[("Dockerfile", "FROM busybox\nARG A\nRUN echo $A > /a\n"), ("bad", "FROM busybox\nRUN exit 5\n")],
    );
    let program = "import docker, io\n\
        client = docker.from_env()\n\
        image, log = client.images.build(path='sdk', tag='sdk:1', buildargs={'A': 'b'}, labels={'l': 'm'}, rm=True)\n\
        assert image.tags == ['sdk:1'] and image.labels['l'] == 'm', image.attrs\n\
        text = ''.join(line.get('stream', '') for line in log)\n\
        assert 'Step 3/3 : RUN echo $A > /a' in text, text\n\
        assert client.containers.run('sdk:1', 'cat /a', remove=True, network_mode='none') == b'b\\n'\n\
        image, _ = client.images.build(fileobj=io.BytesIO(b'FROM busybox\\nCMD true\\n'))\n\
        try:\n    client.images.build(path='sdk', dockerfile='bad')\n    raise SystemExit('it built')\n\
        except docker.errors.BuildError as error:\n    assert 'non-zero code: 5' in error.msg, error\n\
        print('passed')\n";
    let program = program.replace("path='sdk'", &format!("path='{}'", beside(&machine, "sdk")));
    let done = machine.run(python_program(), &["-c", &program]);
    assert_eq!(done.text(), "passed\n", "{}", engine.log());
}
