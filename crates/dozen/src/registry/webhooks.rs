//! Webhooks of a registry, carried by our own client of HTTP: by TLS with the host's authorities, through the proxies of the
//! environment.

use std::collections::HashMap;
use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use dozen_distribution::{Deliver, Delivery, Endpoint, MEDIA_TYPE, read_endpoints};
use dozen_fetch::{Address, Authorities, Connections, Fetching, Patience, Proxies, Question, whole};
use dozen_model::error_chain;
use http::{HeaderValue, Method, header};

/// Endpoints of this file, all of which can be asked.
pub(super) fn read(path: &Path) -> Result<Vec<Endpoint>, Box<dyn Error>> {
    let endpoints = read_endpoints(path)?;
    for endpoint in &endpoints {
        Address::parse(&endpoint.url).map_err(|error| format!("{}: {}: {error}", path.display(), endpoint.name))?;
    }
    let has_secrets = endpoints.iter().any(|endpoint| !endpoint.headers.is_empty() || endpoint.url.contains('@'));
    if has_secrets && std::fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        tracing::warn!("others than its owner can read what proves who we are in {}: say chmod 600", path.display());
    }
    Ok(endpoints)
}

/// What carries events.
pub(super) fn sender() -> Result<Arc<dyn Deliver>, Box<dyn Error>> {
    // What is no text is no address either.
    let variables: HashMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let fetching = Fetching {
        proxies: Proxies::of(|name| variables.get(name).map(String::as_str)),
        authorities: Authorities::of_host(None)?,
        reach: dozen_fetch::Reach::Anywhere,
        may_be_plain: false,
        patience: Patience::default(),
        door: None,
    };
    Ok(Arc::new(Sender(fetching)))
}

struct Sender(Fetching);

impl Deliver for Sender {
    fn deliver<'a>(&'a self, endpoint: &'a Endpoint, envelope: &'a str) -> Delivery<'a> {
        Box::pin(async move {
            let address = Address::parse(&endpoint.url).map_err(|error| error.to_string())?;
            let mut headers = endpoint.headers.clone();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
            let body = Some(whole(envelope.to_owned()));
            let question = Question { method: Method::POST, address: &address, headers, body };
            // Closed with it: what has a body gets a connection of its own in any case.
            let connections = Connections::default();
            let asked = tokio::time::timeout(endpoint.timeout, self.0.ask(question, &connections)).await;
            let answer = asked.map_err(|_| format!("it does not answer within {:?}", endpoint.timeout))?;
            answer.map(|answer| answer.status.as_u16()).map_err(|error| error_chain(&error))
        })
    }
}
