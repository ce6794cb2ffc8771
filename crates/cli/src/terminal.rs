//! The terminal of whoever called us: its size, and raw mode that always ends.

use std::io::IsTerminal;
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::failure::Failure;

/// How the terminal was before [`RawMode::enter`]; global, so that a panic can restore it too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The size of the terminal that stdout is; `None` if it is none.
pub fn size() -> Option<Size> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size { rows: size.ws_row, columns: size.ws_col })
}

/// `-t` with `-i` wants a terminal to read from. The words are Docker's.
pub fn check_input(is_stdin_attached: bool, is_tty: bool) -> Result<(), Failure> {
    if is_stdin_attached && is_tty && !std::io::stdin().is_terminal() {
        return Err(
            Failure::new("the input device is not a TTY").with_hint("leave out -t, or run this command in a terminal")
        );
    }
    Ok(())
}

/// Raw mode of the terminal on stdin: every key goes to the container. Ends when dropped.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Enters raw mode; `None` if stdin is no terminal.
    pub fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        restore_on_panic();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(()))
    }
}

/// A line that is typed behind these words and not shown. `None`: ^C or ^D, or stdin is no terminal.
pub fn read_hidden_line(prompt: &str) -> std::io::Result<Option<String>> {
    use std::io::{Read, Write};
    let Some(_raw) = RawMode::enter() else { return Ok(None) };
    // Whoever sees them may type.
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(prompt.as_bytes()).and_then(|()| stderr.flush());
    let mut line = Vec::new();
    let mut byte = [0];
    let mut stdin = std::io::stdin().lock();
    loop {
        if stdin.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte[0] {
            b'\r' | b'\n' => return Ok(String::from_utf8(line).ok()),
            0x03 | 0x04 => return Ok(None),
            // Backspace takes a whole character.
            0x7f | 0x08 => while line.pop().is_some_and(|last| last & 0xc0 == 0x80) {},
            letter => line.push(letter),
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// A release build aborts on a panic and runs no destructors, but it does run the hook.
fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            next(info);
        }));
    });
}
