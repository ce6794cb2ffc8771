//! A cache in front of another registry, by the real binary: our engine pulls through it, the other one goes away, and what
//! was pulled is still there.

use std::path::PathBuf;

use dozen_testbox::{Daemon, Machine, dozen_program, until};
use rustix::process::Signal;

use crate::server::{HOST, Server, check, curl, failpoints, push_to, root};

const THERE: &str = "127.0.0.1:5001";
const THERE_URL: &str = "http://127.0.0.1:5001";

fn file(machine: &Machine, name: &str, text: &str) -> PathBuf {
    let path = machine.directory().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn upstreams(machine: &Machine, rest: &str) -> PathBuf {
    file(
        machine,
        "upstreams.toml",
        &format!("[[upstream]]\nrepositories = \"cache/**\"\nurl = \"{THERE_URL}/team\"\nfresh = \"0s\"\n{rest}\n"),
    )
}

#[test]
fn an_engine_pulls_through_it_and_again_while_the_upstream_is_away() {
    let machine = Machine::new();
    let there = Server::beside(&machine, "there", &["--listen", THERE]);
    push_to(&machine, THERE, "busybox", "team/box:1").expect(0);
    let file = upstreams(&machine, "");
    let server = Server::start(&machine, &["--upstreams", file.to_str().unwrap()]);
    let engine = machine.engine();
    let image = format!("{HOST}/cache/box:1");
    let pull_and_run = || {
        engine.dozen(&["pull", &image]).expect(0);
        let ran = engine.dozen(&["run", "--rm", "--pull", "never", &image, "echo", "hello"]).expect(0);
        assert_eq!(ran.out, "hello\n");
        engine.dozen(&["rmi", &image]).expect(0);
    };
    pull_and_run();
    engine.dozen(&["pull", &format!("{HOST}/cache/box:2")]).refuses(1, &["manifest unknown"]);
    there.signal(Signal::TERM);
    assert!(there.ended());
    pull_and_run();
    let told = "127.0.0.1:5001 cannot be asked for cache/box:1: what is here is given, and may be old";
    assert!(server.said().contains(told), "{}", server.said());
    let answer = curl(&machine, &[&format!("http://{HOST}/v2/cache/box/manifests/1")]).text();
    assert!(answer.contains("warning: 299 - "), "{answer}");
    // It is no place to push to, and its own repositories are.
    let refused = server.push("busybox", "cache/box:2");
    assert!(refused.code != 0 && refused.err.contains("has here what 127.0.0.1:5001 has as team/box"), "{refused:?}");
    server.push("busybox", "own/box:1").expect(0);
    // A server that is killed has lost nothing of it.
    server.signal(Signal::KILL);
    assert!(!server.ended());
    let server = Server::start(&machine, &["--upstreams", file.to_str().unwrap()]);
    pull_and_run();
    drop(server);
    check(&machine).expect(0);
}

/// Two registries have another image each under one name, and the engine means the one that it names.
#[test]
fn one_server_is_the_mirror_of_all_its_upstreams() {
    let machine = Machine::new();
    let all = [("one", THERE), ("two", "127.0.0.1:5002")];
    let there: Vec<_> = all.map(|(name, host)| Server::beside(&machine, name, &["--listen", host])).into();
    let (mut text, certificates) = (String::new(), machine.directory().join("certs.d"));
    for (name, host) in all {
        text += &format!("[[upstream]]\nrepositories = \"{name}/**\"\nurl = \"http://{host}\"\n");
        let hosts = certificates.join(host);
        std::fs::create_dir_all(&hosts).unwrap();
        std::fs::write(hosts.join("hosts.toml"), format!("[host.\"http://{HOST}\"]\n")).unwrap();
    }
    let file = file(&machine, "all.toml", &text);
    let _server = Server::start(&machine, &["--upstreams", file.to_str().unwrap()]);
    let daemon = Daemon::start(&machine, &["--certs-dir", certificates.to_str().unwrap()]);
    daemon.load("busybox");
    for (_, host) in all {
        let (file, name) = (format!("FROM busybox\nLABEL host={host}\n"), format!("{host}/team/web:1"));
        machine.run_with(dozen_program(), &["build", "-q", "-t", &name, "-"], file.as_bytes(), &[]).expect(0);
        daemon.dozen(&["push", "-q", &name]).expect(0);
        daemon.dozen(&["rmi", &name]).expect(0);
    }
    let pulled = || {
        all.map(|(_, host)| {
            let name = format!("{host}/team/web:1");
            daemon.dozen(&["pull", "-q", &name]).expect(0);
            let id = daemon.dozen(&["image", "inspect", "--format", "{{.Id}}", &name]).text();
            daemon.dozen(&["rmi", &name]).expect(0);
            id
        })
    };
    let first = pulled();
    assert_ne!(first[0], first[1]);
    // They went through it, so they are there without the two.
    drop(there);
    assert_eq!(pulled(), first);
    let names = curl(&machine, &[&format!("http://{HOST}/v2/_catalog")]).text();
    assert!(names.contains("[\"one/team/web\",\"two/team/web\"]"), "{names}");
}

/// Answers all with a status, and wants to be left alone.
const BUSY: &str = "
import http.server, sys
class Busy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[1]))
        self.send_header('Retry-After', '50')
        self.send_header('Content-Length', '0')
        self.end_headers()
    do_HEAD = do_GET
http.server.HTTPServer(('127.0.0.1', 5001), Busy).serve_forever()
";

#[test]
fn an_upstream_that_has_enough_of_us_takes_nothing_away() {
    let machine = Machine::new();
    let there = Server::beside(&machine, "there", &["--listen", THERE]);
    push_to(&machine, THERE, "busybox", "team/box:1").expect(0);
    let file = upstreams(&machine, "");
    let begin = || Server::start(&machine, &["--upstreams", file.to_str().unwrap()]);
    let server = begin();
    server.pull("cache/box:1").expect(0);
    drop((there, server));
    for status in ["429", "503"] {
        let mut busy = machine.command("python3").args(["-c", BUSY, status]).spawn().unwrap();
        until("it answers", || (curl(&machine, &[THERE_URL]).code == 0).then_some(()));
        // One that has just begun asks; it is not kept waiting by what the other one wishes.
        let server = begin();
        server.pull("cache/box:1").expect(0);
        assert!(server.said().contains("cannot be asked for cache/box:1"), "{status}: {}", server.said());
        let other = format!("http://{HOST}/v2/cache/box/manifests/2");
        let told = curl(&machine, &[&other]).text();
        assert!(told.starts_with("HTTP/1.1 502") && !server.said().contains("asking again"), "{status}: {told}");
        busy.kill().unwrap();
        busy.wait().unwrap();
    }
}

/// Lists without an end, without measure, with what is no tag, and with a next page at another's, who is told nothing.
const HOSTILE: &str = r#"
import http.server, sys, threading
class Hostile(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition('?')
        name = path.split('/')[3] if path.count('/') > 3 else ''
        status, body, link, kind = 200, b'{"tags":["a"]}', None, 'application/json'
        if self.server.server_port == 5002:
            print('THE OTHER HEARD', self.headers.get('Authorization'), flush=True)
        elif 'Authorization' not in self.headers:
            status = 401
        elif path.endswith('tags/list'):
            if name == 'circle':
                link = '<?last=a>; rel="next"'
            elif name == 'large':
                body = b'{"tags":["' + b'a' * (5 << 20) + b'"]}'
            elif name == 'odd':
                body = b'{"tags":["<script>"]}'
            elif name == 'pages' and not query:
                link = '<http://127.0.0.1:5002/v2/team/pages/tags/list?last=a>; rel="next"'
            elif name == 'pages':
                body = b'{"tags":["b"]}'
            elif name == 'away':
                status, link = 307, None
        elif 'referrers' in path:
            kind = 'application/vnd.oci.image.index.v1+json'
            body = b'{"manifests":[' + b'{},' * (4 << 20) + b'{}]}' if name == 'large' else b'{"manifests":[{"digest":"x"}]}'
        self.send_response(status)
        if status == 401:
            self.send_header('WWW-Authenticate', 'Basic realm="here"')
        if status == 307:
            self.send_header('Location', 'http://127.0.0.1:5002' + self.path)
        if link:
            self.send_header('Link', link)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass
    def log_message(self, *_):
        pass
for port in (5002, 5001):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', port), Hostile)
    threading.Thread(target=server.serve_forever).start()
"#;

#[test]
fn an_upstream_whose_lists_mean_ill_is_told_of_and_learns_nothing() {
    let machine = Machine::new();
    let heard = machine.directory().join("heard");
    let out = std::fs::File::create(&heard).unwrap();
    let mut hostile = machine.command("python3").args(["-c", HOSTILE]).stdout(out).spawn().unwrap();
    until("it answers", || (curl(&machine, &[THERE_URL]).code == 0).then_some(()));
    file(&machine, "word", "secret\n");
    let file = upstreams(&machine, "user = \"ann\"\npassword-file = \"word\"");
    let server = Server::start(&machine, &["--upstreams", file.to_str().unwrap()]);
    let get = |below: &str| curl(&machine, &[&format!("http://{HOST}/v2/cache/{below}")]).text();
    for (name, why) in [
        ("circle", "its pages lead in a circle"),
        ("large", "larger than 4194304 bytes"),
        ("odd", "it names something that is no tag"),
    ] {
        let told = get(&format!("{name}/tags/list"));
        assert!(told.starts_with("HTTP/1.1 502") && told.contains("the registry's log says why"), "{name}: {told}");
        assert!(server.said().contains(why), "{name}: {}", server.said());
    }
    let about = format!("referrers/sha256:{}", "0a".repeat(32));
    for name in ["large", "small"] {
        let told = get(&format!("{name}/{about}"));
        assert!(told.starts_with("HTTP/1.1 502"), "{name}: {told}");
    }
    // The next page is the same server's, wherever it is said to be; a redirection is followed as by anybody.
    assert!(get("pages/tags/list").contains("\"tags\":[\"a\",\"b\"]"), "{}", get("pages/tags/list"));
    assert_eq!(std::fs::read_to_string(&heard).unwrap(), "");
    assert!(get("away/tags/list").contains("\"tags\":[\"a\"]"), "{}", get("away/tags/list"));
    let heard = std::fs::read_to_string(&heard).unwrap();
    assert!(heard.lines().count() > 0 && heard.lines().all(|line| line == "THE OTHER HEARD None"), "{heard}");
    assert!(!server.said().replace("password", "").contains("secret"), "{}", server.said());
    hostile.kill().unwrap();
    hostile.wait().unwrap();
}

#[test]
fn killed_while_it_brings_something_it_has_nothing_by_halves() {
    let machine = Machine::new();
    let _there = Server::beside(&machine, "there", &["--listen", THERE]);
    let file = upstreams(&machine, "");
    for name in ["upload.made", "upload.appended", "blob.synced", "blob.placed", "blob.recorded", "manifest.recorded"] {
        // Of each another repository: what is here is not brought.
        let image = name.replace('.', "-");
        push_to(&machine, THERE, "busybox", &format!("team/{image}:1")).expect(0);
        let mut server = Server::start(&machine, &["--upstreams", file.to_str().unwrap()]);
        let armed = failpoints(&machine).join(format!("registry.{name}"));
        std::fs::write(&armed, "").unwrap();
        assert!(server.pull(&format!("cache/{image}:1")).code != 0, "{name}");
        until(name, || server.is_over().then_some(()));
        assert!(!armed.exists(), "{name}");
        drop(server);
        check(&machine).expect(0);
        let server = Server::start(&machine, &["--upstreams", file.to_str().unwrap()]);
        assert_eq!(std::fs::read_dir(root(&machine).join("uploads")).unwrap().count(), 0, "{name}");
        server.pull(&format!("cache/{image}:1")).expect(0);
        drop(server);
        let checked = check(&machine).expect(0);
        // The image has a configuration and a layer, and all have the same.
        assert!(checked.out.starts_with("2 blobs of "), "{name}: {}", checked.out);
    }
}

#[test]
fn the_password_of_an_upstream_is_sent_to_nobody_else_and_that_of_a_client_not_to_it() {
    let machine = Machine::new();
    // htpasswd -nbB -C 4 ann secret
    let secret = "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
    let passwords = file(&machine, "passwords", secret);
    let anonymous = Server::beside(&machine, "there", &["--listen", THERE]);
    push_to(&machine, THERE, "busybox", "team/box:1").expect(0);
    drop(anonymous);
    let _there = Server::beside(&machine, "there", &["--listen", THERE, "--htpasswd", passwords.to_str().unwrap()]);
    // Whoever asks here says the right password, which is not passed on.
    let wanted = upstreams(&machine, "");
    let server =
        Server::start(&machine, &["--upstreams", wanted.to_str().unwrap(), "--htpasswd", passwords.to_str().unwrap()]);
    let manifest = format!("http://{HOST}/v2/cache/box/manifests/1");
    let ask = || curl(&machine, &["--user", "ann:secret", &manifest]).text();
    assert!(ask().contains("127.0.0.1:5001 does not let this registry have it"), "{}", ask());
    file(&machine, "word", "secret\n");
    upstreams(&machine, "user = \"ann\"\npassword-file = \"word\"");
    server.signal(Signal::HUP);
    until("the upstreams are read", || server.said().contains("upstreams have been read again").then_some(()));
    assert!(ask().starts_with("HTTP/1.1 200"), "{}", ask());
    assert!(curl(&machine, &[&manifest]).text().starts_with("HTTP/1.1 401"));
    assert!(server.said().contains("others than its owner can read the password"), "{}", server.said());
    assert!(!server.said().replace("password", "").contains("secret"), "{}", server.said());
    upstreams(&machine, "user = \"ann\"");
    server.signal(Signal::HUP);
    until("the upstreams are refused", || server.said().contains("line 3: user goes with").then_some(()));
    assert!(ask().starts_with("HTTP/1.1 200"), "{}", ask());
}

#[test]
fn upstreams_that_cannot_be_are_refused_at_the_start() {
    let machine = Machine::new();
    let root = root(&machine);
    let serve = |text: &str, more: &[&str]| {
        let path = file(&machine, "upstreams.toml", text);
        let given = ["registry", "serve", "--root", root.to_str().unwrap(), "--upstreams", path.to_str().unwrap()];
        machine.run(dozen_program(), &[&given[..], more].concat())
    };
    let text = "[[upstream]]\nrepositories = \"cache/**\"\nurl = \"https://r.example\"\n";
    serve(text, &["--read-only"]).refuses(2, &["cannot be used with"]);
    serve(&text.replace("https", "http"), &[]).refuses(1, &["line 3: everyone on the way to r.example"]);
    serve(&text.replace("r.example", "registry"), &[]).refuses(1, &["line 3: \"registry\" is no host"]);
    let secret = format!("{text}user = \"ann\"\npassword-env = \"NO_SUCH_SECRET\"\n");
    serve(&secret, &[]).refuses(1, &["line 3: there is no NO_SUCH_SECRET in the environment"]);
}
