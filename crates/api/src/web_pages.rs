//! Web pages in a browser of this machine's, which reach TCP addresses that nobody else does: they are kept out.
//!
//! A page may send requests to any address (it then cannot read the answer, but `POST /volumes/prune` needs none), open a
//! WebSocket to any, and read what an address answers whose *name* is its own: whoever owns a name can have it point at
//! 127.0.0.1 a moment later (DNS rebinding). A browser says where a page is from (`Origin`, RFC 6454; `Sec-Fetch-Site`, W3C
//! Fetch Metadata) and by which name it asks (`Host`), and no page can change that. Other programs say no origin.

use axum::http::{HeaderMap, HeaderName, header};
use dozen_model::ErrorKind;

use crate::error::ApiError;
use crate::listening::Way;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether who came in this way may ask. `allowed`: further names by which the engine may be called (`allowed-hosts`).
pub(crate) fn check(way: Way, headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    if way == Way::Local {
        return Ok(());
    }
    let hosts: Vec<&str> = texts(headers, &header::HOST).collect();
    if let Way::Bare { loopback } = way
        && let Some(host) = hosts.iter().find(|host| !may_be_called(name_in(host), loopback, allowed))
    {
        let name = shown(name_in(host));
        return Err(ApiError::new(
            ErrorKind::Forbidden,
            format!("this engine is not called \"{name}\": it may be a web page that asks"),
        )
        .with_hint(format!(
            "ask by IP address or by localhost, or start the engine with --allowed-host {name} (allowed-hosts)"
        )));
    }
    let strange = |origin: &&str| !hosts.iter().any(|host| is_same(origin, host));
    let elsewhere = texts(headers, &header::ORIGIN).find(strange).map(shown);
    let is_led_here = || texts(headers, &FETCH_SITE).any(|site| !["same-origin", "none"].contains(&site));
    match elsewhere {
        Some(origin) => Err(refused(&origin)),
        None if is_led_here() => Err(refused("another site")),
        None => Ok(()),
    }
}

fn refused(origin: &str) -> ApiError {
    ApiError::new(ErrorKind::Forbidden, format!("a web page from {origin} may not use this engine"))
        .with_hint("a program that is no browser leaves the headers Origin and Sec-Fetch-Site out")
}

fn texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    // What is not ASCII is no name of ours, whatever it is.
    headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or("?").trim())
}

/// `name`, `name:80`, `[::1]:80` → `name`, `[::1]`.
fn name_in(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

/// An address needs no name server, so nobody can turn it round; localhost is the machine's own (RFC 6761). Off loopback a
/// name without a dot is let pass too (`docker`, the usual name of an engine in a network of containers): the web has none,
/// and who is on that network comes in anyway.
fn may_be_called(name: &str, loopback: bool, allowed: &[String]) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok()
        || name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let is_bare_word = !loopback && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    is_address
        || is_bare_word
        || name.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether a page from there was loaded from the very address that it asks.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let default = match scheme {
        "http" | "ws" => ":80",
        "https" | "wss" => ":443",
        _ => return false,
    };
    let plain = |text: &str| text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase();
    plain(authority) == plain(host)
}

/// As it can stand in a message: it is a stranger's word.
fn shown(text: &str) -> String {
    text.chars().take(100).map(|letter| if letter.is_ascii_graphic() && letter != '"' { letter } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Way = Way::Bare { loopback: true };
    const NETWORK: Way = Way::Bare { loopback: false };

    #[track_caller]
    fn check(way: Way, headers: &str, want: Result<(), &str>) {
        let mut map = HeaderMap::new();
        for line in headers.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let got = super::check(way, &map, &["build.example".to_owned()]).map_err(|error| {
            assert_eq!(error.status(), 403);
            error.message
        });
        match want {
            Ok(()) => assert_eq!(got, Ok(()), "{headers}"),
            Err(words) => assert!(got.as_ref().is_err_and(|message| message.contains(words)), "{headers}: {got:?}"),
        }
    }

    #[test]
    fn names_that_others_own_are_refused() {
        for name in
            ["127.0.0.1", "127.0.0.1:2375", "localhost:2375", "LOCALHOST", "localhost.:1", "[::1]:2375", "10.0.0.1"]
        {
            check(LOOPBACK, &format!("host: {name}"), Ok(()));
        }
        check(LOOPBACK, "host: build.example:2375", Ok(()));
        check(LOOPBACK, "host: Build.Example", Ok(()));
        check(LOOPBACK, "accept: */*", Ok(()));
        for name in [
            "evil.example",
            "evil.example:2375",
            "docker:2375",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "user@127.0.0.1",
            "[::1]evil",
            "[127.0.0.1]",
            "build.example.evil",
        ] {
            check(LOOPBACK, &format!("host: {name}"), Err("may be a web page"));
        }
        check(LOOPBACK, "host: 127.0.0.1\nhost: evil.example", Err("not called \"evil.example\""));
        check(NETWORK, "host: docker:2375", Ok(()));
        check(NETWORK, "host: evil.example", Err("not called \"evil.example\""));
        check(Way::Local, "host: evil.example\norigin: http://evil.example", Ok(()));
        // The certificate says whom one speaks to.
        check(Way::Certified, "host: engine.example", Ok(()));
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        for way in [LOOPBACK, NETWORK, Way::Certified] {
            check(way, "host: 127.0.0.1:2375\norigin: http://127.0.0.1:2375", Ok(()));
            check(way, "host: localhost\norigin: http://LOCALHOST:80/", Ok(()));
            check(way, "host: 127.0.0.1:443\norigin: https://127.0.0.1", Ok(()));
            check(way, "host: 127.0.0.1:2375\nsec-fetch-site: none", Ok(()));
            check(way, "host: 127.0.0.1:2375\nsec-fetch-site: same-origin", Ok(()));
            for origin in
                ["http://evil.example", "null", "http://127.0.0.1:8080", "file://", "", "http://127.0.0.1:2375.evil"]
            {
                check(way, &format!("host: 127.0.0.1:2375\norigin: {origin}"), Err("a web page from"));
            }
            check(way, "host: 127.0.0.1:2375\nsec-fetch-site: cross-site", Err("a web page from another site"));
            check(way, "host: 127.0.0.1:2375\nsec-fetch-site: same-site", Err("a web page from another site"));
            check(way, "origin: http://127.0.0.1:2375", Err("a web page from http://127.0.0.1:2375"));
        }
    }

    #[test]
    fn what_is_refused_is_told_in_plain_letters() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, axum::http::HeaderValue::from_bytes(b"a\xff\"b").unwrap());
        let error = super::check(LOOPBACK, &headers, &[]).unwrap_err();
        assert!(error.message.starts_with("this engine is not called \"?\""), "{error:?}");
    }
}
