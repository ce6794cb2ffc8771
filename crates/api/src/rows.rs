//! A long JSON array as an answer, written row by row: a listing of many containers never has all its rows as trees.

use axum::http::StatusCode;
use serde_json::Value;

use crate::error::{Answer, json_text};

/// The rows so far.
pub(crate) struct Rows {
    text: Vec<u8>,
}

impl Rows {
    pub(crate) fn new() -> Self {
        Self { text: b"[".to_vec() }
    }

    pub(crate) fn push(&mut self, row: &Value) {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        // Into memory, which does not fail; and not by way of `fmt`, which takes as long as all the rest.
        let _ = serde_json::to_writer(&mut self.text, row);
    }

    /// All of them, with status 200.
    pub(crate) fn answer(mut self) -> Answer {
        self.text.push(b']');
        Ok(json_text(StatusCode::OK, self.text))
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
            written.text.push(b']');
            assert_eq!(serde_json::from_slice::<Value>(&written.text).unwrap(), rows);
        }
    }
}
