//! Query strings and path segments.

use std::collections::BTreeMap;
use std::fmt;

/// A query under construction; `Display` gives `?a=b&c=d`, or nothing if it is empty.
#[derive(Debug, Default, Clone)]
pub struct Query {
    text: String,
}

impl Query {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more parameter.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.text.push(if self.text.is_empty() { '?' } else { '&' });
        encode(key, &mut self.text);
        self.text.push('=');
        encode(value, &mut self.text);
        self
    }

    /// With `key=1` if it is so.
    pub fn with_flag(self, key: &str, is_set: bool) -> Self {
        if is_set { self.with(key, "1") } else { self }
    }

    /// With a parameter if there is one.
    pub fn with_some(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// With Docker's `filters`, a JSON map of lists, if there are any.
    pub fn with_filters(self, filters: &BTreeMap<String, Vec<String>>) -> Self {
        if filters.is_empty() {
            return self;
        }
        let json = serde_json::Value::from_iter(filters.iter().map(|(key, values)| (key.clone(), values.clone())));
        self.with("filters", &json.to_string())
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A name as one segment of a path. Slashes stay: an image's name may have them, and the API takes them as they are.
pub fn encode_segment(name: &str) -> String {
    let mut text = String::new();
    // Listings of the API show names with a slash in front; people paste them.
    for (index, part) in name.trim_start_matches('/').split('/').enumerate() {
        if index > 0 {
            text.push('/');
        }
        encode(part, &mut text);
    }
    // "." and ".." would be taken for steps.
    if text.split('/').any(|part| part == "." || part == "..") { text.replace('.', "%2E") } else { text }
}

/// RFC 3986, section 2.3: what is not unreserved is percent-encoded; ':' is allowed in a segment and common here.
fn encode(part: &str, into: &mut String) {
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let filters = BTreeMap::from([("status".to_owned(), vec!["exited".to_owned()])]);
        let query = Query::new().with("a", "b c&d=é").with_flag("x", false).with_flag("y", true).with_filters(&filters);
        assert_eq!(query.to_string(), "?a=b%20c%26d%3D%C3%A9&y=1&filters=%7B%22status%22:%5B%22exited%22%5D%7D");
        assert_eq!(Query::new().with_filters(&BTreeMap::new()).to_string(), "");
    }

    #[test]
    fn names_are_segments() {
        for (name, segment) in [
            ("web", "web"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            ("a?b#c", "a%3Fb%23c"),
            ("a b", "a%20b"),
            ("..", "%2E%2E"),
            ("../x", "%2E%2E/x"),
            ("/a", "a"),
        ] {
            assert_eq!(encode_segment(name), segment);
        }
    }
}
