//! `--filter name=value`, repeated.

use std::collections::BTreeMap;

/// Filter names and all values given for each, in the order typed.
pub type Filters = BTreeMap<String, Vec<String>>;

/// Parses all of them. Docker's rule: names are lower-cased, both sides trimmed.
pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Filters, String> {
    let mut filters = Filters::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=') else {
            return Err(format!("invalid filter '{text}': want NAME=VALUE"));
        };
        filters.entry(name.trim().to_ascii_lowercase()).or_default().push(value.trim().to_owned());
    }
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_gather_by_name() {
        let filters = parse(["label=a=b", "Status= exited", "label=c"]).unwrap();
        assert_eq!(filters["label"], ["a=b", "c"]);
        assert_eq!(filters["status"], ["exited"]);
        assert!(parse(["status"]).is_err());
    }
}
