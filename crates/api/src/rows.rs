//! A long JSON array as an answer, written row by row: a listing of many containers never has all its rows as trees.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::Value;

use crate::error::Answer;

/// The rows so far.
pub(crate) struct Rows {
    text: String,
}

impl Rows {
    pub(crate) fn new() -> Self {
        Self { text: "[".to_owned() }
    }

    pub(crate) fn push(&mut self, row: &Value) {
        use std::fmt::Write;
        if self.text.len() > 1 {
            self.text.push(',');
        }
        // Into memory, which does not fail.
        let _ = write!(self.text, "{row}");
    }

    /// All of them, with status 200.
    pub(crate) fn answer(mut self) -> Answer {
        self.text.push_str("]\n");
        let mut response = (StatusCode::OK, self.text).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_become_an_array() {
        for rows in [json!([]), json!([{ "Id": "a" }]), json!([{ "Id": "a" }, { "Id": "\"" }, null])] {
            let mut written = Rows::new();
            rows.as_array().unwrap().iter().for_each(|row| written.push(row));
            written.text.push(']');
            assert_eq!(serde_json::from_str::<Value>(&written.text).unwrap(), rows);
        }
    }
}
