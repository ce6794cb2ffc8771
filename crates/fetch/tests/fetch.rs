//! Fetching from servers that answer as they are told, on this host's loopback.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use dozen_fetch::{Address, Authorities, FetchError, Fetching, Patience, Place, Proxies, Reach, Validators};

/// Answers each request by what it says in its first line and in its fields, for as long as the test runs.
fn serve(answer: impl Fn(&str, &[String]) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = speak(stream.unwrap(), &answer);
        }
    });
    address
}

fn speak(mut stream: impl Read + Write, answer: &impl Fn(&str, &[String]) -> String) -> std::io::Result<()> {
    let mut lines = Vec::new();
    let mut reader = BufReader::new(&mut stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    drop(reader);
    let first = lines.remove(0);
    stream.write_all(answer(&first, &lines).as_bytes())
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nLast-Modified: today\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn fetching(more: Option<&str>) -> Fetching {
    Fetching {
        proxies: Proxies::default(),
        authorities: Authorities::of_host(more).unwrap(),
        reach: Reach::Anywhere,
        may_be_plain: false,
        patience: Patience::default(),
        door: None,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn fetch(fetching: &Fetching, url: &str) -> Result<String, FetchError> {
    let mut file = fetching.fetch(&Address::parse(url).unwrap()).await?;
    let mut all = Vec::new();
    while let Some(piece) = file.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(format!("{}, {}", String::from_utf8(all).unwrap(), file.validators.last_modified.unwrap_or_default()))
}

#[track_caller]
fn refused(fetching: &Fetching, url: &str, words: &str) {
    let error = fetch(fetching, url).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_file_comes_however_it_is_sent() {
    let at = serve(|line, fields| match line.split(' ').nth(1).unwrap() {
        "/plain" => ok("plain"),
        "/who" => ok(fields.iter().find(|field| field.to_lowercase().starts_with("authorization")).map_or("", |it| it)),
        "/pieces" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n".to_owned(),
        "/open" => "HTTP/1.0 200 OK\r\n\r\nuntil the end".to_owned(),
        "/around" => to("/a/../plain"),
        "/short" => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_owned(),
        "/endless" => "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n".to_owned(),
        "/circle" => to("/circle"),
        "/file" => to("ftp://far.invalid/"),
        "/noise" => "no HTTP at all\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    });
    let fetching = fetching(None);
    let url = |path: &str| format!("http://{at}{path}");
    assert_eq!(fetch(&fetching, &url("/plain")).unwrap(), "plain, today");
    assert_eq!(fetch(&fetching, &url("/pieces")).unwrap(), "abc, ");
    assert_eq!(fetch(&fetching, &url("/open")).unwrap(), "until the end, ");
    assert_eq!(fetch(&fetching, &url("/around")).unwrap(), "plain, today");
    let who = fetch(&fetching, &format!("http://me:pw@{at}/who")).unwrap();
    assert_eq!(who.to_lowercase(), "authorization: basic bwu6chc=, today");
    refused(&fetching, &url("/none"), "/none: invalid response status 404 Not Found");
    refused(&fetching, &url("/short"), "/short: ");
    refused(&fetching, &url("/endless"), "is larger than");
    refused(&fetching, &url("/circle"), "is redirected more than 10 times");
    refused(&fetching, &url("/file"), "it is neither http nor https");
    refused(&fetching, &url("/noise"), "/noise: ");
    refused(&fetching, "http://127.0.0.1:1/", "cannot connect to 127.0.0.1 (127.0.0.1:1)");
    refused(&fetching, "http://no-such-host.invalid/", "cannot resolve no-such-host.invalid: no such host");
}

#[tokio::main(flavor = "current_thread")]
async fn fetch_unless(url: &str, known: &Validators) -> Result<Option<Validators>, FetchError> {
    let file = fetching(None).fetch_unless(&Address::parse(url).unwrap(), known).await?;
    Ok(file.map(|file| file.validators))
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let at = serve(|line, fields| {
        let said =
            |name: &str| fields.iter().find_map(|field| field.to_lowercase().strip_prefix(name).map(str::to_owned));
        let answer = |status: &str| {
            format!("HTTP/1.1 {status}\r\nETag: \"v2\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        };
        match line.split(' ').nth(1).unwrap() {
            "/moved" => to("/file"),
            "/always" => answer("304 Not Modified"),
            _ if said("if-none-match: ").as_deref() == Some("\"v2\"") => answer("304 Not Modified"),
            _ if said("if-modified-since: ").as_deref() == Some("today") => answer("304 Not Modified"),
            _ => answer("200 OK"),
        }
    });
    let url = |path: &str| format!("http://{at}{path}");
    let etag = |etag: &str| Validators { etag: Some(etag.to_owned()), last_modified: None };
    let dated = Validators { etag: None, last_modified: Some("today".into()) };
    for path in ["/file", "/moved"] {
        assert_eq!(fetch_unless(&url(path), &etag("\"v1\"")).unwrap(), Some(etag("\"v2\"")));
        assert_eq!(fetch_unless(&url(path), &etag("\"v2\"")).unwrap(), None);
        assert_eq!(fetch_unless(&url(path), &dated).unwrap(), None);
    }
    // What cannot stand in a field is not asked for; nor is an answer believed that nobody asked for.
    assert_eq!(fetch_unless(&url("/file"), &etag("a\r\nb: c")).unwrap(), Some(etag("\"v2\"")));
    let error = fetch_unless(&url("/always"), &Validators::default()).unwrap_err().to_string();
    assert!(error.contains("invalid response status 304 Not Modified"), "{error}");
}

#[test]
fn the_host_itself_is_asked_by_leave_alone() {
    let at = serve(|_, _| ok("of the host's own"));
    let shy = Fetching { reach: Reach::Beside(Place::Network), ..fetching(None) };
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "127.1.2.3"] {
        refused(&shy, &format!("http://{host}:{}/", at.port()), "which is this host itself");
    }
    // Nor by somebody else's word: what a redirection names is looked at like the first address.
    let proxy = serve(move |_, _| to(&format!("http://{at}/")));
    let proxies = Proxies { plain: proxy.to_string(), ..Proxies::default() };
    let sent = Fetching { proxies, ..shy };
    refused(&sent, "http://far.invalid/", "127.0.0.1 is 127.0.0.1, which is this host itself");
    assert_eq!(
        fetch(&Fetching { reach: Reach::Anywhere, ..sent }, "http://far.invalid/").unwrap(),
        "of the host's own, today"
    );
}

#[test]
fn where_clouds_tell_secrets_nobody_is_sent() {
    let link = "which is where clouds tell a machine its secrets";
    let shy = Fetching { reach: Reach::Beside(Place::Network), ..fetching(None) };
    for host in ["169.254.169.254", "169.254.170.2", "[::ffff:169.254.169.254]", "[fe80::1]", "[fd00:ec2::254]"] {
        refused(&shy, &format!("http://{host}/latest/meta-data/"), link);
        // A proxy may be on such a machine, too.
        let proxies = Proxies { plain: "127.0.0.1:1".to_owned(), ..Proxies::default() };
        refused(&Fetching { proxies, ..shy.clone() }, &format!("http://{host}/"), link);
    }
    let proxy = serve(|_, _| to("http://169.254.169.254/latest/api/token"));
    let sent = Fetching { proxies: Proxies { plain: proxy.to_string(), ..Proxies::default() }, ..shy };
    refused(&sent, "http://far.invalid/", "169.254.169.254 is 169.254.169.254, which is where clouds");
    // Nor by who is on loopback: his word leads to loopback.
    let beside = Fetching { reach: Reach::Beside(Place::Host), ..fetching(None) };
    refused(&beside, "http://169.254.169.254/", link);
}

#[test]
fn a_password_is_for_its_host_alone() {
    let said = |fields: &[String]| fields.iter().any(|field| field.to_lowercase().starts_with("authorization"));
    let other = serve(move |_, fields| ok(&said(fields).to_string()));
    let at = serve(move |line, fields| match line.split(' ').nth(1).unwrap() {
        "/away" => to(&format!("http://{other}/")),
        "/here" => to("/"),
        _ => ok(&said(fields).to_string()),
    });
    assert_eq!(fetch(&fetching(None), &format!("http://me:pw@{at}/here")).unwrap(), "true, today");
    assert_eq!(fetch(&fetching(None), &format!("http://me:pw@{at}/away")).unwrap(), "false, today");
}

/// A server with a certificate for `name`, and the authority that has signed it.
fn serve_by_tls(
    name: &str,
    answer: impl Fn(&str, &[String]) -> String + Send + Sync + 'static,
) -> (SocketAddr, String) {
    let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            if speak(&mut stream, &answer).is_ok() {
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (address, own.cert.pem())
}

#[test]
fn a_certificate_is_believed_if_its_authority_is() {
    let plain = serve(|_, _| ok("plain"));
    let (at, authority) = serve_by_tls("localhost", move |line, _| match line.split(' ').nth(1).unwrap() {
        "/down" => to(&format!("http://{plain}/")),
        _ => ok("by TLS"),
    });
    let url = format!("https://localhost:{}", at.port());
    let trusting = fetching(Some(&authority));
    assert_eq!(fetch(&trusting, &format!("{url}/")).unwrap(), "by TLS, today");
    refused(&fetching(None), &url, "cannot connect to localhost:");
    // It is of another name.
    refused(&trusting, &format!("https://127.0.0.1:{}/", at.port()), "cannot connect to 127.0.0.1:");
    refused(&trusting, &format!("{url}/down"), "what comes from there could be anybody's");
    let verified = Fetching { may_be_plain: true, ..trusting };
    assert_eq!(fetch(&verified, &format!("{url}/down")).unwrap(), "plain, today");
}

/// What a proxy carries: bytes both ways, to whoever it was asked for.
fn carry(client: TcpStream, server: TcpStream) {
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let (mut from, mut to) = (server, client);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
}

#[test]
fn a_proxy_is_asked_in_its_way() {
    let plain = serve(|line, fields| ok(&format!("{line} {}", fields.join(" ").to_lowercase())));
    let proxies = Proxies { plain: format!("http://me:pw@{plain}"), ..Proxies::default() };
    let through = Fetching { proxies, ..fetching(None) };
    let asked = fetch(&through, "http://far.invalid/a?b").unwrap();
    assert!(asked.starts_with("GET http://far.invalid/a?b HTTP/1.1 "), "{asked}");
    assert!(asked.contains("host: far.invalid") && asked.contains("proxy-authorization: basic bwu6chc="), "{asked}");

    let (secure, authority) = serve_by_tls("far.invalid", |line, fields| ok(&format!("{line} {}", fields.join(" "))));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    let asked = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        carry(client, TcpStream::connect(secure).unwrap());
        String::from_utf8(head).unwrap()
    });
    let proxies = Proxies { secure: format!("me:pw@{proxy}"), ..Proxies::default() };
    let through = Fetching { proxies, ..fetching(Some(&authority)) };
    let answer = fetch(&through, "https://far.invalid/a").unwrap();
    let asked = asked.join().unwrap().to_lowercase();
    assert!(asked.starts_with("connect far.invalid:443 http/1.1\r\n"), "{asked}");
    assert!(asked.contains("proxy-authorization: basic bwu6chc="), "{asked}");
    // Who is behind it does not learn the proxy's password.
    assert!(answer.starts_with("GET /a HTTP/1.1") && !answer.to_lowercase().contains("authorization"), "{answer}");
}
