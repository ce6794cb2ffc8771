//! Which bucket, and where: `s3://bucket/prefix`.

use std::fmt;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub(crate) bucket: String,
    /// Without a slash at either end; may be empty.
    pub(crate) prefix: String,
    pub(crate) region: String,
    /// Where the store is, if it is not Amazon's.
    pub(crate) endpoint: Option<String>,
}

/// Why it is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum LocationError {
    #[error("write s3://BUCKET or s3://BUCKET/PREFIX")]
    Form,
    #[error(
        "keys do not stand in an address: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a file with \
             --store-credentials"
    )]
    Secret,
    #[error("the endpoint {0:?} is no http:// or https:// address")]
    Endpoint(String),
    #[error("cannot read whom this host trusts: {0}")]
    Certificates(String),
    #[error("this cannot be a store: {0}")]
    Store(String),
}

impl Location {
    /// `endpoint`: `http://127.0.0.1:9000`, of a store that is not Amazon's.
    ///
    /// # Errors
    /// See [`LocationError`].
    pub fn parse(text: &str, region: &str, endpoint: Option<&str>) -> Result<Self, LocationError> {
        let rest = text.strip_prefix("s3://").ok_or(LocationError::Form)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') {
            return Err(LocationError::Secret);
        }
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let prefix = prefix.trim_matches('/');
        let is_prefix =
            prefix.is_empty() || prefix.split('/').all(|part| !matches!(part, "" | "." | "..") && is_plain(part));
        if bucket.is_empty() || !is_plain(bucket) || !is_prefix {
            return Err(LocationError::Form);
        }
        let is_address = |endpoint: &&str| endpoint.starts_with("http://") || endpoint.starts_with("https://");
        if let Some(endpoint) = endpoint {
            if endpoint.contains('@') {
                return Err(LocationError::Secret);
            }
            if !is_address(&endpoint) {
                return Err(LocationError::Endpoint(endpoint.to_owned()));
            }
        }
        let endpoint = endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned(), region: region.to_owned(), endpoint })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(formatter, "/{}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_and_a_prefix_are_read_or_refused() {
        for (text, shown) in [
            ("s3://images", "s3://images"),
            ("s3://images/", "s3://images"),
            ("s3://images/team/registry/", "s3://images/team/registry"),
        ] {
            assert_eq!(Location::parse(text, "", None).unwrap().to_string(), shown);
        }
        for text in
            ["", "images", "s3://", "s3:///a", "s3://a/../b", "s3://a/b//c", "s3://a/b c", "https://a/b", "s3://a?x"]
        {
            assert_eq!(Location::parse(text, "", None), Err(LocationError::Form), "{text}");
        }
        assert_eq!(Location::parse("s3://id:key@images", "", None), Err(LocationError::Secret));
        assert_eq!(Location::parse("s3://a", "", Some("http://id:key@host")), Err(LocationError::Secret));
        assert!(matches!(Location::parse("s3://a", "", Some("host:9000")), Err(LocationError::Endpoint(_))));
    }
}
