//! A registry of our own, by the real binary: other people's clients push to it and pull from it, and whatever kills it
//! leaves it whole.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod crash;
mod metrics;
mod retention;
mod rights;
mod scrub;
mod server;
mod stores;
mod upstreams;
mod webhooks;

use dozen_testbox::{Machine, dozen_program, until};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;

use server::{HOST, Server, check, curl, root};

#[test]
fn skopeo_pushes_and_our_engine_pulls_and_runs() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    server.push("nginx:1.22", "team/web:1").expect(0);
    server.push("busybox", "team/box:1").expect(0);
    let engine = machine.engine();
    let web = format!("{HOST}/team/web:1");
    engine.dozen(&["pull", &web]).expect(0);
    engine.dozen(&["run", "--rm", "--pull", "never", &web, "nginx", "-v"]).expect(0);
    let ran = engine.dozen(&["run", "--rm", &format!("{HOST}/team/box:1"), "echo", "hello"]).expect(0);
    assert_eq!(ran.out, "hello\n");
    let docker = engine.docker(&["pull", &format!("{HOST}/team/box:1")]).text();
    assert!(docker.contains("Status: Image is up to date"), "{docker}");
    engine.dozen(&["pull", &format!("{HOST}/team/web:2")]).refuses(1, &["manifest unknown"]);
    // What skopeo brings to it and takes from it again is the same to the byte.
    let raw = |source: &str| {
        machine.run("skopeo", &["--insecure-policy", "inspect", "--raw", "--tls-verify=false", source]).text()
    };
    let (from, to) = (format!("docker://{HOST}/team/web:1"), format!("docker://{HOST}/other/web:again"));
    let copy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to];
    machine.run("skopeo", &copy).expect(0);
    assert_eq!(raw(&from), raw(&to));
    machine.run("skopeo", &["delete", "--tls-verify=false", &to]).expect(0);
    let gone = machine.run("skopeo", &["inspect", "--tls-verify=false", &to]);
    assert!(gone.code != 0 && gone.err.contains("manifest unknown"), "{gone:?}");
    drop(server);
    check(&machine).expect(0);
}

#[test]
fn a_build_cache_goes_there_and_comes_back() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    let engine = machine.engine();
    engine.load("busybox");
    let at = machine.directory().join("context");
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("Dockerfile"), "FROM busybox\nRUN date +%s%N > /time\nRUN cat /time > /again\n").unwrap();
    let name = format!("{HOST}/team/web:cache");
    let build = |flag: &str| {
        let line = ["build", "--network", "none", "-t", "made", flag, &name, at.to_str().unwrap()];
        engine.dozen(&line).expect(0).err
    };
    build("--cache-to");
    let time = || engine.dozen(&["run", "--rm", "--network", "none", "made", "cat", "/again"]).text();
    let first = time();
    engine.dozen(&["rmi", "made"]).expect(0);
    engine.dozen(&["builder", "prune", "-af"]).expect(0);
    let said = build("--cache-from");
    assert_eq!((said.matches(" CACHED\n").count(), time()), (2, first), "{said}");
    drop(server);
    check(&machine).expect(0);
}

#[test]
fn over_tls_only_those_with_a_password_push_and_pull() {
    let machine = Machine::new();
    let file = |name: &str, text: &str| {
        let path = machine.directory().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = || {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        file("certs/ca.crt", &made.pem());
        (file("cert.pem", &made.pem()), file("key.pem", &key.serialize_pem()))
    };
    let (certificate_file, key_file) = certificate();
    // htpasswd -nbB -C 4 ann secret; and other in its place
    let secret = "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
    let other = "ann:$2b$04$abcdefghijklmnopqrstuu0HtfOlPbTiymk5tcV.3TsFPDd3SYZqu\n";
    let passwords = file("passwords", secret);
    let tls = ["--tls-cert", &certificate_file, "--tls-key", &key_file];
    let arguments = [&["--listen", "0.0.0.0:5000", "--htpasswd", &passwords][..], &tls].concat();
    let server = Server::start(&machine, &arguments);
    let certificates = machine.directory().join("certs");
    let copy = |credentials: &str| {
        let source = format!("oci-archive:{}", dozen_testbox::image_archive("nginx:1.22").display());
        let target = format!("docker://{HOST}/team/web:1");
        let trusted = ["--dest-cert-dir", certificates.to_str().unwrap(), "--dest-creds", credentials];
        machine.run("skopeo", &[&["--insecure-policy", "copy", "-q"][..], &trusted, &[&source, &target]].concat())
    };
    let refused = copy("ann:wrong");
    assert!(refused.code != 0 && refused.err.contains("authentication required"), "{refused:?}");
    copy("ann:secret").expect(0);
    let target = format!("dir:{}", machine.directory().join("pulled").display());
    let source = format!("docker://{HOST}/team/web:1");
    let trusted = ["--src-cert-dir", certificates.to_str().unwrap(), "--src-creds", "ann:secret"];
    let pull = [&["--insecure-policy", "copy", "-q"][..], &trusted, &[&source, &target]].concat();
    machine.run("skopeo", &pull).expect(0);
    // Files are read again, and one that is wrong changes nothing.
    file("passwords", other);
    server.signal(Signal::HUP);
    until("the passwords are read", || server.said().contains("have been read again").then_some(()));
    assert!(copy("ann:secret").code != 0);
    copy("ann:other").expect(0);
    certificate();
    file("passwords", "nonsense\n");
    server.signal(Signal::HUP);
    until("the passwords are refused", || server.said().contains("write NAME:HASH").then_some(()));
    copy("ann:other").expect(0);
}

#[test]
fn nobody_is_let_in_by_mistake() {
    let machine = Machine::new();
    let root = root(&machine);
    let serve = |arguments: &[&str]| {
        machine.run(dozen_program(), &[&["registry", "serve", "--root", root.to_str().unwrap()], arguments].concat())
    };
    serve(&["--listen", "0.0.0.0:5000"]).refuses(1, &["give --tls-cert and --tls-key"]);
    serve(&["--listen", "0.0.0.0:5000", "--plain-http"]).refuses(1, &["give --htpasswd"]);
    serve(&["--htpasswd", "/nowhere"]).refuses(1, &["cannot read the passwords in /nowhere"]);
    serve(&["--tls-cert", "a", "--tls-key", "b"]).refuses(1, &["cannot read the certificate a"]);
    let _server = Server::start(&machine, &["--listen", "127.0.0.1:5000"]);
    serve(&["--listen", "127.0.0.1:0"]).refuses(1, &["another registry serves what is in"]);
    // Before a bucket is taken, or even asked.
    let nowhere = ["--store", "s3://bucket", "--store-endpoint", "http://127.0.0.1:1"];
    serve(&nowhere).refuses(1, &["cannot listen on 127.0.0.1:5000: Address already in use"]);
    check(&machine).refuses(1, &["another registry serves what is in"]);
    machine.run(dozen_program(), &["help", "registry"]).refuses(1, &["dozen registry --help"]);
}

/// A blob ten times as large as what the server may take.
#[test]
fn memory_does_not_grow_with_a_blob() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    let blob = machine.directory().join("blob");
    std::fs::File::create(&blob).unwrap().set_len(512 << 20).unwrap();
    let digest = machine.run("sha256sum", &[blob.to_str().unwrap()]).text();
    let digest = format!("sha256:{}", digest.split(' ').next().unwrap());
    let to = format!("http://{HOST}/v2/a/blobs/uploads?digest={digest}");
    let sent = curl(&machine, &["-X", "POST", "-T", blob.to_str().unwrap(), &to]).text();
    assert!(sent.contains("201 Created"), "{sent}");
    let from = format!("http://{HOST}/v2/a/blobs/{digest}");
    let pulls: Vec<_> = (0..8)
        .map(|_| {
            let mut command = machine.command("sh");
            command.args(["-c", "curl --silent --fail \"$0\" | sha256sum", &from]).stdout(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for pull in pulls {
        let found = String::from_utf8(pull.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(format!("sha256:{}", found.split(' ').next().unwrap()), digest);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    };
    // The program's own pages, which a build for tests has many of, are no memory of the work.
    let most = kib("VmHWM") - kib("RssFile");
    assert!(most < 50 << 10, "{most} KiB");
}

#[test]
fn it_ends_in_order_and_what_is_under_way_is_finished() {
    let machine = Machine::new();
    let server = Server::start(&machine, &[]);
    server.push("busybox", "box:1").expect(0);
    server.signal(Signal::TERM);
    assert!(server.ended());
    check(&machine).expect(0);
    let server = Server::start(&machine, &["--read-only"]);
    let refused = server.push("busybox", "box:2");
    assert!(refused.code != 0 && refused.err.contains("read-only"), "{refused:?}");
    let pulled = format!("docker://{HOST}/box:1");
    machine.run("skopeo", &["inspect", "--tls-verify=false", &pulled]).expect(0);
}
