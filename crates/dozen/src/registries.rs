//! The flags of `dozen daemon` about registries, by the names that the configuration file has.

use clap::Args;
use dozen_settings::Keys;
use serde_json::json;

#[derive(Debug, Args)]
pub(crate) struct Registries {
    /// Registry that may show any certificate, or have no TLS: HOST[:PORT], or a network
    #[arg(long)]
    insecure_registry: Vec<String>,
    /// Asked for Docker Hub's images before it: https://HOST
    #[arg(long)]
    registry_mirror: Vec<String>,
    /// Directory in which those of registries are, with certificates and hosts.toml: DIR/HOST[:PORT]
    #[arg(long)]
    certs_dir: Vec<String>,
    /// Layers of one pull that come at the same time
    #[arg(long)]
    max_concurrent_downloads: Option<u8>,
    /// Layers of one push that go at the same time
    #[arg(long)]
    max_concurrent_uploads: Option<u8>,
    /// How often a registry is asked for something that fails
    #[arg(long)]
    max_download_attempts: Option<u8>,
    /// Who has to have signed which images: a file as containers-policy.json(5) has it
    #[arg(long, value_name = "FILE")]
    signature_policy: Option<String>,
    /// Where the engine serves a registry of its own (by default 127.0.0.1:12012), or off
    #[arg(long, value_name = "ADDRESS:PORT")]
    registry_listen: Option<String>,
}

impl Registries {
    /// What is said.
    pub(crate) fn say(&self, keys: &mut Keys) {
        let lists = [
            ("certs-dirs", &self.certs_dir),
            ("insecure-registries", &self.insecure_registry),
            ("registry-mirrors", &self.registry_mirror),
        ];
        let numbers = [
            ("max-concurrent-downloads", self.max_concurrent_downloads),
            ("max-concurrent-uploads", self.max_concurrent_uploads),
            ("max-download-attempts", self.max_download_attempts),
        ];
        let policy = self.signature_policy.as_ref().map(|path| ("signature-policy".to_owned(), json!(path)));
        keys.extend(policy);
        let lists = lists.into_iter().filter(|(_, said)| !said.is_empty()).map(|(key, said)| (key, json!(said)));
        let numbers = numbers.into_iter().filter_map(|(key, said)| Some((key, json!(said?))));
        let listen = self.registry_listen.iter().map(|said| ("registry-listen", json!(said)));
        keys.extend(lists.chain(numbers).chain(listen).map(|(key, value)| (key.to_owned(), value)));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        registries: Registries,
    }

    #[test]
    fn flags_speak_by_the_names_of_the_file() {
        let said = |words: &[&str]| {
            let mut keys = Keys::new();
            Line::parse_from([&["daemon"], words].concat()).registries.say(&mut keys);
            serde_json::Value::Object(keys)
        };
        let flags = "--insecure-registry a:5000 --insecure-registry 10.0.0.0/8 --registry-mirror https://m.example \
                     --certs-dir /a --certs-dir /b --max-concurrent-downloads 6 --max-concurrent-uploads 7 \
                     --max-download-attempts 2 --signature-policy /p.json --registry-listen off";
        assert_eq!(
            said(&flags.split_whitespace().collect::<Vec<_>>()),
            json!({
                "insecure-registries": ["a:5000", "10.0.0.0/8"], "registry-mirrors": ["https://m.example"],
                "certs-dirs": ["/a", "/b"],
                "max-concurrent-downloads": 6, "max-concurrent-uploads": 7, "max-download-attempts": 2,
                "signature-policy": "/p.json",
                "registry-listen": "off",
            })
        );
        assert_eq!(said(&[]), json!({}));
    }
}
