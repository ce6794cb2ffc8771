//! Which request this is: method and path, read from the end, for a repository's name may have any number of components
//! and `blobs` among them (distribution-spec 1.1, "Endpoints").

use dozen_model::Digest;
use http::Method;

use crate::access::caller::Need;
use crate::access::rights::Right;
use crate::name::{ManifestReference, RepositoryName, UploadId};
use crate::refusal::{Kind, Refusal};
use crate::web::Asset;

/// A request, as far as method and path say. `HEAD` is a `GET` whose body is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A file of the page for browsers.
    Page(Asset),
    /// What that page shows.
    Browse(Browse),
    /// Is this a registry, and may I.
    Base,
    /// Gives a token: no repository has this path.
    Token,
    /// The names of repositories.
    ListRepositories,
    /// The tags of one.
    ListTags(RepositoryName),
    /// Manifests that are about this one.
    ListReferrers(RepositoryName, Digest),
    /// Gives a manifest.
    ReadManifest(RepositoryName, ManifestReference),
    /// Takes one.
    PutManifest(RepositoryName, ManifestReference),
    /// Deletes one with its tags, or one tag.
    DeleteManifest(RepositoryName, ManifestReference),
    /// Gives a blob, or a part of it.
    ReadBlob(RepositoryName, Digest),
    /// Deletes one.
    DeleteBlob(RepositoryName, Digest),
    /// Begins an upload, or does all of it, or mounts.
    BeginUpload(RepositoryName),
    /// How far it is.
    UploadStatus(RepositoryName, UploadId),
    /// The next part.
    Append(RepositoryName, UploadId),
    /// The last part, and the digest of all.
    Finish(RepositoryName, UploadId),
    /// Away with it.
    Cancel(RepositoryName, UploadId),
}

/// What a person looks at, with what no client of a registry asks for. It counts as no pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Browse {
    /// Repositories, with how much is in them.
    Repositories,
    /// Tags of one, with what they lead to.
    Tags(RepositoryName),
    /// A manifest, with what is about it.
    Manifest(RepositoryName, ManifestReference),
    /// A blob that is text: an image's configuration.
    Document(RepositoryName, Digest),
}

impl Action {
    /// What it is counted as.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Page(_) => "page",
            Self::Browse(_) => "browse",
            Self::Base => "base",
            Self::Token => "token",
            Self::ListRepositories => "catalog",
            Self::ListTags(_) => "tags",
            Self::ListReferrers(..) => "referrers",
            Self::ReadManifest(..) => "manifest_get",
            Self::PutManifest(..) => "manifest_put",
            Self::DeleteManifest(..) => "manifest_delete",
            Self::ReadBlob(..) => "blob_get",
            Self::DeleteBlob(..) => "blob_delete",
            Self::BeginUpload(_) => "upload_begin",
            Self::UploadStatus(..) => "upload_status",
            Self::Append(..) => "upload_append",
            Self::Finish(..) => "upload_finish",
            Self::Cancel(..) => "upload_cancel",
        }
    }

    /// The repository that something is pushed to.
    pub fn pushed_to(&self) -> Option<&RepositoryName> {
        match self {
            Self::PutManifest(name, _) | Self::BeginUpload(name) | Self::Append(name, _) | Self::Finish(name, _) => {
                Some(name)
            }
            _ => None,
        }
    }

    /// The one repository that it is about; of what a page asks none, for that has the names of here.
    pub fn repository_mut(&mut self) -> Option<&mut RepositoryName> {
        match self {
            Self::Base | Self::Token | Self::ListRepositories | Self::Page(_) | Self::Browse(_) => None,
            Self::ListTags(name) | Self::ListReferrers(name, _) => Some(name),
            Self::ReadManifest(name, _) | Self::PutManifest(name, _) | Self::DeleteManifest(name, _) => Some(name),
            Self::ReadBlob(name, _) | Self::DeleteBlob(name, _) | Self::BeginUpload(name) => Some(name),
            Self::UploadStatus(name, _) | Self::Append(name, _) => Some(name),
            Self::Finish(name, _) | Self::Cancel(name, _) => Some(name),
        }
    }

    /// Changes what is stored.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Page(_) | Self::Browse(_) => false,
            Self::Base | Self::Token | Self::ListRepositories | Self::ListTags(_) | Self::ListReferrers(..) => false,
            Self::ReadManifest(..) | Self::ReadBlob(..) | Self::UploadStatus(..) => false,
            Self::PutManifest(..) | Self::DeleteManifest(..) | Self::DeleteBlob(..) => true,
            Self::BeginUpload(_) | Self::Append(..) | Self::Finish(..) | Self::Cancel(..) => true,
        }
    }

    /// What somebody has to have the right to who asks for it. What a mount is from comes to that.
    pub fn need(&self) -> Need<'_> {
        match self {
            Self::Page(_) | Self::Base | Self::Token => Need::Entrance,
            Self::ListRepositories | Self::Browse(Browse::Repositories) => Need::Catalog,
            Self::Browse(Browse::Tags(name) | Browse::Manifest(name, _) | Browse::Document(name, _)) => {
                Need::Repository(name, Right::Pull)
            }
            Self::ListTags(name) | Self::ListReferrers(name, _) => Need::Repository(name, Right::Pull),
            Self::ReadManifest(name, _) | Self::ReadBlob(name, _) => Need::Repository(name, Right::Pull),
            Self::PutManifest(name, _) | Self::BeginUpload(name) => Need::Repository(name, Right::Push),
            Self::UploadStatus(name, _) | Self::Append(name, _) => Need::Repository(name, Right::Push),
            // An upload of one's own is given up: nothing that was there goes.
            Self::Finish(name, _) | Self::Cancel(name, _) => Need::Repository(name, Right::Push),
            Self::DeleteManifest(name, _) | Self::DeleteBlob(name, _) => Need::Repository(name, Right::Delete),
        }
    }
}

/// `path` as it was sent, without the query.
pub fn route(method: &Method, path: &str) -> Result<Action, Refusal> {
    let path = percent_decoded(path).ok_or_else(page_not_found)?;
    if let Some(asset) = Asset::at(&path) {
        return match *method {
            Method::GET | Method::HEAD => Ok(Action::Page(asset)),
            _ => Err(not_allowed(method)),
        };
    }
    if let Some(rest) = path.strip_prefix("/ui/repositories") {
        return match *method {
            Method::GET | Method::HEAD => browse(rest).map(Action::Browse),
            _ => Err(not_allowed(method)),
        };
    }
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => return base(method),
        Some(rest) => rest.strip_prefix('/').ok_or_else(page_not_found)?,
        None => return Err(page_not_found()),
    };
    if rest == "_catalog" {
        return match *method {
            Method::GET | Method::HEAD => Ok(Action::ListRepositories),
            _ => Err(not_allowed(method)),
        };
    }
    if rest == "token" {
        return match *method {
            Method::GET | Method::POST => Ok(Action::Token),
            _ => Err(not_allowed(method)),
        };
    }
    let words: Vec<&str> = rest.split('/').collect();
    match &*words {
        [name @ .., "blobs", "uploads", ""] | [name @ .., "blobs", "uploads"] => uploads(method, name),
        [name @ .., "blobs", "uploads", id] => upload(method, name, id),
        [name @ .., "blobs", digest] => blob(method, name, digest),
        [name @ .., "manifests", reference] => manifest(method, name, reference),
        [name @ .., "tags", "list"] => match *method {
            Method::GET | Method::HEAD => Ok(Action::ListTags(repository(name)?)),
            _ => Err(not_allowed(method)),
        },
        [name @ .., "referrers", digest] => match *method {
            Method::GET | Method::HEAD => Ok(Action::ListReferrers(repository(name)?, parse_digest(digest)?)),
            _ => Err(not_allowed(method)),
        },
        _ => Err(page_not_found()),
    }
}

/// Below `/ui/repositories`.
fn browse(rest: &str) -> Result<Browse, Refusal> {
    let unknown = |()| Refusal::new(Kind::ManifestUnknown, "manifest unknown");
    let words: Vec<&str> = rest.split('/').collect();
    match &*words {
        [""] => Ok(Browse::Repositories),
        ["", name @ .., "tags"] => Ok(Browse::Tags(repository(name)?)),
        ["", name @ .., "manifests", reference] => {
            Ok(Browse::Manifest(repository(name)?, reference.parse().map_err(unknown)?))
        }
        ["", name @ .., "documents", digest] => Ok(Browse::Document(repository(name)?, parse_digest(digest)?)),
        _ => Err(page_not_found()),
    }
}

fn base(method: &Method) -> Result<Action, Refusal> {
    match *method {
        Method::GET | Method::HEAD => Ok(Action::Base),
        _ => Err(not_allowed(method)),
    }
}

fn uploads(method: &Method, name: &[&str]) -> Result<Action, Refusal> {
    match *method {
        Method::POST => Ok(Action::BeginUpload(repository(name)?)),
        _ => Err(not_allowed(method)),
    }
}

fn upload(method: &Method, name: &[&str], id: &str) -> Result<Action, Refusal> {
    let name = repository(name)?;
    let unknown = |()| Refusal::new(Kind::UploadUnknown, "no such upload");
    let id = id.parse().map_err(unknown);
    match *method {
        Method::GET | Method::HEAD => Ok(Action::UploadStatus(name, id?)),
        Method::PATCH => Ok(Action::Append(name, id?)),
        Method::PUT => Ok(Action::Finish(name, id?)),
        Method::DELETE => Ok(Action::Cancel(name, id?)),
        _ => Err(not_allowed(method)),
    }
}

fn blob(method: &Method, name: &[&str], digest: &str) -> Result<Action, Refusal> {
    let (name, digest) = (repository(name)?, parse_digest(digest));
    match *method {
        Method::GET | Method::HEAD => Ok(Action::ReadBlob(name, digest?)),
        Method::DELETE => Ok(Action::DeleteBlob(name, digest?)),
        _ => Err(not_allowed(method)),
    }
}

fn manifest(method: &Method, name: &[&str], reference: &str) -> Result<Action, Refusal> {
    let name = repository(name)?;
    // What cannot be a tag is one that nobody has.
    let unknown = |()| Refusal::new(Kind::ManifestUnknown, "manifest unknown");
    match *method {
        Method::GET | Method::HEAD => Ok(Action::ReadManifest(name, reference.parse().map_err(unknown)?)),
        Method::DELETE => Ok(Action::DeleteManifest(name, reference.parse().map_err(unknown)?)),
        Method::PUT if reference.contains(':') => {
            Ok(Action::PutManifest(name, ManifestReference::Digest(parse_digest(reference)?)))
        }
        Method::PUT => {
            let invalid = |()| Refusal::new(Kind::ManifestInvalid, "no tag: up to 128 letters, digits, '_', '.', '-'");
            Ok(Action::PutManifest(name, reference.parse().map_err(invalid)?))
        }
        _ => Err(not_allowed(method)),
    }
}

fn repository(words: &[&str]) -> Result<RepositoryName, Refusal> {
    let name = words.join("/");
    let why =
        "no name of a repository: lower-case letters and digits, parted by '/', '.', '_' or '-', up to 255 of them";
    name.parse().map_err(|()| Refusal::new(Kind::NameInvalid, why))
}

/// Of a path, a query or a header.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: dozen_model::DigestError| Refusal::new(Kind::DigestInvalid, error.to_string()))
}

pub(crate) fn page_not_found() -> Refusal {
    Refusal::new(Kind::PathUnknown, "page not found: a registry's paths begin with /v2/")
}

fn not_allowed(method: &Method) -> Refusal {
    Refusal::new(Kind::Unsupported, format!("{method} is not for this path"))
}

/// Undoes percent-encoding (RFC 3986, section 2.1); `None` if that is no UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        if *first != b'%' {
            bytes.push(*first);
        } else {
            let byte = digit(0)? * 16 + digit(1)?;
            bytes.push(u8::try_from(byte).ok()?);
            rest = &tail[2..];
        }
    }
    String::from_utf8(bytes).ok()
}

/// The value of a query's parameter; the first one counts. A `+` is one: nothing that is asked for here has a blank.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (percent_decoded(key)? == name).then(|| percent_decoded(value))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHA256: &str = "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[track_caller]
    fn check(method: Method, path: &str, expected: Result<Action, Kind>) {
        assert_eq!(route(&method, path).map_err(|refusal| refusal.kind), expected, "{method} {path}");
    }

    #[test]
    fn each_path_is_one_request() {
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        let (a, deep) = (name("a"), name("a/blobs/manifests"));
        let (digest, id) = (SHA256.parse::<Digest>().unwrap(), ID.parse::<UploadId>().unwrap());
        let tag: ManifestReference = "v1".parse().unwrap();
        let by_digest = ManifestReference::Digest(digest.clone());
        let (get, put, post, patch) = (Method::GET, Method::PUT, Method::POST, Method::PATCH);
        let (head, delete) = (Method::HEAD, Method::DELETE);
        check(get.clone(), "/v2/", Ok(Action::Base));
        check(head.clone(), "/v2", Ok(Action::Base));
        check(post.clone(), "/v2/", Err(Kind::Unsupported));
        check(get.clone(), "/", Ok(Action::Page(Asset::Page)));
        check(head.clone(), "/ui/page.js", Ok(Action::Page(Asset::Script)));
        check(post.clone(), "/", Err(Kind::Unsupported));
        check(get.clone(), "/ui/page.html/..", Err(Kind::PathUnknown));
        check(get.clone(), "/ui/repositories", Ok(Action::Browse(Browse::Repositories)));
        check(get.clone(), "/ui/repositories/a/tags", Ok(Action::Browse(Browse::Tags(a.clone()))));
        check(get.clone(), "/ui/repositories/a/tags/tags", Ok(Action::Browse(Browse::Tags(name("a/tags")))));
        let looked = Browse::Manifest(a.clone(), tag.clone());
        check(get.clone(), "/ui/repositories/a/manifests/v1", Ok(Action::Browse(looked)));
        let document = format!("/ui/repositories/a/documents/{SHA256}");
        check(get.clone(), &document, Ok(Action::Browse(Browse::Document(a.clone(), digest.clone()))));
        check(delete.clone(), &document, Err(Kind::Unsupported));
        check(get.clone(), "/ui/repositories/A/tags", Err(Kind::NameInvalid));
        check(get.clone(), "/ui/repositories/a", Err(Kind::PathUnknown));
        check(get.clone(), "/ui/repositoriesa/tags", Err(Kind::PathUnknown));
        check(get.clone(), "/v2x", Err(Kind::PathUnknown));
        check(get.clone(), "/v1/_ping", Err(Kind::PathUnknown));
        check(get.clone(), "/v2/_catalog", Ok(Action::ListRepositories));
        check(get.clone(), "/v2/token", Ok(Action::Token));
        check(post.clone(), "/v2/token", Ok(Action::Token));
        check(put.clone(), "/v2/token", Err(Kind::Unsupported));
        check(get.clone(), "/v2/token/tags/list", Ok(Action::ListTags("token".parse().unwrap())));
        check(get.clone(), "/v2/a/tags/list", Ok(Action::ListTags(a.clone())));
        check(put.clone(), "/v2/a/tags/list", Err(Kind::Unsupported));
        check(get.clone(), "/v2/a/manifests/v1", Ok(Action::ReadManifest(a.clone(), tag.clone())));
        check(head.clone(), "/v2/a/manifests/v1", Ok(Action::ReadManifest(a.clone(), tag.clone())));
        check(put.clone(), "/v2/a/manifests/v1", Ok(Action::PutManifest(a.clone(), tag.clone())));
        let path = format!("/v2/a/blobs/manifests/manifests/{SHA256}");
        check(delete.clone(), &path, Ok(Action::DeleteManifest(deep.clone(), by_digest.clone())));
        check(get.clone(), "/v2/a/manifests/.INVALID", Err(Kind::ManifestUnknown));
        check(put.clone(), "/v2/a/manifests/.INVALID", Err(Kind::ManifestInvalid));
        check(put.clone(), "/v2/a/manifests/sha256:1", Err(Kind::DigestInvalid));
        check(post.clone(), "/v2/a/manifests/v1", Err(Kind::Unsupported));
        for path in [format!("/v2/a/blobs/{SHA256}"), format!("/v2/a/blobs/{}", SHA256.replace(':', "%3A"))] {
            check(get.clone(), &path, Ok(Action::ReadBlob(a.clone(), digest.clone())));
        }
        check(delete.clone(), &format!("/v2/a/blobs/{SHA256}"), Ok(Action::DeleteBlob(a.clone(), digest.clone())));
        check(get.clone(), "/v2/a/blobs/sha256:1", Err(Kind::DigestInvalid));
        check(put.clone(), &format!("/v2/a/blobs/{SHA256}"), Err(Kind::Unsupported));
        check(post.clone(), "/v2/a/blobs/uploads/", Ok(Action::BeginUpload(a.clone())));
        check(post.clone(), "/v2/a/blobs/uploads", Ok(Action::BeginUpload(a.clone())));
        check(get.clone(), "/v2/a/blobs/uploads/", Err(Kind::Unsupported));
        let path = format!("/v2/a/blobs/uploads/{ID}");
        check(get.clone(), &path, Ok(Action::UploadStatus(a.clone(), id.clone())));
        check(patch.clone(), &path, Ok(Action::Append(a.clone(), id.clone())));
        check(put.clone(), &path, Ok(Action::Finish(a.clone(), id.clone())));
        check(delete.clone(), &path, Ok(Action::Cancel(a.clone(), id.clone())));
        check(post.clone(), &path, Err(Kind::Unsupported));
        check(patch.clone(), "/v2/a/blobs/uploads/x", Err(Kind::UploadUnknown));
        let path = format!("/v2/a/referrers/{SHA256}");
        check(get.clone(), &path, Ok(Action::ListReferrers(a.clone(), digest)));
        check(get.clone(), "/v2/a/referrers/x", Err(Kind::DigestInvalid));
        for bad in
            ["/v2//tags/list", "/v2/A/tags/list", "/v2/a/../b/tags/list", "/v2/%2e%2e/tags/list", "/v2/tags/list"]
        {
            check(get.clone(), bad, Err(Kind::NameInvalid));
        }
        for bad in ["/v2/a", "/v2/a/%zz/tags/list", "/v2/%ff/tags/list", "/v2/a/tags", "/v2/%"] {
            check(get.clone(), bad, Err(Kind::PathUnknown));
        }
    }

    #[test]
    fn each_request_needs_the_right_to_what_it_does() {
        let name: RepositoryName = "a".parse().unwrap();
        for (method, path, right) in [
            (Method::GET, "/v2/a/tags/list".to_owned(), Right::Pull),
            (Method::HEAD, "/v2/a/manifests/v1".to_owned(), Right::Pull),
            (Method::PUT, "/v2/a/manifests/v1".to_owned(), Right::Push),
            (Method::DELETE, "/v2/a/manifests/v1".to_owned(), Right::Delete),
            (Method::HEAD, format!("/v2/a/blobs/{SHA256}"), Right::Pull),
            (Method::DELETE, format!("/v2/a/blobs/{SHA256}"), Right::Delete),
            (Method::GET, format!("/v2/a/referrers/{SHA256}"), Right::Pull),
            (Method::GET, "/ui/repositories/a/tags".to_owned(), Right::Pull),
            (Method::GET, "/ui/repositories/a/manifests/v1".to_owned(), Right::Pull),
            (Method::GET, format!("/ui/repositories/a/documents/{SHA256}"), Right::Pull),
            (Method::POST, "/v2/a/blobs/uploads/".to_owned(), Right::Push),
            (Method::GET, format!("/v2/a/blobs/uploads/{ID}"), Right::Push),
            (Method::PATCH, format!("/v2/a/blobs/uploads/{ID}"), Right::Push),
            (Method::PUT, format!("/v2/a/blobs/uploads/{ID}"), Right::Push),
            (Method::DELETE, format!("/v2/a/blobs/uploads/{ID}"), Right::Push),
        ] {
            let action = route(&method, &path).unwrap();
            assert_eq!(action.need(), Need::Repository(&name, right), "{method} {path}");
            // What changes something is no matter of pulling alone, and what changes nothing is none of deleting.
            assert_eq!(action.is_write(), right != Right::Pull && method != Method::GET, "{method} {path}");
        }
        assert_eq!(route(&Method::GET, "/v2/").unwrap().need(), Need::Entrance);
        assert_eq!(route(&Method::GET, "/v2/_catalog").unwrap().need(), Need::Catalog);
        assert_eq!(route(&Method::GET, "/ui/repositories").unwrap().need(), Need::Catalog);
    }

    #[test]
    fn parameters_are_found_and_decoded() {
        let query = "digest=sha256%3Aab&from=a%2Fb&n=&bad=%zz&digest=other&last=a+b";
        let found = |name| parameter(query, name);
        assert_eq!(found("digest").as_deref(), Some("sha256:ab"));
        assert_eq!(found("from").as_deref(), Some("a/b"));
        assert_eq!(found("n").as_deref(), Some(""));
        assert_eq!(found("last").as_deref(), Some("a+b"));
        assert_eq!((found("bad"), found("mount")), (None, None));
    }

    proptest! {
        #[test]
        fn no_path_panics_and_no_name_leaves_its_place(path in "(/v2/)?[a-z./%0-9A-F:_]{0,60}", query in "\\PC{0,40}") {
            for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
                if let Ok(Action::ListTags(name) | Action::BeginUpload(name)) = route(&method, &path) {
                    prop_assert!(!name.as_str().contains("..") && !name.as_str().starts_with('/'));
                }
            }
            let _ = parameter(&query, "n");
        }
    }
}
