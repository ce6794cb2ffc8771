//! A page for browsers that shows what the registry has: three files, which are in the program. They say nothing of what is
//! here; the page asks for that as any client does (`serve/browse.rs`), with the name and password that somebody gave it.
//!
//! What comes from a registry is a stranger's. The page makes text of it and never markup, and the browser is told to hold it
//! to that: no script but the page's own file, nothing from elsewhere, no frame around it (Content Security Policy Level 3;
//! Trusted Types, "require-trusted-types-for").

use http::{HeaderMap, Response, StatusCode, header};

use crate::hasher::{Algorithm, Hasher};
use crate::serve::{Body, set};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// One of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asset {
    /// The page itself.
    Page,
    /// How it looks.
    Style,
    /// What it does.
    Script,
    /// By which a browser's tab shows it.
    Mark,
}

impl Asset {
    /// Of this path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/" | "/ui" | "/ui/" => Some(Self::Page),
            "/ui/page.css" => Some(Self::Style),
            "/ui/page.js" => Some(Self::Script),
            "/ui/mark.svg" => Some(Self::Mark),
            _ => None,
        }
    }

    fn content(self) -> (&'static str, &'static str) {
        match self {
            Self::Page => (include_str!("web/page.html"), "text/html; charset=utf-8"),
            Self::Style => (include_str!("web/page.css"), "text/css; charset=utf-8"),
            Self::Script => (include_str!("web/page.js"), "text/javascript; charset=utf-8"),
            Self::Mark => (include_str!("web/mark.svg"), "image/svg+xml"),
        }
    }

    /// For whoever asks, with these fields.
    pub(crate) fn answer(self, asked: &HeaderMap) -> Response<Body> {
        let (content, media_type) = self.content();
        let etag = format!("\"{}\"", Hasher::of(Algorithm::Sha256, content.as_bytes()).hex());
        let is_known = asked.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
        let mut response = Response::new(if is_known { Body::empty() } else { Body::whole(content) });
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            set(&mut response, "content-type", media_type);
            set(&mut response, "content-length", &content.len().to_string());
        }
        set(&mut response, "etag", &etag);
        // A server of another version has other files.
        set(&mut response, "cache-control", "no-cache");
        set(&mut response, "content-security-policy", POLICY);
        set(&mut response, "referrer-policy", "no-referrer");
        set(&mut response, "cross-origin-opener-policy", "same-origin");
        set(&mut response, "cross-origin-resource-policy", "same-origin");
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy forbids it all: whoever writes it into the page finds out here and not in a browser.
    #[test]
    fn the_page_has_nothing_in_it_that_its_policy_forbids() {
        let (page, _) = Asset::Page.content();
        for forbidden in ["<style", " style=", "http:", "https:", " onclick", " onload", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for (at, _) in page.match_indices("<script") {
            assert!(page[at..].starts_with("<script src=\"/ui/"), "{}", &page[at..at + 40]);
        }
        let (script, _) = Asset::Script.content();
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!script.contains(forbidden), "{forbidden}");
        }
        let (style, _) = Asset::Style.content();
        assert!(!style.contains("@import") && !style.contains("url("));
    }

    #[test]
    fn all_that_the_page_names_is_there() {
        let (page, _) = Asset::Page.content();
        for (at, _) in page.match_indices("\"/ui/") {
            let path = page[at + 1..].split('"').next().unwrap();
            assert!(Asset::at(path).is_some(), "{path}");
        }
        let (script, _) = Asset::Script.content();
        for id in
            script.match_indices("field(\"").map(|(at, word)| script[at + word.len()..].split('"').next().unwrap())
        {
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }

    #[test]
    fn who_has_it_already_is_told_so() {
        let first = Asset::Script.answer(&HeaderMap::new());
        let mut asked = HeaderMap::new();
        asked.insert(header::IF_NONE_MATCH, first.headers()["etag"].clone());
        let second = Asset::Script.answer(&asked);
        assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::NOT_MODIFIED));
        assert!(second.headers().contains_key("content-security-policy"));
        assert_eq!(Asset::Page.answer(&asked).status(), StatusCode::OK);
    }
}
