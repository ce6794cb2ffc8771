//! Both ends, over loopback: who is let in, and how streams end.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dozen_tls::{Acceptor, ClientFiles, ServerFiles, TlsError, connect, serve};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;

/// Someone whose signature is trusted, or not.
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

    /// A certificate for 127.0.0.1, good until that year; the files' paths: authority, certificate, key.
    fn sign(&self, directory: &Path, name: &str, year: i32) -> [PathBuf; 3] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let texts = [("ca", self.pem.clone()), ("cert", certificate.pem()), ("key", key.serialize_pem())];
        texts.map(|(kind, text)| {
            let path = directory.join(format!("{name}-{kind}.pem"));
            std::fs::write(&path, text).unwrap();
            path
        })
    }
}

struct Served {
    directory: tempfile::TempDir,
    authority: Authority,
    files: [PathBuf; 3],
    acceptor: Acceptor,
    address: SocketAddr,
    clients: mpsc::Receiver<UnixStream>,
}

async fn served() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let files = authority.sign(directory.path(), "good", 3000);
    let acceptor = Acceptor::new(&server_files(&files)).unwrap();
    let (address, clients) = listen(Some(acceptor.clone())).await;
    Served { directory, authority, files, acceptor, address, clients }
}

async fn listen(acceptor: Option<Acceptor>) -> (SocketAddr, mpsc::Receiver<UnixStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, clients) = mpsc::channel(4);
    tokio::spawn(serve(listener, acceptor, sender));
    (address, clients)
}

fn server_files([authority, certificate, key]: &[PathBuf; 3]) -> ServerFiles {
    ServerFiles { authority: authority.clone(), certificate: certificate.clone(), key: key.clone() }
}

fn client_files([authority, certificate, key]: &[PathBuf; 3]) -> ClientFiles {
    ClientFiles { authority: authority.clone(), certificate: certificate.clone(), key: key.clone() }
}

/// The client asks with a megabyte and a half-close, and is answered as much and a word.
async fn half_close(mut client: UnixStream, clients: &mut mpsc::Receiver<UnixStream>) {
    let mut engine = clients.recv().await.unwrap();
    let large = vec![b'x'; 1 << 20];
    let (answer, asked) = tokio::join!(
        async {
            client.write_all(&large).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        },
        async {
            let mut question = Vec::new();
            engine.read_to_end(&mut question).await.unwrap();
            engine.write_all(&question).await.unwrap();
            engine.write_all(b" and goodbye").await.unwrap();
            drop(engine);
            question.len()
        }
    );
    assert_eq!(asked, 1 << 20);
    assert!(answer.len() == (1 << 20) + 12 && answer.ends_with(b" and goodbye"));
}

#[tokio::test]
async fn a_half_close_arrives_and_the_answer_still_comes() {
    let mut served = served().await;
    let client = connect(served.address, "127.0.0.1", Some(&client_files(&served.files))).await.unwrap();
    half_close(client.stream, &mut served.clients).await;
    let (address, mut clients) = listen(None).await;
    let client = connect(address, "127.0.0.1", None).await.unwrap();
    half_close(client.stream, &mut clients).await;
}

#[tokio::test]
async fn a_client_that_leaves_hangs_up() {
    let mut served = served().await;
    let tls = client_files(&served.files);
    let (address, mut bare) = listen(None).await;
    for (address, files, clients) in [(served.address, Some(&tls), &mut served.clients), (address, None, &mut bare)] {
        let client = connect(address, "127.0.0.1", files).await.unwrap();
        let mut engine = clients.recv().await.unwrap();
        drop(client);
        assert_eq!(engine.read(&mut [0; 1]).await.unwrap(), 0);
        // Not only half: writing fails.
        while engine.write_all(b"anybody?").await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn an_engine_that_ends_hangs_up() {
    let mut served = served().await;
    let mut client = connect(served.address, "127.0.0.1", Some(&client_files(&served.files))).await.unwrap();
    let mut engine = served.clients.recv().await.unwrap();
    engine.write_all(b"last words").await.unwrap();
    // Something that it has not read must not take them along.
    client.stream.write_all(b"never read").await.unwrap();
    engine.readable().await.unwrap();
    drop(engine);
    let mut heard = Vec::new();
    client.stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
}

#[tokio::test]
async fn who_has_no_good_certificate_of_the_authoritys_is_nobody() {
    let mut served = served().await;
    let directory = served.directory.path();
    let foreign = Authority::new("another").sign(directory, "foreign", 3000);
    let expired = served.authority.sign(directory, "expired", 2020);
    // The engine's authority is trusted; our own certificate is another one's, or no longer good.
    for (bad, word) in [(&foreign, "UnknownCA"), (&expired, "Expired")] {
        let stranger = [served.files[0].clone(), bad[1].clone(), bad[2].clone()];
        // In TLS 1.3 the client is done before the engine has looked.
        let mut client = connect(served.address, "127.0.0.1", Some(&client_files(&stranger))).await.unwrap();
        let _ = client.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = client.stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
        let why = client.ended.get().unwrap();
        assert!(why.contains(word), "{why}");
    }
    // The engine's is another one's than the authority that we trust, or is for another name.
    let mistrusting = [foreign[0].clone(), served.files[1].clone(), served.files[2].clone()];
    let refused = connect(served.address, "127.0.0.1", Some(&client_files(&mistrusting))).await.unwrap_err();
    assert!(matches!(refused, TlsError::Connect { .. }), "{refused:?}");
    connect(served.address, "127.0.0.2", Some(&client_files(&served.files))).await.unwrap_err();
    // Who speaks no TLS at all has no answer but an alert.
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    // Nobody of them was let in: the next one is the first.
    let mut good = connect(served.address, "127.0.0.1", Some(&client_files(&served.files))).await.unwrap();
    good.stream.write_all(b"me").await.unwrap();
    let mut first = [0; 2];
    served.clients.recv().await.unwrap().read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"me");
}

#[tokio::test]
async fn many_who_never_say_who_they_are_hold_nobody_up() {
    let mut served = served().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    let mut good = connect(served.address, "127.0.0.1", Some(&client_files(&served.files))).await.unwrap();
    good.stream.write_all(b"me").await.unwrap();
    let mut first = [0; 2];
    served.clients.recv().await.unwrap().read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"me");
    // The first ones have made room.
    assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
    // And who was let in stays, however many more come.
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    good.stream.write_all(b"still me").await.unwrap();
}

#[tokio::test]
async fn certificates_are_replaced_while_clients_come() {
    let served = served().await;
    let next = Authority::new("another").sign(served.directory.path(), "next", 3000);
    served.acceptor.reload(&server_files(&next)).unwrap();
    connect(served.address, "127.0.0.1", Some(&client_files(&served.files))).await.unwrap_err();
    connect(served.address, "127.0.0.1", Some(&client_files(&next))).await.unwrap();
    // Bad ones change nothing, and what is in them is not told.
    let certificate = std::fs::read(&next[1]).unwrap();
    let key = std::fs::read_to_string(&next[2]).unwrap();
    std::fs::write(&next[1], "no certificate").unwrap();
    let error = served.acceptor.reload(&server_files(&next)).unwrap_err();
    assert!(error.to_string().contains("there is none in it"), "{error}");
    std::fs::write(&next[1], key.replace("KEY-----\n", "KEY-----")).unwrap();
    let error = served.acceptor.reload(&server_files(&next)).unwrap_err();
    assert!(!error.to_string().contains(key.lines().nth(1).unwrap()), "{error}");
    // A certificate of another key.
    std::fs::write(&next[1], std::fs::read(&served.files[1]).unwrap()).unwrap();
    served.acceptor.reload(&server_files(&next)).unwrap_err();
    std::fs::write(&next[1], certificate).unwrap();
    connect(served.address, "127.0.0.1", Some(&client_files(&next))).await.unwrap();
}
