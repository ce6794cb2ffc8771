//! `dozen artifact referrers`: what a registry has about an image.

use clap::ArgMatches;
use http::Method;
use serde::Deserialize;

use super::{auth_for, reference};
use crate::arguments::flags::{is_on, required, switch_value, text};
use crate::client::{Query, encode_segment};
use crate::commands::Context;
use crate::failure::Outcome;
use crate::output::listing::{self, Layout};
use crate::output::{self, size};
use crate::template::Row;

const LAYOUT: Layout = Layout {
    table: "{{.Digest}}\t{{.ArtifactType}}\t{{.Created}}\t{{.Size}}",
    quiet: "Digest",
    headings: &[
        ("Digest", "DIGEST"),
        ("ArtifactType", "ARTIFACT TYPE"),
        ("MediaType", "MEDIA TYPE"),
        ("Created", "CREATED AT"),
        ("Size", "SIZE"),
        ("Reference", "REFERENCE"),
    ],
};
/// OCI image-spec, annotations.md.
const CREATED: &str = "org.opencontainers.image.created";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    referrers: Vec<Referrer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    artifact_type: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

pub async fn execute(context: &Context, matches: &ArgMatches) -> Outcome {
    let name = reference(required(matches, "image"))?;
    let query = Query::new()
        .with_some("artifactType", text(matches, "artifact-type"))
        .with_some("platform", text(matches, "platform"))
        .with_flag("insecure", switch_value(matches, "tls-verify") == Some(false));
    let auth = auth_for(name.registry())?;
    let fields: Vec<_> = auth.iter().map(|auth| ("X-Registry-Auth", auth.header())).collect();
    let path = format!("/distribution/{}/referrers{query}", encode_segment(&name.to_string()));
    let found: Found = context.client.read_with(Method::GET, &path, &fields).await?;
    let truncates = !is_on(matches, "no-trunc");
    let repository = name.familiar_name();
    let rows = found.referrers.into_iter().map(|referrer| row(referrer, &repository, truncates)).collect();
    output::print(&listing::render(&LAYOUT, text(matches, "format"), is_on(matches, "quiet"), rows)?)?;
    Ok(0)
}

fn row(mut referrer: Referrer, repository: &str, truncates: bool) -> Row {
    let full = format!("{repository}@{}", referrer.digest);
    // Long enough to be told from others; the whole is what one copies.
    let digest =
        if truncates { referrer.digest.get(..19).unwrap_or(&referrer.digest).to_owned() } else { referrer.digest };
    let columns = vec![
        ("Digest", digest),
        ("ArtifactType", referrer.artifact_type),
        ("MediaType", referrer.media_type),
        ("Created", referrer.annotations.remove(CREATED).unwrap_or_default()),
        ("Size", size::human(referrer.size)),
        ("Reference", full),
    ];
    Row { columns, labels: Some(referrer.annotations.into_iter().collect()) }
}
