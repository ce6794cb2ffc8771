//! Registries whose authority only their directory below `certs.d` names, and such as want to know who asks.

use std::path::{Path, PathBuf};

use dozen_testbox::{Daemon, MACHINE_ADDRESS, Machine};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::registry::Registry;

/// Where the directories of registries are, for an engine of a test's own.
pub fn certs(machine: &Machine) -> PathBuf {
    machine.directory().join("certs.d")
}

/// Puts a file into the directory of a registry.
pub fn put(machine: &Machine, registry: &str, name: &str, text: &str) {
    let directory = certs(machine).join(registry);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(name), text).unwrap();
}

/// An engine that looks for them there.
pub fn engine(machine: &Machine) -> Daemon<'_> {
    Daemon::start(machine, &["--certs-dir", certs(machine).to_str().unwrap()])
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for the machine, and its key.
    fn sign(&self) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![MACHINE_ADDRESS.to_string()]).unwrap();
        [params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem()]
    }
}

/// A registry with one image and this certificate; `more`: of how it listens.
fn secured<'a>(machine: &'a Machine, [certificate, key]: &[String; 2], more: &str) -> Registry<'a> {
    let open = Registry::with(machine, 5001, "");
    open.fill("busybox", "box:1");
    drop(open);
    let file = |name: &str, text: &str| {
        let path = machine.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (file("server.pem", certificate), file("server.key", key));
    Registry::listening(machine, 5001, &format!(", tls: {{ certificate: {certificate}, key: {key}{more} }}"), "")
}

#[test]
fn an_authority_is_named_in_the_registrys_directory() {
    let machine = Machine::new();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let registry = secured(&machine, &ours.sign(), "");
    let daemon = engine(&machine);
    let host = format!("{MACHINE_ADDRESS}:{}", registry.port);
    let name = format!("{host}/box:1");
    let refused = daemon.dozen(&["pull", &name]).expect(1);
    assert!(
        refused.err.contains(&format!("put its authority into /etc/dozen/certs.d/{host}/ca.crt")),
        "{}",
        refused.err
    );
    put(&machine, &host, "ca.crt", &other.pem);
    daemon.dozen(&["pull", &name]).refuses(1, &["cannot reach the registry", "certificate"]);
    put(&machine, &host, "ca.crt", "no certificate");
    daemon.dozen(&["pull", &name]).refuses(1, &["ca.crt: ", "there is no certificate in it (PEM)"]);
    // Nothing has to be started again.
    put(&machine, &host, "ca.crt", &other.pem);
    put(&machine, &host, "second.crt", &ours.pem);
    daemon.dozen(&["pull", &name]).expect(0);
    daemon.dozen(&["run", "--rm", "--pull", "always", &name, "true"]).expect(0);
    let sent = format!("{host}/sent/there:1");
    daemon.dozen(&["tag", &name, &sent]).expect(0);
    daemon.dozen(&["push", &sent]).expect(0);
    daemon.dozen(&["rmi", &sent]).expect(0);
    daemon.dozen(&["pull", &sent]).expect(0);
    std::fs::remove_dir_all(certs(&machine)).unwrap();
    daemon.dozen(&["pull", &name]).refuses(1, &["certificate"]);
    daemon.dozen(&["push", &sent]).refuses(1, &["certificate"]);
    // As containerd calls it, for what cannot have a colon in its names.
    put(&machine, &host.replace(':', "_").replace("5001", "5001_"), "ca.crt", &ours.pem);
    daemon.dozen(&["pull", &name]).expect(0);
}

#[test]
fn a_server_may_be_its_own_authority() {
    let machine = Machine::new();
    // As `openssl req -x509` makes it.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![MACHINE_ADDRESS.to_string()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = [params.self_signed(&key).unwrap().pem(), key.serialize_pem()];
    let registry = secured(&machine, &own, "");
    let daemon = engine(&machine);
    let host = format!("{MACHINE_ADDRESS}:{}", registry.port);
    daemon.dozen(&["pull", &format!("{host}/box:1")]).refuses(1, &["certificate"]);
    put(&machine, &host, "ca.crt", &own[0]);
    daemon.dozen(&["pull", &format!("{host}/box:1")]).expect(0);
    // It is for this name and no other: another's registry cannot show it.
    let name = "box.example:5001";
    put(&machine, name, "ca.crt", &own[0]);
    let toml = format!("[host.\"https://{host}\"]\nca = \"ca.crt\"\n");
    put(&machine, name, "hosts.toml", &toml);
    daemon.dozen(&["pull", &format!("{name}/box:1")]).expect(0);
}

#[test]
fn a_registry_may_want_to_know_who_asks() {
    let machine = Machine::new();
    let (ours, staff, others) = (Authority::new("ours"), Authority::new("staff"), Authority::new("others"));
    let clients = machine.directory().join("clients.pem");
    std::fs::write(&clients, &staff.pem).unwrap();
    let registry = secured(&machine, &ours.sign(), &format!(", clientcas: [{}]", clients.display()));
    let daemon = engine(&machine);
    let host = format!("{MACHINE_ADDRESS}:{}", registry.port);
    let name = format!("{host}/box:1");
    put(&machine, &host, "ca.crt", &ours.pem);
    daemon.dozen(&["pull", &name]).refuses(1, &[&host]);
    let path: &Path = &certs(&machine).join(&host);
    let [certificate, key] = staff.sign();
    put(&machine, &host, "me.cert", &certificate);
    let words = format!("{}: missing key me.key for client certificate me.cert", path.display());
    daemon.dozen(&["pull", &name]).refuses(1, &[&words, "CA certificates must use the extension .crt"]);
    // One of somebody else's: of several the one counts that the server can know.
    let [other_certificate, other_key] = others.sign();
    put(&machine, &host, "another.cert", &other_certificate);
    put(&machine, &host, "another.key", &other_key);
    put(&machine, &host, "me.key", &other_key);
    let refused = daemon.dozen(&["pull", &name]).expect(1);
    assert!(refused.err.contains("me.cert: the certificates cannot be used"), "{}", refused.err);
    put(&machine, &host, "me.key", &key);
    daemon.dozen(&["pull", &name]).expect(0);
    for text in [refused.err, daemon.said()] {
        assert!(!text.contains("PRIVATE KEY") && !text.contains(key.lines().nth(1).unwrap()), "{text}");
    }
    // The same by containerd's file.
    daemon.dozen(&["rmi", &name]).expect(0);
    std::fs::rename(path.join("me.cert"), path.join("staff.pem")).unwrap();
    std::fs::rename(path.join("me.key"), path.join("staff-key.pem")).unwrap();
    put(&machine, &host, "hosts.toml", "ca = \"ca.crt\"\nclient = [[\"staff.pem\", \"staff-key.pem\"]]\n");
    daemon.dozen(&["pull", &name]).expect(0);
    daemon.dozen(&["push", &name]).expect(0);
}
