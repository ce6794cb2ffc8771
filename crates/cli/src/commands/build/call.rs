//! `--call`: what is asked about a build in place of building it (docs.docker.com/reference/cli/docker/buildx/build,
//! "--call").

use crate::arguments::flags::invalid;
use crate::failure::Failure;

/// A check, and how its findings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Call {
    pub format: Format,
    /// Findings do not make the exit status.
    pub ignores_status: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

impl Call {
    /// What `--call`, `--check` and `--format` ask for together; `None`: to build.
    pub fn read(call: Option<&str>, is_check: bool, format: Option<&str>) -> Result<Option<Self>, Failure> {
        let text = call.unwrap_or_default();
        let mut options = text.split(',');
        let wants_check = match options.next().unwrap_or_default() {
            "" | "build" => is_check,
            "check" | "lint" => true,
            method @ ("outline" | "targets" | "subrequests.describe") => {
                return Err(Failure::not_built(&format!("--call={method} of 'dozen build'")));
            }
            _ => return Err(invalid(text, "call", "want \"check\"")),
        };
        let mut read = Self::default();
        for option in options {
            match option.split_once('=').unwrap_or((option, "true")) {
                ("format", name) => read.format = Format::read(name, "call", text)?,
                ("ignorestatus", "true" | "1") => read.ignores_status = true,
                ("ignorestatus", "false" | "0") => read.ignores_status = false,
                _ => return Err(invalid(text, "call", format_args!("unknown option \"{option}\""))),
            }
        }
        if let Some(format) = format {
            read.format = Format::read(format, "format", format)?;
        }
        Ok(wants_check.then_some(read))
    }
}

impl Format {
    fn read(name: &str, flag: &str, given: &str) -> Result<Self, Failure> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(invalid(given, flag, "want \"text\" or \"json\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read() {
        let json = Call { format: Format::Json, ignores_status: false };
        for (call, check, format, expected) in [
            (None, false, None, Ok(None)),
            (Some("build"), false, None, Ok(None)),
            (None, true, None, Ok(Some(Call::default()))),
            (Some("check"), false, None, Ok(Some(Call::default()))),
            (Some("lint,format=json"), false, None, Ok(Some(json))),
            (None, true, Some("json"), Ok(Some(json))),
            (Some("check,format=json"), false, Some("text"), Ok(Some(Call::default()))),
            (Some("check,ignorestatus"), false, None, Ok(Some(Call { ignores_status: true, ..Call::default() }))),
            (Some("outline"), false, None, Err("--call=outline of 'dozen build' is not built yet")),
            (Some("chekc"), false, None, Err("invalid argument \"chekc\" for \"--call\" flag: want \"check\"")),
            (
                Some("check,fromat=json"),
                false,
                None,
                Err("invalid argument \"check,fromat=json\" for \"--call\" flag: unknown option \"fromat=json\""),
            ),
            (
                None,
                true,
                Some("yaml"),
                Err("invalid argument \"yaml\" for \"--format\" flag: want \"text\" or \"json\""),
            ),
        ] {
            let read = Call::read(call, check, format).map_err(|failure| failure.message);
            assert_eq!(read, expected.map_err(str::to_owned), "{call:?}");
        }
    }
}
