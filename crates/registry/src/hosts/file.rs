//! `hosts.toml`, as containerd has it (its docs/hosts.md): which servers have what a registry has, in the order in which they
//! are asked, and what each of them wants. What is not known here is refused by its name, where containerd passes over the
//! whole file.

use dozen_fetch::Address;
use dozen_model::without_credentials;
use http::{HeaderName, HeaderValue};
use toml::{Table, Value};

/// No file is longer.
pub(super) const MOST_BYTES: u64 = 1 << 20;

/// What a table may say.
const KEYS: &str = "capabilities, ca, client, skip_verify, header, override_path";
/// Fields that the protocol itself needs.
const NOT_OURS: [&str; 5] = ["connection", "content-length", "host", "range", "transfer-encoding"];

/// A file, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HostsFile {
    /// Those that are asked first, in order.
    pub(super) hosts: Vec<Host>,
    /// What is said outside of any table: of the registry's server.
    pub(super) server: Host,
}

/// One server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// `None`: that which the registry's name means.
    pub(super) place: Option<Place>,
    /// `None`: nothing is said.
    pub(super) capabilities: Option<Capabilities>,
    /// Files of certificate authorities, as they are written.
    pub(super) authorities: Vec<String>,
    /// Files of certificates of ours, and of their keys if these are not in the same file.
    pub(super) clients: Vec<(String, Option<String>)>,
    /// Whether any certificate will do.
    pub(super) skip_verify: Option<bool>,
    /// Sent with each question.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// `/v2/` is part of the path, or not of the server's protocol.
    pub(super) is_path_whole: bool,
}

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) is_secure: bool,
    /// With its port, if one is named.
    pub(super) host: String,
    /// Empty, or begins with a slash and does not end with one. Without `/v2`, unless it is whole.
    pub(super) path: String,
}

/// What a server is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capabilities {
    /// Which digest a tag leads to.
    pub resolve: bool,
    /// What a digest names.
    pub pull: bool,
    /// To take what is new.
    pub push: bool,
}

impl HostsFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Words on what is wrong with it. What may be a password in it is not among them.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut table: Table = text.parse().map_err(|error| malformed(text, &error))?;
        let server = match table.remove("server") {
            None => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err("\"server\" is no text".to_owned()),
        };
        let hosts = match table.remove("host") {
            None => Table::new(),
            Some(Value::Table(hosts)) => hosts,
            Some(_) => return Err("\"host\" is no table: write [host.\"https://HOST\"]".to_owned()),
        };
        let read = |(name, value): (String, Value)| {
            let whose = format!("[host.{:?}]", without_credentials(&name));
            let Value::Table(table) = value else { return Err(format!("{whose} is no table")) };
            host(Some(&name), table, &whose)
        };
        let hosts = hosts.into_iter().map(read).collect::<Result<_, _>>()?;
        let server =
            host(server.as_deref().filter(|text| !text.is_empty()), table, "the file (outside of its tables)")?;
        Ok(Self { hosts, server })
    }
}

/// The reader's message, and not the lines that it quotes.
fn malformed(text: &str, error: &toml::de::Error) -> String {
    let begin = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(begin).filter(|byte| *byte == b'\n').count() + 1;
    format!("line {line}: {}", error.message())
}

fn host(place: Option<&str>, table: Table, whose: &str) -> Result<Host, String> {
    let mut read = Host::default();
    for (key, value) in table {
        let wrong = |want: &str| Err(format!("{key:?} of {whose} is not {want}"));
        match (key.as_str(), value) {
            ("capabilities", value) => {
                let Some(names) = texts(value) else { return wrong("a list of pull, resolve and push") };
                // An empty one is none, as with containerd.
                read.capabilities = (!names.is_empty()).then(|| capabilities(&names, whose)).transpose()?;
            }
            ("ca", Value::String(file)) => read.authorities = vec![file],
            ("ca", value) => match texts(value) {
                Some(files) => read.authorities = files,
                None => return wrong("a file, or a list of files"),
            },
            ("client", value) => match clients(value) {
                Some(clients) => read.clients = clients,
                None => return wrong("a file, a list of files, or a list of [CERTIFICATE, KEY]"),
            },
            ("skip_verify", Value::Boolean(skip)) => read.skip_verify = Some(skip),
            ("override_path", Value::Boolean(is_whole)) => read.is_path_whole = is_whole,
            ("skip_verify" | "override_path", _) => return wrong("true or false"),
            ("header", Value::Table(fields)) => read.headers = headers(fields, whose)?,
            ("header", _) => return wrong("a table of texts, or of lists of texts"),
            ("dial_timeout", _) => return Err(format!("\"dial_timeout\" of {whose} is not built yet")),
            _ => return Err(format!("unknown key {key:?} in {whose}: there are {KEYS}")),
        }
    }
    read.place = place.map(|text| self::place(text, read.is_path_whole)).transpose()?;
    Ok(read)
}

fn texts(value: Value) -> Option<Vec<String>> {
    let Value::Array(items) = value else { return None };
    let text = |item| if let Value::String(text) = item { Some(text) } else { None };
    items.into_iter().map(text).collect()
}

fn capabilities(names: &[String], whose: &str) -> Result<Capabilities, String> {
    let mut all = Capabilities { resolve: false, pull: false, push: false };
    for name in names {
        match name.to_ascii_lowercase().as_str() {
            "resolve" => all.resolve = true,
            "pull" => all.pull = true,
            "push" => all.push = true,
            _ => return Err(format!("unknown capability {name:?} in {whose}: there are pull, resolve and push")),
        }
    }
    Ok(all)
}

fn clients(value: Value) -> Option<Vec<(String, Option<String>)>> {
    let one = |item| match item {
        Value::String(both) => Some((both, None)),
        pair => match <[String; 2]>::try_from(texts(pair)?) {
            Ok([certificate, key]) => Some((certificate, Some(key).filter(|key| !key.is_empty()))),
            Err(_) => None,
        },
    };
    match value {
        Value::String(both) => Some(vec![(both, None)]),
        Value::Array(items) => items.into_iter().map(one).collect(),
        _ => None,
    }
}

/// No word of an error is a value: these may prove who we are.
fn headers(fields: Table, whose: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut all = Vec::new();
    for (name, value) in fields {
        let wrong = |why: &str| format!("the header {name:?} of {whose} {why}");
        let known: HeaderName = name.parse().map_err(|_| wrong("has a name that no header has"))?;
        if NOT_OURS.contains(&known.as_str()) {
            return Err(wrong("is not to be set: the protocol needs it"));
        }
        let values = match value {
            Value::String(text) => vec![text],
            value => texts(value).ok_or_else(|| wrong("is neither a text nor a list of texts"))?,
        };
        for text in values {
            let mut value = HeaderValue::from_str(&text).map_err(|_| wrong("has a value that no header has"))?;
            value.set_sensitive(true);
            all.push((known.clone(), value));
        }
    }
    Ok(all)
}

fn place(text: &str, is_path_whole: bool) -> Result<Place, String> {
    let bad = |why: &str| format!("{:?} is no server's address: {why}", without_credentials(text));
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let (scheme, rest) = whole.split_once("://").unwrap_or_default();
    let is_secure = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(bad("write https://HOST, or http://HOST")),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err("an address with a name and a password is no server's address: dozen login keeps these".to_owned());
    }
    if rest.contains(['?', '#']) {
        return Err(bad("it has a query or a fragment"));
    }
    if Address::parse(&whole).is_err() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("its host cannot be one"));
    }
    let path = path.trim_matches('/');
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    let path = if is_path_whole { path.as_str() } else { path.strip_suffix("/v2").unwrap_or(&path) };
    Ok(Place { is_secure, host: host.to_ascii_lowercase(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> HostsFile {
        HostsFile::read(text).unwrap()
    }

    #[test]
    fn a_file_is_read_in_its_order() {
        let file = read(
            r#"
            server = "https://registry.example"
            capabilities = ["pull", "resolve", "PUSH"]
            [host."https://z.example:5000/hub/v2"]
              capabilities = ["pull"]
              ca = "z.crt"
              client = [["a.cert", "a.key"], ["both.pem", ""], "other.pem"]
              [host."https://z.example:5000/hub/v2".header]
                x-team = "a"
                authorization = ["Basic eA=="]
            [host."http://a.example"]
              skip_verify = true
              ca = ["1.crt", "/2.crt"]
            [host."m.example/api/v2"]
              override_path = true
            "#,
        );
        let place =
            |is_secure, host: &str, path: &str| Some(Place { is_secure, host: host.to_owned(), path: path.to_owned() });
        let places: Vec<_> = file.hosts.iter().map(|host| host.place.clone()).collect();
        assert_eq!(
            places,
            [place(true, "z.example:5000", "/hub"), place(false, "a.example", ""), place(true, "m.example", "/api/v2")]
        );
        assert_eq!(file.server.place, place(true, "registry.example", ""));
        assert_eq!(file.server.capabilities, Some(Capabilities { resolve: true, pull: true, push: true }));
        let first = &file.hosts[0];
        assert_eq!(first.capabilities, Some(Capabilities { resolve: false, pull: true, push: false }));
        let text = |text: &str| text.to_owned();
        assert_eq!(first.authorities, ["z.crt"]);
        assert_eq!(
            first.clients,
            [(text("a.cert"), Some(text("a.key"))), (text("both.pem"), None), (text("other.pem"), None)]
        );
        let fields: Vec<_> = first.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        assert_eq!(fields, ["x-team: Sensitive", "authorization: Sensitive"]);
        assert_eq!((file.hosts[1].skip_verify, file.hosts[1].authorities.len()), (Some(true), 2));
        assert!(file.hosts[2].is_path_whole);
    }

    #[test]
    fn what_is_not_said_is_not_there() {
        assert_eq!(read(""), HostsFile::default());
        assert_eq!(read("server = ''\ncapabilities = []"), HostsFile::default());
        assert_eq!(read("server = 'a.example/v2/'").server.place.unwrap().path, "");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("server = 7", "\"server\" is no text"),
            ("host = 7", "\"host\" is no table: write [host.\"https://HOST\"]"),
            ("[host]\na = 7", "[host.\"a\"] is no table"),
            (
                "\n[host.\"https://a\"]\nskip-verify = true",
                "unknown key \"skip-verify\" in [host.\"https://a\"]: there are",
            ),
            ("mirror = 'x'", "unknown key \"mirror\" in the file (outside of its tables)"),
            ("dial_timeout = '1s'", "\"dial_timeout\" of the file (outside of its tables) is not built yet"),
            ("capabilities = ['fly']", "unknown capability \"fly\""),
            ("capabilities = 'pull'", "is not a list of pull, resolve and push"),
            ("ca = 7", "\"ca\" of the file (outside of its tables) is not a file, or a list of files"),
            ("client = [['a']]", "is not a file, a list of files, or a list of [CERTIFICATE, KEY]"),
            ("skip_verify = 'yes'", "is not true or false"),
            ("header = 7", "is not a table of texts"),
            ("[header]\n'a b' = 'secret'", "has a name that no header has"),
            ("[header]\nhost = 'secret'", "is not to be set"),
            ("[header]\nx = \"secret\\r\\ny: z\"", "has a value that no header has"),
            ("[header]\nx = 7", "is neither a text nor a list of texts"),
            ("server = 'ftp://a'", "\"ftp://a\" is no server's address: write https://HOST"),
            ("server = 'https://me:secret@a'", "an address with a name and a password is no server's address"),
            ("server = 'ftp://me:secret@a'", "\"ftp://xxxxx@a\" is no server's address"),
            ("[host.'https://me:secret@a']\nx = 1", "unknown key \"x\" in [host.\"https://xxxxx@a\"]"),
            ("[host]\n'https://me:secret@a' = 1", "[host.\"https://xxxxx@a\"] is no table"),
            ("server = 'https://a/?x'", "it has a query or a fragment"),
            ("server = 'https://'", "its host cannot be one"),
            ("server = 'https://a b'", "its host cannot be one"),
            ("a = 1\n[header]\nx = 'secret' secret", "line 3: "),
            ("server = 'a'\nserver = 'b'", "line 2: "),
        ] {
            let error = HostsFile::read(text).unwrap_err();
            assert!(error.contains(words) && !error.contains("secret"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\[host\\.)?[a-z\"=\\[\\]\\. :/'0-9\n_]{0,80}") {
            _ = HostsFile::read(&text);
        }

        /// Whatever hosts there are, they are asked in the file's order.
        #[test]
        fn the_order_is_the_files(names in proptest::collection::hash_set("[a-z]{1,8}", 0..12)) {
            let names: Vec<String> = names.into_iter().collect();
            let text: String = names.iter().map(|name| format!("[host.\"https://{name}\"]\n")).collect();
            let found: Vec<String> = read(&text).hosts.into_iter().map(|host| host.place.unwrap().host).collect();
            prop_assert_eq!(found, names);
        }
    }
}
