//! Rights for each repository, and tokens: the distribution project's "Token Authentication Specification", "Oauth2 Token
//! Authentication", "Token Scope Documentation" and "Token Authentication Implementation".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dozen_distribution::{Access, AllowedHosts, Authorizer, Passwords, Rights, TokenKey, TokenService, Upstreams};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::client::{Choices, Registry, Reply, sha256};

const RULES: &str = r#"
    [groups]
    developers = ["ann"]

    [[rule]]
    repositories = ["public/**"]
    pull = ["@anyone"]
    push = ["@developers"]

    [[rule]]
    repositories = ["{user}/**"]
    push = ["@users"]
    delete = ["@users"]
"#;

/// A registry with rights, whose files may change.
struct Guarded {
    registry: Registry,
    files: tempfile::TempDir,
    passwords: Arc<Passwords>,
    rights: Rights,
}

fn hash(name: &str, password: &str) -> String {
    let hash = bcrypt::hash_with_salt(password, 4, *b"sixteen bytes of").unwrap();
    format!("{name}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
}

fn passwords_in(directory: &Path) -> PathBuf {
    directory.join("passwords")
}

impl Guarded {
    fn start() -> Self {
        Self::before(None)
    }

    /// In front of others.
    fn before(upstreams: Option<Upstreams>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let path = passwords_in(files.path());
        std::fs::write(&path, hash("ann", "secret") + &hash("eve", "evil")).unwrap();
        std::fs::write(files.path().join("rights"), RULES).unwrap();
        let passwords = Arc::new(Passwords::read(&path).unwrap());
        let rights = Rights::read(&files.path().join("rights")).unwrap();
        let key = TokenKey::open(files.path()).unwrap();
        let access = Authorizer::new(passwords.clone(), rights.clone(), key, None, "us");
        let access = Access::Rights(Arc::new(access));
        let registry = Registry::with(Choices { access, hosts: AllowedHosts::Any, upstreams, ..Choices::default() });
        Self { registry, files, passwords, rights }
    }

    /// A token by name and password, or by neither.
    fn token(&self, pair: Option<&str>, scope: &str) -> String {
        let reply = self.ask_for_token(pair, scope).is(200);
        assert_eq!(reply.field("cache-control"), Some("no-store"));
        let answer = reply.json();
        assert_eq!(answer["token"], answer["access_token"]);
        assert!(answer["expires_in"].as_u64().unwrap() >= 60, "older clients know no less");
        answer["token"].as_str().unwrap().to_owned()
    }

    fn ask_for_token(&self, pair: Option<&str>, scope: &str) -> Reply {
        let authorization = pair.map(basic);
        let fields: Vec<_> = authorization.iter().map(|value| ("Authorization", value.as_str())).collect();
        self.registry.ask("GET", &format!("/v2/token?service=us&scope={scope}"), &fields, b"")
    }

    fn post(&self, form: &str) -> Reply {
        let fields = [("Content-Type", "application/x-www-form-urlencoded")];
        self.registry.ask("POST", "/v2/token", &fields, form.as_bytes())
    }

    fn with(&self, token: &str, method: &str, path: &str, body: &[u8]) -> Reply {
        self.registry.ask(method, path, &[("Authorization", &format!("Bearer {token}"))], body)
    }

    fn by(&self, pair: &str, method: &str, path: &str, body: &[u8]) -> Reply {
        self.registry.ask(method, path, &[("Authorization", &basic(pair))], body)
    }

    /// An image in a repository, by who has the right to put it there: the digest of its one blob.
    fn fill(&self, name: &str, pair: &str) -> String {
        let digest = sha256(b"config");
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        self.by(pair, "POST", &path, b"config").is(201);
        let manifest = json!({ "schemaVersion": 2, "layers": [],
            "config": { "mediaType": "text/plain", "digest": digest, "size": 6 } });
        let json = ("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        let fields = [("Authorization", &*basic(pair)), json];
        self.registry.ask("PUT", &format!("/v2/{name}/manifests/1"), &fields, manifest.to_string().as_bytes()).is(201);
        digest
    }
}

fn basic(pair: &str) -> String {
    format!("Basic {}", dozen_model::base64::encode(pair.as_bytes()))
}

fn challenge(reply: &Reply) -> String {
    reply.field("www-authenticate").unwrap().to_owned()
}

#[test]
fn who_asks_without_a_token_is_told_where_to_get_one_and_for_what() {
    let guarded = Guarded::start();
    let realm = format!("Bearer realm=\"http://{}/v2/token\",service=\"us\"", guarded.registry.address);
    let refused = guarded.registry.get("/v2/").refused(401, "UNAUTHORIZED");
    assert_eq!(challenge(&refused), realm);
    let refused = guarded.registry.ask("POST", "/v2/public/a/blobs/uploads/", &[], b"").refused(401, "UNAUTHORIZED");
    assert_eq!(challenge(&refused), format!("{realm},scope=\"repository:public/a:pull,push\""));
    let detail = json!([{ "Type": "repository", "Class": "", "Name": "public/a", "Action": "push" }]);
    assert_eq!(refused.json()["errors"][0]["detail"], detail);
    let token = guarded.token(Some("ann:secret"), "");
    guarded.with(&token, "GET", "/v2/", b"").is(200);
    // Nobody in particular comes in, too: some things are open to everyone.
    guarded.with(&guarded.token(None, ""), "GET", "/v2/", b"").is(200);
    let old = guarded.with("not.a.token", "GET", "/v2/public/a/tags/list", b"").refused(401, "UNAUTHORIZED");
    assert_eq!(challenge(&old), format!("{realm},scope=\"repository:public/a:pull\",error=\"invalid_token\""));
    for wrong in ["ann:wrong", "mallory:secret"] {
        let refused = guarded.ask_for_token(Some(wrong), "").refused(401, "UNAUTHORIZED");
        assert!(challenge(&refused).starts_with("Basic realm="));
        guarded.by(wrong, "GET", "/v2/", b"").refused(401, "UNAUTHORIZED");
    }
}

#[test]
fn everyone_does_what_the_rights_say_and_no_more() {
    let guarded = Guarded::start();
    guarded.fill("public/web", "ann:secret");
    guarded.fill("ann/own", "ann:secret");
    let (public, own) = ("/v2/public/web/manifests/1", "/v2/ann/own/manifests/1");
    // Without a token, and with one that nobody has logged in for.
    guarded.registry.get(public).is(200);
    let nobody = guarded.token(None, "repository:public/web:pull,push");
    guarded.with(&nobody, "GET", public, b"").is(200);
    guarded.with(&nobody, "DELETE", public, b"").refused(401, "UNAUTHORIZED");
    // What she may not is refused, whatever she asks for.
    let eve = guarded.token(Some("eve:evil"), "repository:public/web:*&scope=repository:ann/own:pull");
    guarded.with(&eve, "GET", public, b"").is(200);
    guarded.with(&eve, "POST", "/v2/public/web/blobs/uploads/", b"").refused(403, "DENIED");
    guarded.with(&eve, "DELETE", public, b"").refused(403, "DENIED");
    // Another's answers as one that is not there.
    for path in [own, "/v2/nobody/knows/manifests/1", "/v2/ann/own/tags/list", "/v2/nobody/knows/tags/list"] {
        guarded.with(&eve, "GET", path, b"").refused(403, "DENIED");
        guarded.registry.get(path).refused(401, "UNAUTHORIZED");
    }
    let ann = guarded.token(Some("ann:secret"), "repository:ann/own:*");
    guarded.with(&ann, "DELETE", own, b"").is(202);
    guarded.with(&ann, "GET", own, b"").refused(404, "MANIFEST_UNKNOWN");
    // A token is for what it was asked for; for the rest another one is wanted.
    let refused = guarded.with(&ann, "PUT", public, b"{}").refused(401, "UNAUTHORIZED");
    let wanted = "scope=\"repository:public/web:pull,push\",error=\"insufficient_scope\"";
    assert!(challenge(&refused).ends_with(wanted), "{refused:?}");
    guarded.by("ann:secret", "DELETE", public, b"").refused(403, "DENIED");
}

#[test]
fn a_token_is_asked_for_by_a_form_and_a_login_goes_on_without_the_password() {
    let guarded = Guarded::start();
    let form = "grant_type=password&service=us&client_id=test&username=ann&password=secret&access_type=offline";
    let answer = guarded.post(&format!("{form}&scope=repository:ann/a:pull,push")).is(200).json();
    assert_eq!(answer["scope"], "repository:ann/a:pull,push");
    let refresh = answer["refresh_token"].as_str().unwrap().to_owned();
    assert!(guarded.post(&form.replace("&access_type=offline", "")).is(200).json()["refresh_token"].is_null());
    let offline = guarded.registry.ask(
        "GET",
        "/v2/token?service=us&offline_token=true",
        &[("Authorization", &basic("ann:secret"))],
        b"",
    );
    assert!(offline.is(200).json()["refresh_token"].is_string());
    // It opens nothing by itself.
    guarded.with(&refresh, "GET", "/v2/", b"").refused(401, "UNAUTHORIZED");
    let again = format!("grant_type=refresh_token&service=us&client_id=test&refresh_token={refresh}");
    let answer = guarded.post(&format!("{again}&scope=repository:ann/b:pull+repository:eve/b:pull")).is(200).json();
    assert_eq!(answer["scope"], "repository:ann/b:pull");
    let token = answer["access_token"].as_str().unwrap();
    guarded.with(token, "GET", "/v2/ann/b/tags/list", b"").refused(404, "NAME_UNKNOWN");
    guarded.post(&again.replace("service=us", "service=them")).is(400);
    guarded.post("grant_type=authorization_code&service=us").is(400);
    guarded.registry.ask("POST", "/v2/token", &[], form.as_bytes()).is(400);
    guarded.post(&form.replace("secret", "wrong")).refused(401, "UNAUTHORIZED");
    guarded.post(&again.replace(&refresh, "x.y.z")).refused(401, "UNAUTHORIZED");
    // With the password all of it is over.
    std::fs::write(passwords_in(guarded.files.path()), hash("ann", "new") + &hash("eve", "evil")).unwrap();
    guarded.passwords.reload(&passwords_in(guarded.files.path())).unwrap();
    guarded.post(&again).refused(401, "UNAUTHORIZED");
    guarded.with(token, "GET", "/v2/ann/b/tags/list", b"").refused(401, "UNAUTHORIZED");
}

#[test]
fn rights_that_change_count_at_once_also_for_tokens_that_are_out() {
    let guarded = Guarded::start();
    guarded.fill("public/web", "ann:secret");
    let token = guarded.token(Some("ann:secret"), "repository:public/web:pull,push");
    guarded.with(&token, "POST", "/v2/public/web/blobs/uploads/", b"").is(202);
    let fewer = "[[rule]]\nrepositories = [\"public/**\"]\npull = [\"@users\"]";
    std::fs::write(guarded.files.path().join("rights"), fewer).unwrap();
    guarded.rights.reload().unwrap();
    guarded.with(&token, "POST", "/v2/public/web/blobs/uploads/", b"").refused(403, "DENIED");
    guarded.with(&token, "GET", "/v2/public/web/manifests/1", b"").is(200);
    guarded.registry.get("/v2/public/web/manifests/1").refused(401, "UNAUTHORIZED");
}

#[test]
fn the_list_has_what_one_may_see() {
    let guarded = Guarded::start();
    for name in ["ann/a", "ann/b", "ann/c", "public/a", "public/b"] {
        guarded.fill(name, "ann:secret");
    }
    guarded.fill("eve/a", "eve:evil");
    let list = |reply: Reply| (reply.json()["repositories"].clone(), reply.field("link").map(str::to_owned));
    let all = list(guarded.by("ann:secret", "GET", "/v2/_catalog", b"").is(200));
    assert_eq!(all, (json!(["ann/a", "ann/b", "ann/c", "public/a", "public/b"]), None));
    assert_eq!(list(guarded.registry.get("/v2/_catalog").is(200)), (json!(["public/a", "public/b"]), None));
    // In pages, each as long as one that sees everything has.
    let (page, link) = list(guarded.by("eve:evil", "GET", "/v2/_catalog?n=2", b"").is(200));
    assert_eq!(
        (page, link.as_deref()),
        (json!(["eve/a", "public/a"]), Some("</v2/_catalog?last=public%2Fa&n=2>; rel=\"next\""))
    );
    let rest = list(guarded.by("eve:evil", "GET", "/v2/_catalog?last=public%2Fa&n=2", b"").is(200));
    assert_eq!(rest, (json!(["public/b"]), None));
    // A token has to be for it.
    let token = guarded.token(Some("ann:secret"), "repository:ann/a:pull");
    let refused = guarded.with(&token, "GET", "/v2/_catalog", b"").refused(401, "UNAUTHORIZED");
    assert!(challenge(&refused).contains("scope=\"registry:catalog:*\""));
    let token = guarded.token(Some("ann:secret"), "registry:catalog:*");
    assert_eq!(list(guarded.with(&token, "GET", "/v2/_catalog", b"").is(200)), all);
}

#[test]
fn a_blob_is_mounted_from_where_one_may_pull_and_else_brought() {
    let guarded = Guarded::start();
    let digest = guarded.fill("ann/secret", "ann:secret");
    guarded.fill("public/web", "ann:secret");
    let mount = |pair: &str, to: &str, from: &str| {
        guarded.by(pair, "POST", &format!("/v2/{to}/blobs/uploads/?mount={digest}{from}"), b"").status
    };
    assert_eq!(mount("eve:evil", "eve/a", "&from=ann/secret"), 202);
    // Nor does it matter whether it is there.
    assert_eq!(mount("eve:evil", "eve/a", "&from=nobody/knows"), 202);
    assert_eq!(mount("eve:evil", "eve/a", ""), 202);
    assert_eq!(mount("eve:evil", "eve/a", "&from=public/web"), 201);
    assert_eq!(mount("ann:secret", "ann/b", "&from=ann/secret"), 201);
    assert_eq!(mount("ann:secret", "eve/b", "&from=ann/secret"), 403);
    // A token has to be for both.
    let one = guarded.token(Some("ann:secret"), "repository:ann/c:pull,push");
    let path = format!("/v2/ann/c/blobs/uploads/?mount={digest}&from=ann/secret");
    guarded.with(&one, "POST", &path, b"").is(202);
    let both = guarded.token(Some("ann:secret"), "repository:ann/c:pull,push&scope=repository:ann/secret:pull");
    guarded.with(&both, "POST", &path, b"").is(201);
}

/// As containerd asks a mirror: by a name that is not the one here.
#[test]
fn who_may_not_see_what_an_upstream_has_does_not_learn_whose_is_kept_here() {
    let elsewhere = Arc::new(crate::upstream::Elsewhere::default());
    elsewhere.put_image("1", b"layer");
    let plan = |at: &str| crate::upstream::source_at(&elsewhere, &format!("{at}/**"), "1h");
    let guarded = Guarded::before(Some(Upstreams::new(vec![plan("ann")])));
    let at = |registry: &str| format!("/v2/team/web/manifests/1?ns={registry}");
    let (kept, other) = (at("r.example"), at("q.example"));
    let told = |reply: Reply, registry: &str| {
        let text = format!("{} {:?} {}", reply.status, reply.fields, String::from_utf8_lossy(&reply.body));
        // What he has said himself is his own.
        let date = reply.field("date").unwrap_or_default().to_owned();
        assert!(!text.contains("ann"), "{text}");
        text.replace(registry, "REGISTRY").replace(&date, "DATE")
    };
    let eve = guarded.token(Some("eve:evil"), "repository:team/web:pull");
    for ask in [
        &(|path: &str| guarded.registry.get(path)) as &dyn Fn(&str) -> Reply,
        &|path| guarded.by("eve:evil", "GET", path, b""),
        &|path| guarded.by("eve:wrong", "GET", path, b""),
        &|path| guarded.with(&eve, "GET", path, b""),
        &|path| guarded.by("eve:evil", "POST", &path.replace("manifests/1", "blobs/uploads/"), b""),
    ] {
        let (one, two) = (told(ask(&kept), "r.example"), told(ask(&other), "q.example"));
        assert_eq!(one, two);
        assert!(one.starts_with("401 ") || one.starts_with("403 "), "{one}");
    }
    // What she is sent to the token service for gives her nothing, and says nothing.
    let issued = |pair, registry| {
        let scope = format!("repository:team/web:pull&ns={registry}");
        let answer = guarded.ask_for_token(Some(pair), &scope).is(200).json();
        let token = answer["token"].as_str().unwrap().to_owned();
        let claims = token.split('.').nth(1).unwrap().replace('-', "+").replace('_', "/");
        let claims = dozen_model::base64::decode(&format!("{claims}{}", "=".repeat((4 - claims.len() % 4) % 4)));
        let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
        (answer["scope"].clone(), claims["access"].clone(), token)
    };
    for registry in ["r.example", "q.example"] {
        let (scope, access, token) = issued("eve:evil", registry);
        assert_eq!((scope, access), (json!(""), json!([])));
        guarded.with(&token, "GET", &at(registry), b"").refused(403, "DENIED");
    }
    // Who may is sent there for the same, and gets it.
    let refused = guarded.registry.get(&kept).refused(401, "UNAUTHORIZED");
    let wanted = format!(
        "Bearer realm=\"http://{}/v2/token?ns=r.example\",service=\"us\",scope=\"repository:team/web:pull\"",
        guarded.registry.address
    );
    assert_eq!(challenge(&refused), wanted);
    let (_, _, token) = issued("ann:secret", "r.example");
    guarded.with(&token, "GET", &kept, b"").is(200);
    let less = guarded.token(Some("ann:secret"), "repository:ann/other:pull");
    let refused = guarded.with(&less, "GET", &kept, b"").refused(401, "UNAUTHORIZED");
    assert_eq!(challenge(&refused), format!("{wanted},error=\"insufficient_scope\""));
}

#[test]
fn a_token_service_elsewhere_says_what_may_be_done() {
    let made = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap();
    let encode = |bytes: &[u8]| {
        let text = dozen_model::base64::encode(bytes).replace('+', "-").replace('/', "_");
        text.trim_end_matches('=').to_owned()
    };
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key.to_string()).unwrap();
    let service = TokenService::new("https://auth.example/token", "us", "auth.example", file.path()).unwrap();
    let access = Access::Tokens(Arc::new(service));
    let registry = Registry::with(Choices { access, hosts: AllowedHosts::Any, ..Choices::default() });
    let token = |access: Value| {
        let claims = json!({ "iss": "auth.example", "aud": "us", "sub": "ann", "exp": 4e9, "access": access });
        let head = json!({ "typ": "JWT", "alg": "EdDSA" });
        let signed = format!("{}.{}", encode(head.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        format!("Bearer {signed}.{}", encode(pair.sign(signed.as_bytes()).as_ref()))
    };
    let refused = registry.get("/v2/a/tags/list").refused(401, "UNAUTHORIZED");
    let wanted = "Bearer realm=\"https://auth.example/token\",service=\"us\",scope=\"repository:a:pull\"";
    assert_eq!(challenge(&refused), wanted);
    registry.get("/v2/").refused(401, "UNAUTHORIZED");
    registry.get("/v2/token").is(404);
    let of_a = token(json!([{ "type": "repository", "name": "a", "actions": ["pull", "push"] }]));
    let ask = |method: &str, path: &str, token: &str| registry.ask(method, path, &[("Authorization", token)], b"");
    ask("GET", "/v2/", &of_a).is(200);
    ask("GET", "/v2/a/tags/list", &of_a).refused(404, "NAME_UNKNOWN");
    ask("POST", "/v2/a/blobs/uploads/", &of_a).is(202);
    ask("DELETE", "/v2/a/manifests/x", &of_a).refused(401, "UNAUTHORIZED");
    ask("GET", "/v2/b/tags/list", &of_a).refused(401, "UNAUTHORIZED");
    ask("GET", "/v2/_catalog", &of_a).refused(401, "UNAUTHORIZED");
    let all = token(json!([{ "type": "registry", "name": "catalog", "actions": ["*"] },
        { "type": "repository", "name": "a", "actions": ["*"] }]));
    ask("GET", "/v2/_catalog", &all).is(200);
    ask("DELETE", "/v2/a/manifests/x", &all).refused(404, "NAME_UNKNOWN");
    ask("GET", "/v2/", &(of_a[..of_a.len() - 4].to_owned() + "AAAA")).refused(401, "UNAUTHORIZED");
    ask("GET", "/v2/", &basic("ann:secret")).refused(401, "UNAUTHORIZED");
}
