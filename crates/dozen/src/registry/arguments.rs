//! The flags of `dozen registry`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser};
use dozen_distribution::{AllowedHosts, Scrub, StoreOptions};
use dozen_settings::LogLevel;

use super::store::Access;

#[derive(Debug, Parser)]
#[command(name = "dozen registry", bin_name = "dozen registry", about = "A registry of images of one's own")]
pub(crate) enum Command {
    /// Serve a registry in the foreground
    #[command(after_help = "Examples:\n  dozen registry serve\n  \
        dozen registry serve --listen 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem --htpasswd passwords\n  \
        dozen registry serve --htpasswd passwords --rights rights.toml\n  \
        dozen registry serve --store s3://images/registry --store-endpoint https://s3.example\n  \
        dozen registry serve --upstreams upstreams.toml --retention retention.toml\n\n\
        A file of rights says who may pull, push and delete where:\n\n  \
        [groups]\n  developers = [\"ann\", \"bob\"]\n\n  \
        [[rule]]\n  repositories = [\"team/**\"]\n  pull = [\"@anyone\"]\n  push = [\"@developers\"]\n  delete = [\"ann\"]\n\n\
        A file of upstreams says whose repositories are kept here as they are pulled:\n\n  \
        [[upstream]]\n  repositories = \"hub/**\"\n  url = \"https://registry-1.docker.io\"\n  fresh = \"10m\"   \
        # the upstream is asked again what a tag leads to\n\n\
        SIGTERM ends it. SIGHUP has it read certificate, key, passwords, rights, rules of retention and upstreams again.")]
    Serve(Box<Serve>),
    /// Read all that a registry keeps, and say what is damaged; nothing may serve it meanwhile
    Check(Check),
    /// Say what goes by rules of retention, or delete it where no server does
    #[command(after_help = "Examples:\n  dozen registry retention --dry-run                        \
        # by the rules of the server\n  \
        dozen registry retention --dry-run --retention new.toml   # by others\n\n\
        A file of rules says what repositories keep; the first rule that names one counts for it:\n\n  \
        [[rule]]\n  repositories = [\"team/**\"]\n  keep-newest = 10\n  keep-tags = [\"latest\", \"v*\"]\n  \
        keep-younger = \"30d\"       # pushed since\n  keep-pulled = \"14d\"        # pushed or pulled since\n  \
        untagged-after = \"7d\"      # manifests go that have been without a tag so long")]
    Retention(Retention),
    /// Copy all that a registry keeps from a directory to a store, or back; nothing may serve it meanwhile
    #[command(after_help = "Examples:\n  \
        dozen registry migrate --from /var/lib/dozen-registry --to s3://images/registry\n  \
        dozen registry migrate --from s3://images/registry --to /srv/registry --store-endpoint http://127.0.0.1:9000\n\n\
        Each blob is compared with its digest. What was cut goes on when it is said again. What is copied from stays.")]
    Migrate(Migrate),
}

impl Command {
    /// Reads the command line, which begins with the word `registry`. Ends the process for `--help` and a bad flag.
    pub(crate) fn read(arguments: impl Iterator<Item = std::ffi::OsString>) -> Self {
        Self::parse_from(arguments)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where the registry keeps what it is given
    #[arg(long, value_name = "DIRECTORY", env = "DOZEN_REGISTRY_ROOT", default_value = ROOT)]
    pub(crate) root: PathBuf,
    /// S3-compatible store that has all of it; the directory is then for uploads on their way, and for an index
    #[arg(long, value_name = "s3://BUCKET/PREFIX", env = "DOZEN_REGISTRY_STORE")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Where it listens; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    pub(crate) listen: SocketAddr,
    /// Certificate, and those between it and its authority (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Names and passwords of who is let in, as htpasswd -B writes them
    #[arg(long, value_name = "FILE")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// Who may pull, push and delete in which repositories (TOML); without it, everyone with a password may do everything
    #[arg(long, value_name = "FILE", requires = "htpasswd")]
    pub(crate) rights: Option<PathBuf>,
    /// Where clients get tokens: of one's own, if a proxy stands before the registry; or of a service elsewhere
    #[arg(long, value_name = "URL")]
    pub(crate) token_realm: Option<String>,
    /// What the registry is called in tokens
    #[arg(long, value_name = "NAME", default_value = "dozen-registry")]
    pub(crate) token_service: String,
    /// Take the tokens of a service elsewhere, which signs them with one of these keys (PEM, or JSON Web Keys), and no passwords
    #[arg(long, value_name = "FILE", requires_all = ["token_realm", "token_issuer"], conflicts_with_all = ["htpasswd", "allow_anonymous"])]
    pub(crate) token_key: Option<PathBuf>,
    /// What that service calls itself in them
    #[arg(long, value_name = "NAME", requires = "token_key")]
    pub(crate) token_issuer: Option<String>,
    /// Send those who pull a large blob to the store for it, by addresses that are good for 20 minutes; they have to reach it
    #[arg(long, requires = "store")]
    pub(crate) store_redirect: bool,
    /// Let everyone in who reaches an address that is not loopback's: to pull, to push and to delete
    #[arg(long, conflicts_with = "htpasswd")]
    allow_anonymous: bool,
    /// Speak without TLS on an address that is not loopback's: names, passwords and images can be read and changed on the
    /// way
    #[arg(long, conflicts_with = "tls_cert")]
    plain_http: bool,
    /// Name by which clients may call a registry without TLS and passwords, beside localhost and addresses
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Change nothing: neither push nor delete, and nothing is collected
    #[arg(long)]
    pub(crate) read_only: bool,
    /// What each repository may have, in all (50g)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    quota: Option<u64>,
    /// How long a blob stays that no manifest names, after it was last pushed or asked for
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    grace: Duration,
    /// How often such blobs are looked for, and rules of retention carried out
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub(crate) collect_every: Duration,
    /// What repositories keep (TOML; see dozen registry retention --help); without it, nothing goes that has not been deleted
    #[arg(long, value_name = "FILE")]
    pub(crate) retention: Option<PathBuf>,
    /// Whose repositories are kept here as they are pulled (TOML): a cache in front of other registries
    #[arg(long, value_name = "FILE", conflicts_with = "read_only")]
    pub(crate) upstreams: Option<PathBuf>,
    /// How long an upload stays open that nobody goes on with
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    upload_timeout: Duration,
    /// Uploads that may be open at once
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    max_uploads: usize,
    /// A client that neither sends nor takes anything for so long is let go
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) stall_timeout: Duration,
    /// Read all blobs once in each such time (7d), to find those that the disk or the store has damaged; without it, none is
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "read_only")]
    scrub_every: Option<Duration>,
    /// What that reads in a second at the most; a quarter of it while clients are served
    #[arg(long, value_name = "SIZE", default_value = "16m", value_parser = rate, requires = "scrub_every")]
    scrub_rate: u64,
    /// Whom to tell of pushes, pulls, mounts and deletions, in the form of docker-registry's notifications (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) webhooks: Option<PathBuf>,
    /// Tell numbers to Prometheus at http://ADDRESS:PORT/metrics, to everyone who reaches that
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Have no page for browsers, which shows at http://ADDRESS:PORT/ what repositories have
    #[arg(long)]
    pub(crate) no_page: bool,
    /// Say more: each request that is refused, and why
    #[arg(short = 'D', long)]
    debug: bool,
    /// Print the places where a test can kill it, and end
    #[arg(long, hide = true)]
    pub(crate) failpoints: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Where the registry keeps what it was given
    #[arg(long, value_name = "DIRECTORY", env = "DOZEN_REGISTRY_ROOT", default_value = ROOT)]
    pub(crate) root: PathBuf,
    /// S3-compatible store that has all of it
    #[arg(long, value_name = "s3://BUCKET/PREFIX", env = "DOZEN_REGISTRY_STORE")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Where it is: a directory, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "PLACE")]
    pub(crate) from: String,
    /// Where it is to be, of which nothing is there yet: s3://BUCKET/PREFIX, or a directory
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) access: Access,
}

#[derive(Debug, Args)]
pub(crate) struct Retention {
    /// Where the registry keeps what it was given
    #[arg(long, value_name = "DIRECTORY", env = "DOZEN_REGISTRY_ROOT", default_value = ROOT)]
    pub(crate) root: PathBuf,
    /// Rules (TOML); without it, those of the server that runs
    #[arg(long, value_name = "FILE")]
    pub(crate) retention: Option<PathBuf>,
    /// Change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

const ROOT: &str = "/var/lib/dozen-registry";

impl Serve {
    /// Refuses what would let in more people than whoever typed it may think.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(realm) = &self.token_realm {
            if self.rights.is_none() && self.token_key.is_none() {
                return Err("--token-realm is for tokens, which --rights or --token-key bring".to_owned());
            }
            if !realm.starts_with("https://") && !realm.starts_with("http://") {
                return Err(format!("--token-realm {realm:?} is no URL: write https://…"));
            }
        }
        if self.listen.ip().is_loopback() {
            return Ok(());
        }
        if self.tls_cert.is_none() && !self.plain_http {
            return Err(format!(
                "without TLS everyone on the way to {} reads and changes what is pushed: give --tls-cert and --tls-key, \
                 or say --plain-http",
                self.listen
            ));
        }
        if !self.asks_who() && !self.allow_anonymous {
            return Err(format!(
                "everyone who reaches {} could push and delete: give --htpasswd, or say --allow-anonymous",
                self.listen
            ));
        }
        Ok(())
    }

    /// Whether somebody has to say who he is.
    fn asks_who(&self) -> bool {
        self.htpasswd.is_some() || self.token_key.is_some()
    }

    /// Certificate and key.
    pub(crate) fn tls_files(&self) -> Option<(&Path, &Path)> {
        Some((self.tls_cert.as_deref()?, self.tls_key.as_deref()?))
    }

    pub(crate) fn store_options(&self) -> StoreOptions {
        StoreOptions {
            quota_bytes: self.quota,
            most_uploads: self.max_uploads,
            upload_patience: self.upload_timeout,
            grace: self.grace,
        }
    }

    pub(crate) fn scrub(&self) -> Option<Scrub> {
        Some(Scrub { every: self.scrub_every?, bytes_per_second: self.scrub_rate })
    }

    pub(crate) fn hosts(&self) -> AllowedHosts {
        if self.asks_who() { AllowedHosts::Any } else { AllowedHosts::Named(self.allowed_host.clone()) }
    }

    pub(crate) fn log_level(&self) -> LogLevel {
        if self.debug { LogLevel::Debug } else { LogLevel::Info }
    }
}

/// `50g`, `1.5t`, `4096`; units are powers of 1024, as everywhere else.
fn size(text: &str) -> Result<u64, String> {
    let invalid = || "write a number of bytes, or with k, m, g or t behind it".to_owned();
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let power = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(invalid()),
    };
    let bytes = number.parse::<f64>().map_err(|_| invalid())? * 1024_f64.powi(power);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is at least 0 and below 2^63")]
    if bytes < 9.2e18 { Ok(bytes as u64) } else { Err(invalid()) }
}

/// Of bytes in a second. A slower one would not come to an end.
fn rate(text: &str) -> Result<u64, String> {
    size(text).and_then(|bytes| if bytes >= 64 << 10 { Ok(bytes) } else { Err("write 64k or more".to_owned()) })
}

/// `90s`, `10m`, `24h`, `7d`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || "write a number with ms, s, m, h or d behind it".to_owned();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| invalid())?;
    let one = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(60 * 60),
        "d" => Duration::from_secs(24 * 60 * 60),
        _ => return Err(invalid()),
    };
    Ok(one * number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn serve(words: &[&str]) -> Result<Serve, String> {
        let words = ["registry", "serve"].iter().chain(words);
        match Command::try_parse_from(words).map_err(|error| error.to_string())? {
            Command::Serve(serve) => Ok(*serve),
            Command::Check(_) | Command::Retention(_) | Command::Migrate(_) => unreachable!("serve was said"),
        }
    }

    #[test]
    fn only_loopback_is_open_unless_that_is_said() {
        Command::command().debug_assert();
        let tls = ["--tls-cert", "c", "--tls-key", "k"];
        let (all, passwords) = (["--listen", "0.0.0.0:5000"], ["--htpasswd", "p"]);
        for (words, refused) in [
            (vec![], None),
            (vec!["--listen", "[::1]:0"], None),
            (all.to_vec(), Some("without TLS")),
            ([&all[..], &tls].concat(), Some("could push and delete")),
            ([&all[..], &passwords].concat(), Some("without TLS")),
            ([&all[..], &tls, &passwords].concat(), None),
            ([&all[..], &["--plain-http", "--allow-anonymous"]].concat(), None),
        ] {
            let told = serve(&words).unwrap().check().err();
            assert_eq!(told.is_some(), refused.is_some(), "{words:?}: {told:?}");
            assert!(refused.is_none_or(|refused| told.unwrap().contains(refused)), "{words:?}");
        }
        let elsewhere = ["--token-key", "k", "--token-realm", "https://a/token", "--token-issuer", "a"];
        assert!(serve(&[&all[..], &tls, &elsewhere].concat()).unwrap().check().is_ok());
        for bad in [
            &["--rights", "r"][..],
            &elsewhere[..2],
            &elsewhere[..4],
            &[&elsewhere[..], &passwords].concat(),
            &[&elsewhere[..], &["--allow-anonymous"]].concat(),
            &elsewhere[4..],
        ] {
            assert!(serve(bad).is_err(), "{bad:?}");
        }
        for bad in [&elsewhere[2..4], &["--htpasswd", "p", "--rights", "r", "--token-realm", "here"]] {
            assert!(serve(bad).unwrap().check().unwrap_err().contains("--token-realm"), "{bad:?}");
        }
        assert!(serve(&["--tls-cert", "c"]).is_err() && serve(&["--listen", "nowhere"]).is_err());
    }

    #[test]
    fn sizes_and_times_have_units() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("1k", 1024), ("1.5G", 3 << 29), ("2TiB", 2 << 40)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, seconds) in [("90s", 90), ("10m", 600), ("24h", 86_400), ("7d", 604_800), ("3000ms", 3)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "g", "-1", "1x", "1e400"] {
            assert!(size(bad).is_err() && duration(bad).is_err(), "{bad}");
        }
    }
}
