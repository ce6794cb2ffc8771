//! A list in pages: `n` and `last`, and the `Link` to the next one (distribution-spec 1.1, "Listing Tags").

use crate::refusal::{Kind, Refusal};
use crate::route::parameter;

/// Nobody gets more at once, whatever is asked for: an answer is made in memory.
const MOST: usize = 10_000;

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// So many at the most.
    pub count: usize,
    /// What sorts after this; all, if it is empty.
    pub after: String,
}

impl Page {
    /// Of a request's query.
    pub fn parse(query: &str) -> Result<Self, Refusal> {
        let count = match parameter(query, "n").filter(|text| !text.is_empty()) {
            None => MOST,
            Some(text) => {
                let invalid = || Refusal::new(Kind::QueryInvalid, format!("n={text:?} is no number of entries"));
                let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
                // A number that no computer has is more than all.
                if is_digits { text.parse().unwrap_or(MOST).min(MOST) } else { Err(invalid())? }
            }
        };
        Ok(Self { count, after: parameter(query, "last").unwrap_or_default() })
    }

    /// Takes the page's entries out of a list that has one more where there is a next page; with it, the address of that.
    /// `path` is the list's own.
    pub fn cut(&self, mut entries: Vec<String>, path: &str) -> (Vec<String>, Option<String>) {
        let is_last = entries.len() <= self.count;
        entries.truncate(self.count);
        let next = entries.last().filter(|_| !is_last);
        let link = next.map(|last| format!("<{path}?last={}&n={}>; rel=\"next\"", percent_encoded(last), self.count));
        (entries, link)
    }
}

/// Names, tags and digests have nothing else in them that a query could take for its own.
pub(crate) fn percent_encoded(text: &str) -> String {
    text.replace('/', "%2F").replace(':', "%3A")
}

/// Whatever a client has said, as a query has it.
pub(crate) fn query_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_number_and_a_place() {
        let page = |query| Page::parse(query).map(|page| (page.count, page.after)).map_err(|refusal| refusal.kind);
        assert_eq!(page(""), Ok((MOST, String::new())));
        assert_eq!(page("n=2&last=a%2Fb"), Ok((2, "a/b".to_owned())));
        assert_eq!(page("n=0"), Ok((0, String::new())));
        assert_eq!(page("n=99999999999999999999999"), Ok((MOST, String::new())));
        for bad in ["n=-1", "n=a", "n=1.5"] {
            assert_eq!(page(bad), Err(Kind::QueryInvalid), "{bad}");
        }
    }

    #[test]
    fn the_next_page_is_named_if_there_is_one() {
        let entries = |count: usize| ["a", "b/c", "d"][..count].iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let page = Page { count: 2, after: String::new() };
        assert_eq!(page.cut(entries(2), "/l"), (entries(2), None));
        let link = "</l?last=b%2Fc&n=2>; rel=\"next\"".to_owned();
        assert_eq!(page.cut(entries(3), "/l"), (entries(2), Some(link)));
        assert_eq!(Page { count: 0, after: String::new() }.cut(entries(1), "/l"), (Vec::new(), None));
    }
}
