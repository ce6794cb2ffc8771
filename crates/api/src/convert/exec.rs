//! Execs: Docker's request → the engine's spec, and its inspect.

use dozen_engine::{ExecSnapshot, ExecSpec, WindowSize};
use serde_json::{Value, json};

use super::create::environment;
use super::request::Exec;
use crate::error::ApiError;
use crate::stream::detach::DetachKeys;

pub(crate) fn spec(request: Exec) -> Result<ExecSpec, ApiError> {
    let arguments = request.cmd.unwrap_or_default();
    if arguments.is_empty() {
        return Err(ApiError::invalid("No exec command specified"));
    }
    if arguments.iter().chain(&request.env).any(|text| text.contains('\0')) {
        return Err(ApiError::invalid("the command or an environment variable contains a null byte"));
    }
    if !request.working_dir.is_empty() && !request.working_dir.starts_with('/') {
        return Err(ApiError::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            request.working_dir
        )));
    }
    if !request.detach_keys.is_empty() {
        request.detach_keys.parse::<DetachKeys>()?;
    }
    Ok(ExecSpec {
        arguments,
        environment: environment(&[], &request.env)?,
        working_directory: (!request.working_dir.is_empty()).then_some(request.working_dir),
        user: request.user.parse()?,
        terminal: request.tty,
        terminal_size: size(request.console_size),
        detach_keys: request.detach_keys,
        privileged: request.privileged,
        stdin: request.attach_stdin,
        stdout: request.attach_stdout,
        stderr: request.attach_stderr,
    })
}

/// The first size of its terminal; `[0, 0]` is what clients send that do not know.
pub(crate) fn size(size: Option<[u16; 2]>) -> Option<WindowSize> {
    match size {
        Some([rows, columns]) if rows > 0 && columns > 0 => Some(WindowSize { rows, columns }),
        _ => None,
    }
}

/// `GET /exec/{id}/json`.
pub(crate) fn inspect(exec: &ExecSnapshot) -> Value {
    let spec = &exec.spec;
    let mut shown = json!({
        "ID": exec.id.as_str(),
        "ContainerID": exec.container.as_str(),
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "Pid": exec.pid.unwrap_or(0),
        "OpenStdin": spec.stdin,
        "OpenStdout": spec.stdout,
        "OpenStderr": spec.stderr,
        "CanRemove": false,
        "DetachKeys": spec.detach_keys,
        "ProcessConfig": {
            "entrypoint": spec.arguments.first(),
            "arguments": spec.arguments.get(1..).unwrap_or(&[]),
            "tty": spec.terminal,
            "privileged": spec.privileged,
        },
    });
    let user = spec.user.to_string();
    if !user.is_empty() {
        shown["ProcessConfig"]["user"] = json!(user);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::request::ExecStart;
    use crate::convert::{fields, request};

    fn read(body: Value) -> Result<ExecSpec, ApiError> {
        spec(request::read(body, fields::EXEC)?)
    }

    #[test]
    fn execs_parse_or_are_refused() {
        let spec = read(json!({"Cmd": "ls", "Env": ["A=1", "A=2"], "User": "1:2", "Tty": true, "AttachStdout": true}))
            .unwrap();
        assert_eq!((spec.arguments, spec.environment), (vec!["ls".to_owned()], vec!["A=2".to_owned()]));
        assert!(spec.terminal && spec.stdout && !spec.stderr && spec.working_directory.is_none());
        for (body, words) in [
            (json!({}), "No exec command specified"),
            (json!({"Cmd": ["a\0"]}), "null byte"),
            (json!({"Cmd": ["a"], "WorkingDir": "b"}), "absolute path"),
            (json!({"Cmd": ["a"], "DetachKeys": "ctrl-nonsense"}), "ctrl-nonsense"),
        ] {
            let message = read(body).unwrap_err().message;
            assert!(message.contains(words), "{message}");
        }
        let start: ExecStart = request::read(json!({"ConsoleSize": [24, 80]}), fields::EXEC_START).unwrap();
        assert_eq!(size(start.console_size), Some(WindowSize { rows: 24, columns: 80 }));
        let start: ExecStart = request::read(json!({"ConsoleSize": null, "Detach": true}), fields::EXEC_START).unwrap();
        assert_eq!(size(start.console_size), None);
    }
}
