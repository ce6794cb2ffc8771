//! Signing what was pushed. It is done here, with a key that the engine never sees: the engine may be on another machine, and
//! is given the signature to bring it to the registry. What is signed is the digest that the push has told.

use std::io::{IsTerminal, Write};

use clap::{ArgMatches, Command};
use dozen_model::{Digest, Reference, base64};
use dozen_trust::{KeyError, PrivateKey, payload};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Context, read_file};
use crate::arguments::flags::{text, value};
use crate::client::{Query, encode_segment};
use crate::context::store::Store;
use crate::credentials;
use crate::failure::Failure;
use crate::terminal;

const KEY: &str = "sign-by-sigstore-private-key";
const PASSPHRASE: &str = "sign-passphrase-file";

/// podman's flags.
pub fn flags(command: Command) -> Command {
    command
        .arg(value(KEY, None, "file", "Sign the image using a sigstore private key: cosign's, or PKCS #8 in PEM"))
        .arg(value(PASSPHRASE, None, "file", "Read a passphrase for the key from the file's first line"))
}

/// A key that is open.
pub struct Signer(PrivateKey);

/// What the engine says of a name in a registry.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    is_index: bool,
    manifests: Vec<Manifest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    descriptor: Value,
}

impl Signer {
    /// The one that the command line names: opened before anything is pushed.
    pub fn of(matches: &ArgMatches) -> Result<Option<Self>, Failure> {
        let Some(path) = text(matches, KEY) else {
            return match text(matches, PASSPHRASE) {
                Some(_) => Err(Failure::new(format!("--{PASSPHRASE} is for --{KEY}, which is not given"))),
                None => Ok(None),
            };
        };
        let file = Zeroizing::new(read_file(path).map_err(Failure::new)?);
        let unusable = |why: String| Failure::new(format!("cannot sign with {path}: {why}"));
        let file = std::str::from_utf8(&file).map_err(|_| unusable("it is no text".to_owned()))?;
        let passphrase = match (text(matches, PASSPHRASE), PrivateKey::is_encrypted(file)) {
            (Some(path), _) => first_line(path)?,
            (None, true) => prompted(&format!("Passphrase for the key {path}: "))?,
            (None, false) => Zeroizing::default(),
        };
        let key = PrivateKey::read(file, passphrase.as_bytes()).map_err(|error| match error {
            KeyError::Passphrase => unusable(error.to_string()).with_hint(format!("--{PASSPHRASE} FILE names it")),
            error => unusable(error.to_string()),
        })?;
        Ok(Some(Self(key)))
    }

    /// Signs what a tag leads to; of an index also what it names, since podman looks at that and cosign at the index.
    pub async fn sign(
        &self,
        context: &Context,
        name: &Reference,
        digest: &str,
        is_insecure: bool,
    ) -> Result<Vec<Digest>, Failure> {
        let digest: Digest = digest.parse().map_err(|error| Failure::new(format!("{error}")))?;
        let store = Store::of(&|name| std::env::var(name).ok());
        let auth = credentials::of_registry(store.directory(), name.registry())?;
        let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
        let repository = format!("{}/{}", name.registry(), name.path());
        let query = Query::new().with("manifests", "1").with_flag("insecure", is_insecure);
        let path = format!("/distribution/{}/json{query}", encode_segment(&format!("{repository}@{digest}")));
        let answer: Answer = context.client.read_with(Method::GET, &path, &fields).await?;
        let mut signed = Vec::new();
        for manifest in answer.manifests.iter().filter(|_| answer.is_index) {
            let named = manifest.descriptor["digest"].as_str().and_then(|digest| digest.parse().ok());
            signed.extend(named);
        }
        // Itself last: who finds it signed finds all of it signed.
        signed.push(digest);
        let query = Query::new().with_flag("insecure", is_insecure);
        let path = format!("/distribution/{}/signature{query}", encode_segment(&repository));
        for digest in &signed {
            let payload = payload(name, digest);
            let signature = self.0.sign(&payload).map_err(|error| Failure::new(format!("cannot sign: {error}")))?;
            let body = json!({
                "Payload": base64::encode(&payload),
                "Signature": base64::encode(&signature),
                "PublicKey": self.0.public().to_pem(),
            });
            let _: Value = context.client.post_with(&path, &body, &fields).await?;
        }
        Ok(signed)
    }
}

/// What was pushed is there, and stays there if it cannot be signed: that is said.
pub fn after_push(name: &Reference, failure: Failure) -> Failure {
    let message = format!("{} was pushed and is not signed: {}", name.familiar(), failure.message);
    Failure { message, ..failure }
}

/// A passphrase in a file, without the end of its line.
pub fn first_line(path: &str) -> Result<Zeroizing<String>, Failure> {
    let all = Zeroizing::new(read_file(path).map_err(Failure::new)?);
    let line = all.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| Failure::new(format!("the passphrase in {path} is no text")))?;
    Ok(Zeroizing::new(line.to_owned()))
}

/// Asked for on the terminal. Without one it is empty, as that of keys which programs use often is.
fn prompted(question: &str) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(Zeroizing::default());
    }
    let line = terminal::read_hidden_line(question)?;
    let _ = writeln!(std::io::stderr());
    line.map(Zeroizing::new).ok_or_else(|| Failure::new("no passphrase was given"))
}
