//! Docker's `filters` parameter: `{"label":["a=b"]}`, or, as its oldest clients send, `{"label":{"a=b":true}}`.

use std::collections::BTreeMap;

use regex_lite::RegexBuilder;
use serde_json::Value;

use crate::error::ApiError;
use crate::extract::Query;

/// A compiled expression may be as large; names are short.
const EXPRESSION_LIMIT_BYTES: usize = 256 << 10;

/// Wanted values by the filter's name. Values of one name are alternatives (but labels, which must all hold).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the parameter and refuses a filter that is not in `known`.
    pub(crate) fn read(query: &Query, known: &[&str]) -> Result<Self, ApiError> {
        let Some(text) = query.text("filters") else { return Ok(Self::default()) };
        let filters = Self::parse(text)?;
        match filters.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(ApiError::invalid(format!("invalid filter '{name}'"))),
            None => Ok(filters),
        }
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::invalid(format!("invalid filter: {:?}", text.chars().take(200).collect::<String>()));
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { return Err(bad()) };
        let mut filters = BTreeMap::new();
        for (name, value) in object {
            let values = match value {
                Value::Array(values) => values
                    .into_iter()
                    .map(|value| match value {
                        Value::String(text) => Ok(text),
                        _ => Err(bad()),
                    })
                    .collect::<Result<Vec<_>, _>>()?,
                Value::Object(values) => {
                    values.into_iter().filter(|(_, on)| *on != Value::Bool(false)).map(|(value, _)| value).collect()
                }
                Value::Null => Vec::new(),
                _ => return Err(bad()),
            };
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    /// The values of a filter; empty: it was not given.
    pub(crate) fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// Nothing was asked, or one of the wanted values holds.
    pub(crate) fn any(&self, name: &str, holds: impl Fn(&str) -> bool) -> bool {
        let wanted = self.get(name);
        wanted.is_empty() || wanted.iter().any(|value| holds(value))
    }

    /// One of the wanted values is the text, or a regular expression that is found in it; one that is neither matches
    /// nothing, as Docker has it (moby, api/types/filters). Its time is linear in the text's and its own length.
    pub(crate) fn matches(&self, name: &str, text: &str) -> bool {
        let found = |pattern: &str| {
            let expression = RegexBuilder::new(pattern).size_limit(EXPRESSION_LIMIT_BYTES).build();
            expression.is_ok_and(|expression| expression.is_match(text))
        };
        self.get(name).iter().any(|wanted| wanted == text || found(wanted))
    }

    /// A filter of one truth: `dangling=true`.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            [] => Ok(None),
            [value] => match value.to_ascii_lowercase().as_str() {
                "1" | "true" => Ok(Some(true)),
                "0" | "false" => Ok(Some(false)),
                _ => Err(ApiError::invalid(format!("invalid filter '{name}={value}'"))),
            },
            values => Err(ApiError::invalid(format!("invalid filter '{name}={values:?}'"))),
        }
    }

    /// Every wanted label is there: `name`, or `name=value`.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.get("label").iter().all(|wanted| has_label(labels, wanted))
            && !self.get("label!").iter().any(|unwanted| has_label(labels, unwanted))
    }
}

fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|label| label == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_mean_the_same() {
        let list = Filters::parse(r#"{"label":["a=b"],"dangling":["true"]}"#).unwrap();
        let map = Filters::parse(r#"{"label":{"a=b":true,"c":false},"dangling":{"true":true}}"#).unwrap();
        assert_eq!(list, map);
        assert_eq!(list.flag("dangling"), Ok(Some(true)));
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(list.labels(&labels));
        assert!(!Filters::parse(r#"{"label":["a=b","c"]}"#).unwrap().labels(&labels));
        assert!(!Filters::parse(r#"{"label!":["a"]}"#).unwrap().labels(&labels));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in ["[]", "x", r#"{"a":1}"#, r#"{"a":[1]}"#] {
            assert!(Filters::parse(bad).is_err(), "{bad}");
        }
        let query = Query::from("filters=%7B%22colour%22:%5B%22red%22%5D%7D");
        assert_eq!(Filters::read(&query, &["label"]).unwrap_err().message, "invalid filter 'colour'");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            let _ = Filters::parse(&text);
        }
    }
}
