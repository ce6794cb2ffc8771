//! A long JSON array as an answer, written row by row: a listing of many containers never has all its rows as trees.

use axum::http::StatusCode;
use serde_json::Value;

use crate::error::{Answer, json_text};

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
        self.text.push(']');
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
            written.text.push(']');
            assert_eq!(serde_json::from_str::<Value>(&written.text).unwrap(), rows);
        }
    }
}
