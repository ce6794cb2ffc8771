//! One event, and the envelope that it is sent in (docker-registry's "Work with notifications", "Events").

use std::net::SocketAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

/// What blobs are, as far as a registry knows.
const BLOB: &str = "application/octet-stream";

/// What was done to a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happened {
    /// `push`, `pull`, `mount` or `delete`.
    pub(crate) action: &'static str,
    pub(crate) repository: String,
    pub(crate) what: What,
}

/// To what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct What {
    pub(crate) digest: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) size_bytes: Option<u64>,
    /// `None`: it is a blob.
    pub(crate) media_type: Option<String>,
    /// Of a mount.
    pub(crate) from: Option<String>,
    pub(crate) is_manifest: bool,
}

impl Happened {
    pub(crate) fn media_type(&self) -> &str {
        self.what.media_type.as_deref().unwrap_or(if self.what.is_manifest { "" } else { BLOB })
    }
}

/// With who did it, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) happened: Happened,
    pub(crate) user: Option<String>,
    pub(crate) peer: SocketAddr,
    /// By which the registry was called.
    pub(crate) host: String,
    pub(crate) is_secure: bool,
    pub(crate) method: String,
    pub(crate) user_agent: String,
}

/// Who tells of it.
#[derive(Debug)]
pub(super) struct Source {
    address: String,
    instance: String,
}

impl Source {
    pub(super) fn new(address: String) -> Self {
        Self { address, instance: unique() }
    }
}

impl Event {
    pub(super) fn envelope(&self, source: &Source) -> Value {
        let Happened { action, repository, what } = &self.happened;
        let mut target = json!({ "repository": repository });
        let mut put = |name: &str, value: Value| target[name] = value;
        if *action != "delete" {
            put("mediaType", json!(self.happened.media_type()));
        }
        if let Some(size) = what.size_bytes {
            put("size", json!(size));
            put("length", json!(size));
        }
        if let Some(tag) = &what.tag {
            put("tag", json!(tag));
        }
        if let Some(from) = &what.from {
            put("fromRepository", json!(from));
        }
        if let Some(digest) = &what.digest {
            put("digest", json!(digest));
            if *action != "delete" {
                let scheme = if self.is_secure { "https" } else { "http" };
                let kind = if what.is_manifest { "manifests" } else { "blobs" };
                put("url", json!(format!("{scheme}://{}/v2/{repository}/{kind}/{digest}", self.host)));
            }
        }
        let actor = self.user.as_ref().map_or(json!({}), |user| json!({ "name": user }));
        json!({ "events": [{
            "id": unique(),
            "timestamp": Timestamp::now().to_string(),
            "action": action,
            "target": target,
            "request": {
                "id": unique(), "addr": self.peer.to_string(), "host": self.host, "method": self.method,
                "useragent": self.user_agent,
            },
            "actor": actor,
            "source": { "addr": source.address, "instanceID": source.instance },
        }] })
    }
}

/// RFC 9562, section 5.4.
fn unique() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
impl Event {
    pub(super) fn of(action: &'static str, repository: &str) -> Self {
        let what = What { digest: Some("sha256:0a".to_owned()), size_bytes: Some(7), ..What::default() };
        Self {
            happened: Happened { action, repository: repository.to_owned(), what },
            user: Some("ann".to_owned()),
            peer: "192.0.2.1:4711".parse().unwrap(),
            host: "registry.example".to_owned(),
            is_secure: true,
            method: "PUT".to_owned(),
            user_agent: "test/1".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_docker_registry_writes_it() {
        let source = Source::new("us:5000".to_owned());
        let mut event = Event::of("push", "team/web");
        let one = event.envelope(&source)["events"][0].clone();
        assert_eq!(
            one["target"],
            json!({ "mediaType": BLOB, "digest": "sha256:0a", "size": 7, "length": 7, "repository": "team/web",
                "url": "https://registry.example/v2/team/web/blobs/sha256:0a" })
        );
        assert_eq!(one["actor"], json!({ "name": "ann" }));
        assert_eq!((&one["request"]["addr"], &one["request"]["method"]), (&json!("192.0.2.1:4711"), &json!("PUT")));
        assert_eq!(one["source"]["addr"], "us:5000");
        assert!(one["timestamp"].as_str().unwrap().ends_with('Z'));
        let id = one["id"].as_str().unwrap().to_owned();
        assert!(id.len() == 36 && &id[14..15] == "4" && one["request"]["id"] != one["id"]);
        event.happened.what = What { tag: Some("v1".to_owned()), is_manifest: true, ..What::default() };
        event.happened.action = "delete";
        let one = event.envelope(&source)["events"][0].clone();
        assert_eq!(one["target"], json!({ "repository": "team/web", "tag": "v1" }));
    }
}
