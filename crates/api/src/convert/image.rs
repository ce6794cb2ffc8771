//! An image's configuration as inspect shows it.

use serde_json::{Value, json};

/// The image's own `config`, with Docker's empty values for what it leaves out: clients' templates ask for all of
/// these, and OCI's tools write none that is empty.
pub(crate) fn config(raw: &Value) -> Value {
    let mut config = match raw.get("config") {
        Some(config @ Value::Object(_)) => config.clone(),
        _ => json!({}),
    };
    for (name, empty) in [
        ("User", json!("")),
        ("Env", Value::Null),
        ("Cmd", Value::Null),
        ("Entrypoint", Value::Null),
        ("Volumes", Value::Null),
        ("WorkingDir", json!("")),
        ("Labels", Value::Null),
        ("OnBuild", Value::Null),
    ] {
        if config.get(name).is_none_or(Value::is_null) {
            config[name] = empty;
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_leaves_out_is_there_and_empty() {
        let empty = json!({
            "User": "", "Env": null, "Cmd": null, "Entrypoint": null, "Volumes": null, "WorkingDir": "",
            "Labels": null, "OnBuild": null,
        });
        assert_eq!(config(&json!({})), empty);
        assert_eq!(config(&json!({"config": null})), empty);
        assert_eq!(config(&json!({"config": {"User": null}})), empty);
        let full = config(&json!({"config": {"User": "app", "Cmd": ["c"], "Healthcheck": {"Test": ["NONE"]}}}));
        assert_eq!((&full["User"], &full["Cmd"], &full["Entrypoint"]), (&json!("app"), &json!(["c"]), &Value::Null));
        assert_eq!(full["Healthcheck"], json!({"Test": ["NONE"]}));
    }
}
