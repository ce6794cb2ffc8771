//! A registry on a socket, and a client that sends what it is told to, right or wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use dozen_distribution::{Access, AllowedHosts, Options, Store, StoreOptions, Upstreams, Watch};
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub struct Registry {
    pub address: SocketAddr,
    pub store: Arc<Store>,
    pub runtime: Runtime,
    pub root: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<()>>,
}

pub struct Choices {
    pub store: StoreOptions,
    pub access: Access,
    pub read_only: bool,
    pub hosts: AllowedHosts,
    pub stall: Duration,
    pub redirects: bool,
    pub has_page: bool,
    pub upstreams: Option<Upstreams>,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            store: StoreOptions::default(),
            access: Access::Open,
            read_only: false,
            hosts: AllowedHosts::Named(Vec::new()),
            stall: Duration::from_secs(60),
            redirects: false,
            has_page: true,
            upstreams: None,
        }
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}: {}", self.fields, String::from_utf8_lossy(&self.body));
        self
    }

    /// Refused, in the specification's form.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        let reply = self.is(status);
        assert_eq!(reply.json()["errors"][0]["code"], code, "{}", reply.json());
        reply
    }
}

impl Registry {
    pub fn start() -> Self {
        Self::with(Choices::default())
    }

    pub fn with(choices: Choices) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), choices)
    }

    pub fn in_directory(root: tempfile::TempDir, choices: Choices) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let path = root.path().to_owned();
        let (store, address, served) = runtime.block_on(async {
            let store = crate::open(&path, choices.store).await;
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let options = Options {
                access: choices.access,
                read_only: choices.read_only,
                hosts: choices.hosts,
                stall: choices.stall,
                redirects: choices.redirects,
                has_page: choices.has_page,
                most_connections: 256,
                upstreams: choices.upstreams,
                watch: Watch::default(),
            };
            let serving = store.clone();
            let served = tokio::spawn(async move {
                let stopped = async { drop(stopped.await) };
                dozen_distribution::serve(serving, options, listener, None, stopped).await;
            });
            (store, address, served)
        });
        Self { address, store, runtime, root, stop: Some(stop), served: Some(served) }
    }

    /// Ends in order, and gives its directory back.
    pub fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        let served = self.served.take().unwrap();
        self.runtime.block_on(served).unwrap();
        let Self { store, runtime, root, .. } = self;
        drop(store);
        drop(runtime);
        root
    }

    pub fn send(&self, head: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        // One that is refused may be told so before all is sent.
        let _ = stream.write_all(body);
        stream
    }

    pub fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        let is_long = fields.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        });
        if !is_long && (!body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH")) {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        read_reply(self.send(&(head + "\r\n"), body))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], b"")
    }

    /// Begins an upload: its location.
    pub fn begin(&self, name: &str) -> String {
        let reply = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"").is(202);
        reply.field("location").unwrap().to_owned()
    }

    /// By POST and PUT.
    pub fn push_blob(&self, name: &str, content: &[u8]) -> String {
        let (location, digest) = (self.begin(name), sha256(content));
        self.ask("PUT", &format!("{location}?digest={digest}"), &[], content).is(201);
        digest
    }

    pub fn put_manifest(&self, name: &str, reference: &str, manifest: &Value) -> Reply {
        let text = manifest.to_string();
        let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
        self.ask("PUT", &format!("/v2/{name}/manifests/{reference}"), &[("Content-Type", &media_type)], text.as_bytes())
    }

    /// An image of one configuration and one layer: its digest.
    pub fn push_image(&self, name: &str, tag: &str) -> String {
        let manifest = self.image(name, tag);
        self.put_manifest(name, tag, &manifest).is(201);
        sha256(manifest.to_string().as_bytes())
    }

    pub fn image(&self, name: &str, words: &str) -> Value {
        let (config, layer) = (format!("{{\"config\":\"{words}\"}}"), format!("layer {words}"));
        self.push_blob(name, config.as_bytes());
        self.push_blob(name, layer.as_bytes());
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer.as_bytes())],
        })
    }
}

pub fn read_reply(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields = lines.map(|line| line.split_once(':').unwrap());
    let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let reply = Reply { status, fields, body: bytes[end + 4..].to_vec() };
    assert_eq!(reply.field("docker-distribution-api-version"), Some("registry/2.0"));
    reply
}

pub fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex(&sha2::Sha256::digest(content)))
}

pub fn sha512(content: &[u8]) -> String {
    format!("sha512:{}", hex(&sha2::Sha512::digest(content)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(content), "size": content.len() })
}
