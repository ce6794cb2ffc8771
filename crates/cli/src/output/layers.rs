//! The lines of an operation on layers, as Docker's clients show them: on a terminal a line for each layer, which moves;
//! elsewhere each step once, and no bars.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::{Stream, printable};

/// Lines on their way.
pub struct Layers {
    stream: Stream,
    /// `None`: it is no terminal.
    lines: Option<Vec<String>>,
}

impl Layers {
    /// On one of our streams.
    pub fn new(stream: Stream) -> Self {
        let is_terminal = match stream {
            Stream::Stdout => io::stdout().is_terminal(),
            Stream::Stderr => io::stderr().is_terminal(),
        };
        Self { stream, lines: is_terminal.then(Vec::new) }
    }

    /// Shows a message of Docker's API.
    pub fn show(&mut self, message: &Value) -> io::Result<()> {
        let text = self.text(message);
        match self.stream {
            Stream::Stdout => write(&mut io::stdout().lock(), &text),
            Stream::Stderr => write(&mut io::stderr().lock(), &text),
        }
    }

    fn text(&mut self, message: &Value) -> String {
        let member = |name: &str| printable(message[name].as_str().unwrap_or_default());
        let (id, status, progress) = (member("id"), member("status"), member("progress"));
        let line = match (id.as_ref(), progress.as_ref()) {
            ("", _) => status.into_owned(),
            (id, "") => format!("{id}: {status}"),
            (id, progress) => format!("{id}: {status} {progress}"),
        };
        let is_of_layer = message.get("progressDetail").is_some() && !id.is_empty();
        match &mut self.lines {
            None if progress.is_empty() => format!("{line}\n"),
            None => String::new(),
            Some(lines) if is_of_layer => match lines.iter().position(|known| *known == id) {
                None => {
                    lines.push(id.into_owned());
                    format!("{line}\n")
                }
                // Up to its line, over what is there, and down again (ECMA-48: CUU, EL, CUD).
                Some(at) => {
                    let up = lines.len() - at;
                    format!("\x1b[{up}A\r\x1b[2K{line}\r\x1b[{up}B")
                }
            },
            Some(lines) => {
                // Those above stay as they are.
                lines.clear();
                format!("{line}\n")
            }
        }
    }
}

fn write(stream: &mut impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(is_terminal: bool, messages: &[Value]) -> String {
        let mut layers = Layers { stream: Stream::Stdout, lines: is_terminal.then(Vec::new) };
        messages.iter().map(|message| layers.text(message)).collect()
    }

    fn messages() -> Vec<Value> {
        vec![
            json!({ "id": "1", "status": "Pulling from a/b" }),
            json!({ "id": "aa", "status": "Pulling fs layer", "progressDetail": {} }),
            json!({ "id": "bb", "status": "Already exists", "progressDetail": {} }),
            json!({ "id": "aa", "status": "Downloading", "progressDetail": { "current": 1, "total": 2 }, "progress": "[=> ]" }),
            json!({ "id": "aa", "status": "Pull complete", "progressDetail": {} }),
            json!({ "status": "Status: \u{1b}[2J" }),
        ]
    }

    #[test]
    fn a_file_gets_each_step_once() {
        let want =
            "1: Pulling from a/b\naa: Pulling fs layer\nbb: Already exists\naa: Pull complete\nStatus: \\x1b[2J\n";
        assert_eq!(shown(false, &messages()), want);
    }

    #[test]
    fn on_a_terminal_a_layer_has_its_line() {
        let want = "1: Pulling from a/b\naa: Pulling fs layer\nbb: Already exists\n\
            \x1b[2A\r\x1b[2Kaa: Downloading [=> ]\r\x1b[2B\x1b[2A\r\x1b[2Kaa: Pull complete\r\x1b[2BStatus: \\x1b[2J\n";
        assert_eq!(shown(true, &messages()), want);
    }
}
