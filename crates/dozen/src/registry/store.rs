//! Where a registry keeps its data: flags of all who look at it, and what they mean.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use dozen_bucket::{Keys, KeysError, Location, LocationError, S3Bucket};

/// Where Amazon's tools would look for a bucket that nobody has said more of.
const REGION: &str = "us-east-1";

/// How an S3-compatible store is reached. Keys come from the environment or a file: a command line is for everyone to read.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Where the store is, if it is not Amazon's (http://127.0.0.1:9000; else AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL)
    #[arg(long, value_name = "URL")]
    store_endpoint: Option<String>,
    /// Its region (else AWS_REGION or AWS_DEFAULT_REGION; else us-east-1)
    #[arg(long, value_name = "NAME")]
    store_region: Option<String>,
    /// File with its keys, as ~/.aws/credentials (else AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)
    #[arg(long, value_name = "FILE")]
    store_credentials: Option<PathBuf>,
    /// Begin also if another registry, which has not ended in order, may still serve the store: it ends then
    #[arg(long)]
    pub(crate) take_over: bool,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(
        "--store-endpoint, --store-region, --store-credentials and --take-over are about a store: say which with --store"
    )]
    WithoutStore,
    #[error("cannot use {0}: {1}")]
    Location(String, LocationError),
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Access {
    /// Of who may have said no store: one that was not said is not looked for.
    pub(crate) fn bucket_of(&self, store: Option<&str>) -> Result<Option<Arc<S3Bucket>>, StoreError> {
        let is_said = self.store_endpoint.is_some() || self.store_region.is_some() || self.store_credentials.is_some();
        match store {
            Some(store) => self.bucket(store).map(Some),
            None if is_said || self.take_over => Err(StoreError::WithoutStore),
            None => Ok(None),
        }
    }

    /// `s3://bucket/prefix`.
    pub(crate) fn bucket(&self, store: &str) -> Result<Arc<S3Bucket>, StoreError> {
        let (endpoint, region) = self.place(|name| std::env::var(name).ok());
        let wrong = |error| StoreError::Location(store.to_owned(), error);
        let location = Location::parse(store, &region, endpoint.as_deref()).map_err(wrong)?;
        let keys = match &self.store_credentials {
            Some(path) => Keys::read(path)?,
            None => Keys::of(|name| std::env::var(name).ok())?,
        };
        Ok(Arc::new(S3Bucket::new(location, &keys).map_err(wrong)?))
    }

    /// Endpoint and region: what is said, else what Amazon's tools would take.
    fn place(&self, variable: impl Fn(&str) -> Option<String>) -> (Option<String>, String) {
        let of = |names: [&str; 2]| names.into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
        let endpoint = self.store_endpoint.clone().or_else(|| of(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
        let region = self.store_region.clone().or_else(|| of(["AWS_REGION", "AWS_DEFAULT_REGION"]));
        (endpoint, region.unwrap_or_else(|| REGION.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access { store_endpoint: None, store_region: None, store_credentials: None, take_over: false }
    }

    #[test]
    fn what_is_said_counts_before_the_environment() {
        let variable =
            |name: &str| (name == "AWS_ENDPOINT_URL" || name == "AWS_DEFAULT_REGION").then(|| name.to_owned());
        let of_environment = (Some("AWS_ENDPOINT_URL".to_owned()), "AWS_DEFAULT_REGION".to_owned());
        assert_eq!(access().place(variable), of_environment);
        assert_eq!(access().place(|_| None), (None, REGION.to_owned()));
        let said = Access { store_endpoint: Some("http://a".into()), store_region: Some("b".into()), ..access() };
        assert_eq!(said.place(variable), (Some("http://a".to_owned()), "b".to_owned()));
    }

    #[test]
    fn what_is_about_a_store_wants_one() {
        assert!(access().bucket_of(None).unwrap().is_none());
        let said = Access { take_over: true, ..access() };
        assert!(matches!(said.bucket_of(None), Err(StoreError::WithoutStore)));
        assert!(matches!(access().bucket_of(Some("images")), Err(StoreError::Location(..) | StoreError::Keys(_))));
    }
}
