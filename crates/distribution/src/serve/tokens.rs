//! `/v2/token`: tokens are asked for, by GET with a query or by POST with a form (the distribution project's "Token
//! Authentication Specification" and "Oauth2 Token Authentication"; RFC 6749, sections 4.3 and 6).

use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde_json::json;

use super::body::Body;
use super::reception::Reception;
use super::{Answer, header, intake, query, set};
use crate::access::authorizer::{Issued, Proof};
use crate::access::scope::renamed;
use crate::access::{Access, CHALLENGE, Credentials, credentials};
use crate::refusal::{Kind, Refusal};
use crate::route::percent_decoded;

/// Of a form.
const LARGEST_BYTES: usize = 64 << 10;

/// What is asked for.
struct Asked {
    proof: Proof,
    scope: String,
    service: Option<String>,
    wants_refresh: bool,
}

impl Reception {
    pub(super) async fn token(&self, request: &mut Request<Incoming>) -> Answer {
        let Access::Rights(authorizer) = &self.options.access else {
            return Err(Refusal::new(Kind::PathUnknown, "this registry gives no tokens"));
        };
        let asked = if request.method() == Method::POST {
            let is_form = |text: &str| text.split(';').next().unwrap_or_default().trim() == FORM;
            if !header(request, "content-type").is_some_and(is_form) {
                return Err(invalid(format!("a token is asked for by a form: Content-Type: {FORM}")));
            }
            let body = intake::whole(request.body_mut(), LARGEST_BYTES, self.options.stall).await?;
            let body = body.ok_or_else(|| invalid("the form is too long"))?;
            by_form(&fields(&String::from_utf8_lossy(&body)))?
        } else {
            by_query(&fields(query(request)), credentials(request.headers()))?
        };
        if let Some(service) = asked.service.as_ref().filter(|service| !authorizer.is_called(service)) {
            return Err(invalid(format!("tokens for {service:?} are not given here")));
        }
        // Whoever was sent here for what he calls by its name elsewhere.
        let scope = match (fields(query(request)).one("ns"), &self.options.upstreams) {
            (Some(registry), Some(upstreams)) => renamed(&asked.scope, |name| upstreams.here(&registry, name)),
            _ => asked.scope,
        };
        let issued = authorizer.issue(asked.proof, &scope, asked.wants_refresh).await;
        // So that a person's browser, or curl, asks for a password.
        let issued = issued.map_err(|refusal| match refusal.kind {
            Kind::Unauthorized => refusal.with_field("www-authenticate", CHALLENGE),
            _ => refusal,
        })?;
        Ok(answer(&issued))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn by_query(fields: &Fields, credentials: Credentials) -> Result<Asked, Refusal> {
    let proof = match credentials {
        Credentials::None => Proof::Nobody,
        Credentials::Basic(name, password) => Proof::Password(name, password),
        Credentials::Bearer(_) | Credentials::Other => {
            return Err(Refusal::new(Kind::Unauthorized, "log in by name and password")
                .with_field("www-authenticate", CHALLENGE));
        }
    };
    let wants_refresh = fields.one("offline_token").is_some_and(|text| text == "true" || text == "1");
    Ok(Asked { proof, scope: fields.all("scope"), service: fields.one("service"), wants_refresh })
}

fn by_form(fields: &Fields) -> Result<Asked, Refusal> {
    let wanted = |name: &str| fields.one(name).ok_or_else(|| invalid(format!("the form has no {name}")));
    let proof = match wanted("grant_type")?.as_str() {
        "password" => Proof::Password(wanted("username")?, wanted("password")?.into_bytes()),
        "refresh_token" => Proof::Refresh(wanted("refresh_token")?),
        _ => return Err(invalid("grant_type is password or refresh_token")),
    };
    let wants_refresh = fields.one("access_type").is_some_and(|text| text == "offline");
    Ok(Asked { proof, scope: fields.all("scope"), service: Some(wanted("service")?), wants_refresh })
}

fn answer(issued: &Issued) -> Response<Body> {
    let mut document = json!({
        "token": issued.token, "access_token": issued.token, "expires_in": issued.seconds, "scope": issued.scope,
        "token_type": "Bearer",
    });
    if let Some(refresh) = &issued.refresh {
        document["refresh_token"] = json!(refresh);
    }
    let text = document.to_string();
    let length = text.len();
    let mut response = Response::new(Body::whole(text));
    set(&mut response, "content-type", "application/json");
    set(&mut response, "content-length", &length.to_string());
    // RFC 6749, section 5.1.
    set(&mut response, "cache-control", "no-store");
    response
}

fn invalid(words: impl Into<String>) -> Refusal {
    Refusal::new(Kind::QueryInvalid, words)
}

/// Of a form or a query, in which a blank is a `+` (url.spec.whatwg.org, "application/x-www-form-urlencoded").
struct Fields(Vec<(String, String)>);

fn fields(text: &str) -> Fields {
    let decoded = |text: &str| percent_decoded(&text.replace('+', "%20"));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((decoded(name)?, decoded(value)?))
    };
    Fields(text.split('&').filter_map(pair).collect())
}

impl Fields {
    fn one(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.clone())
    }

    /// All of this name, with blanks between them.
    fn all(&self, name: &str) -> String {
        let found = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_in_two_ways() {
        let text = "service=s&scope=repository%3Aa%3Apull+repository:b:pull&scope=repository:c:push&offline_token=true";
        let asked = by_query(&fields(text), Credentials::Basic("ann".into(), b"secret".to_vec())).unwrap();
        assert_eq!(asked.scope, "repository:a:pull repository:b:pull repository:c:push");
        assert!(asked.wants_refresh && asked.service.as_deref() == Some("s"));
        assert!(matches!(asked.proof, Proof::Password(name, password) if name == "ann" && password == b"secret"));
        assert!(matches!(by_query(&fields(""), Credentials::None).unwrap().proof, Proof::Nobody));
        assert!(by_query(&fields(""), Credentials::Bearer("x".into())).is_err());
        let form = "grant_type=password&service=s&client_id=c&username=ann&password=a%2Bb+c&access_type=offline";
        let asked = by_form(&fields(form)).unwrap();
        assert!(matches!(asked.proof, Proof::Password(name, password) if name == "ann" && password == b"a+b c"));
        assert!(asked.wants_refresh && asked.scope.is_empty());
        let asked = by_form(&fields("grant_type=refresh_token&service=s&refresh_token=t")).unwrap();
        assert!(matches!(asked.proof, Proof::Refresh(token) if token == "t"));
        for (form, words) in [
            ("", "no grant_type"),
            ("grant_type=authorization_code&service=s", "grant_type is"),
            ("grant_type=password&service=s&username=ann", "no password"),
            ("grant_type=refresh_token&refresh_token=t", "no service"),
        ] {
            assert!(by_form(&fields(form)).err().unwrap().message.contains(words), "{form}");
        }
    }
}
