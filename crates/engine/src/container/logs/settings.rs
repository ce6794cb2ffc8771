//! From what was asked of a log, and the container that it is of, to what its monitor does.

use std::collections::BTreeMap;

use dozen_model::{ContainerId, ContainerName, ContainerSpec, LogAttributes, LogDriver, LogSpec};
use dozen_monitor::protocol::{LogFileSettings, LogFormat, LogSettings, RemoteSettings};
use jiff::Timestamp;
use regex_lite::Regex;

use super::gelf;
use super::remote;
use super::tag::{Tag, Values};
use crate::{EngineError, Snapshot};

/// How what is kept is written; `None`: nothing is.
pub(super) fn format(log: &LogSpec) -> Option<LogFormat> {
    log.files().map(|_| match log.driver() {
        LogDriver::JsonFile => LogFormat::Json,
        _ => LogFormat::Compact,
    })
}

/// What a monitor does from a start on. The tag has the container's name of that moment, as in Docker.
pub(crate) fn settings(snapshot: &Snapshot) -> Result<LogSettings, EngineError> {
    settings_of(&snapshot.id, &snapshot.name, snapshot.created, &snapshot.spec)
}

pub(super) fn settings_of(
    id: &ContainerId,
    name: &ContainerName,
    created: Timestamp,
    spec: &ContainerSpec,
) -> Result<LogSettings, EngineError> {
    let mut attributes = attributes(spec.log.attributes(), &spec.labels, &spec.process.environment)?;
    let tag = |template: &str| Ok::<_, EngineError>(template.parse::<Tag>()?.render(&Values::of(id, name, spec)));
    let remote = remote::destination(spec.log.driver())?.map(|destination| -> Result<_, EngineError> {
        let tag = tag(spec.log.tag().unwrap_or("{{.ID}}"))?;
        if let LogDriver::Gelf(_) = spec.log.driver() {
            attributes = gelf::additional_fields(id, name, created, spec, &tag, &attributes);
        }
        Ok(RemoteSettings {
            protocol: destination.protocol,
            address: destination.address,
            tag,
            container_id: id.to_string(),
            container_name: name.to_string(),
            image_name: spec.image_name.clone(),
            attributes: std::mem::take(&mut attributes),
            delivery: spec.log.delivery(),
            may_be_absent: destination.may_be_absent,
            retry_wait_ms: destination.retry_wait_ms,
        })
    });
    let remote = remote.transpose()?;
    if let (None, Some(template)) = (&remote, spec.log.tag()) {
        attributes.insert("tag".to_owned(), tag(template)?);
    }
    let file = match (format(&spec.log), spec.log.files()) {
        (Some(format), Some(files)) => Some(LogFileSettings { format, files, attributes }),
        _ => None,
    };
    Ok(LogSettings { file, remote })
}

/// What only a look at the options' texts can tell, before a container is made with them.
///
/// # Errors
/// An expression or a template that does not parse.
pub fn check(log: &LogSpec) -> Result<(), EngineError> {
    attributes(log.attributes(), &BTreeMap::new(), &[])?;
    log.tag().map_or(Ok(()), |tag| tag.parse::<Tag>().map(drop))
}

/// Labels and variables that were asked for by name or by expression.
fn attributes(
    wanted: &LogAttributes,
    labels: &BTreeMap<String, String>,
    environment: &[String],
) -> Result<BTreeMap<String, String>, EngineError> {
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let variables = environment.iter().filter_map(|variable| variable.split_once('='));
    let mut attributes = chosen("labels-regex", labels, &wanted.labels, wanted.labels_regex.as_deref())?;
    attributes.extend(chosen("env-regex", variables, &wanted.environment, wanted.environment_regex.as_deref())?);
    Ok(attributes)
}

fn chosen<'a>(
    option: &str,
    all: impl Iterator<Item = (&'a str, &'a str)>,
    names: &[String],
    expression: Option<&str>,
) -> Result<BTreeMap<String, String>, EngineError> {
    let expression = expression.map(Regex::new).transpose().map_err(|error| EngineError::Invalid {
        message: format!("invalid value for the log option {option}: {error}"),
        hint: None,
    })?;
    let is_wanted = |name: &str| {
        names.iter().any(|wanted| wanted == name)
            || expression.as_ref().is_some_and(|expression| expression.is_match(name))
    };
    Ok(all.filter(|(name, _)| is_wanted(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_goes_with_every_message() {
        let labels = BTreeMap::from([("team", "blue"), ("stage", "test"), ("other", "x")]);
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let environment = ["PATH=/bin".to_owned(), "APP_MODE=a=b".to_owned(), "APP_X=".to_owned()];
        let wanted = LogAttributes {
            labels: vec!["team".into(), "missing".into()],
            labels_regex: Some("^st".into()),
            environment: vec!["PATH".into()],
            environment_regex: Some("^APP_".into()),
        };
        let attributes = attributes(&wanted, &labels, &environment).unwrap();
        let attributes: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(attributes, ["APP_MODE=a=b", "APP_X=", "PATH=/bin", "stage=test", "team=blue"]);
    }

    #[test]
    fn an_expression_that_is_none_is_refused() {
        let log = |option: &str, value: &str| {
            LogSpec::parse("json-file", &BTreeMap::from([(option.to_owned(), value.to_owned())])).unwrap()
        };
        for (option, value, words) in [
            ("labels-regex", "(", "invalid value for the log option labels-regex"),
            ("env-regex", "[", "invalid value for the log option env-regex"),
            ("tag", "{{.Nobody}}", "Nobody"),
        ] {
            let error = check(&log(option, value)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        check(&log("tag", "{{.Name}}")).unwrap();
    }
}
