//! LogConfig: the log driver and its options, both ways.

use dozen_engine::LogChange;
use dozen_model::{LogDriver, LogSpec};
use serde_json::{Value, json};

use super::request::LogConfig;
use crate::error::ApiError;

/// What was asked, if it can be had.
pub(crate) fn spec(config: &LogConfig) -> Result<LogSpec, ApiError> {
    let spec = LogSpec::parse(&config.r#type, &config.config).map_err(|error| {
        let refusal = ApiError::new(error.kind, error.to_string());
        match error.hint {
            Some(hint) => refusal.with_hint(hint),
            None => refusal,
        }
    })?;
    dozen_engine::check_log(&spec)?;
    Ok(spec)
}

/// What `update` is to change of it.
pub(crate) fn change(config: LogConfig) -> LogChange {
    LogChange { driver: config.r#type, options: config.config }
}

/// HostConfig.LogConfig of inspect: what was asked.
pub(crate) fn config(spec: &LogSpec) -> Value {
    json!({ "Type": spec.driver().name(), "Config": spec.options() })
}

/// The name of the newest file in the container's directory, where other programs may read it; else Docker says nothing.
pub(crate) fn file_name(spec: &LogSpec) -> Option<&'static str> {
    (*spec.driver() == LogDriver::JsonFile).then_some("log.json")
}
