//! Whether a file is still what it was.

use http::{HeaderMap, HeaderValue, header};

/// What a server has said of a file, by which it can be asked later whether it is still so (RFC 9110, section 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// The field ETag.
    pub etag: Option<String>,
    /// When it was changed last: the field's text.
    pub last_modified: Option<String>,
}

impl Validators {
    /// The fields of a request for what is something else by now.
    pub(crate) fn conditions(&self) -> HeaderMap {
        let said = [(header::IF_NONE_MATCH, &self.etag), (header::IF_MODIFIED_SINCE, &self.last_modified)];
        let field = |value: &String| HeaderValue::from_str(value).ok();
        said.into_iter().filter_map(|(name, value)| Some((name, value.as_ref().and_then(field)?))).collect()
    }
}
