//! What the engine's configuration says of containers whose request does not.

use dozen_model::LogSpec;
use dozen_settings::Settings;

use super::log;
use super::request::{Create, LogConfig};
use crate::error::ApiError;

/// Fills in what the request leaves open. As with Docker, options of the default log driver hold also for a request
/// that names that driver itself, unless it gives them.
pub(crate) fn merge(request: &mut Create, settings: &Settings) {
    let host = &mut request.host_config;
    if host.shm_size == 0 {
        host.shm_size = i64::try_from(settings.shm_size_bytes).unwrap_or(i64::MAX);
    }
    merge_log(&mut host.log_config, settings);
    if let Some(address) = settings.publish_address {
        for binding in host.port_bindings.values_mut().flatten().flatten().filter(|binding| binding.ip.is_empty()) {
            binding.ip = address.to_string();
        }
    }
}

fn merge_log(asked: &mut LogConfig, settings: &Settings) {
    let default = &settings.logging;
    if asked.r#type.is_empty() {
        asked.r#type.clone_from(&default.driver);
    }
    if asked.r#type == default.driver {
        for (option, value) in &default.options {
            asked.config.entry(option.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Whether a container could be made with the default log driver and its options.
pub(crate) fn check(settings: &Settings) -> Result<LogSpec, ApiError> {
    let mut asked = LogConfig::default();
    merge_log(&mut asked, settings);
    log::spec(&asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings() -> Settings {
        let mut settings = Settings { shm_size_bytes: 1 << 20, ..Settings::default() };
        settings.logging.options.insert("max-size".into(), "1m".into());
        settings.publish_address = Some([127, 0, 0, 1].into());
        settings
    }

    fn merged(body: serde_json::Value) -> Create {
        let mut request: Create = serde_json::from_value(body).unwrap();
        merge(&mut request, &settings());
        request
    }

    #[test]
    fn what_a_request_says_goes_first() {
        let request = merged(json!({ "HostConfig": {
            "ShmSize": 5, "LogConfig": { "Type": "json-file", "Config": { "max-size": "2m" } },
            "PortBindings": { "80/tcp": [{ "HostIp": "10.0.0.1" }, { "HostPort": "81" }], "90/tcp": null },
        }}));
        let host = request.host_config;
        assert_eq!((host.shm_size, host.log_config.config["max-size"].as_str()), (5, "2m"));
        let addresses: Vec<&str> = host.port_bindings["80/tcp"].iter().flatten().map(|binding| &*binding.ip).collect();
        assert_eq!(addresses, ["10.0.0.1", "127.0.0.1"]);
    }

    #[test]
    fn what_a_request_leaves_open_is_the_engines() {
        let host = merged(json!({})).host_config;
        assert_eq!((host.shm_size, host.log_config.r#type.as_str()), (1 << 20, "json-file"));
        assert_eq!(host.log_config.config["max-size"], "1m");
        let other = merged(json!({ "HostConfig": { "LogConfig": { "Type": "none" } } })).host_config;
        assert!(other.log_config.config.is_empty(), "options are their driver's");
    }

    #[test]
    fn bad_log_options_are_known_before_a_container_is_made() {
        assert!(check(&settings()).is_ok());
        let mut bad = settings();
        bad.logging.options.insert("max-sise".into(), "1m".into());
        assert!(check(&bad).unwrap_err().message.contains("unknown log opt 'max-sise'"));
    }
}
