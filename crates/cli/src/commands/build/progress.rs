//! How a build is shown while it goes on: on stderr, since stdout is for data.

mod journal;
mod live;
mod plain;
mod raw_json;
mod visible;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use self::journal::Journal;
use self::live::Live;
use self::plain::Plain;
use self::raw_json::RawJson;
use super::events::{Event, Failed};
use crate::arguments::flags::invalid;
use crate::failure::Failure;
use crate::output::{self, size};
use crate::terminal;

/// What sending the context is called; its number is 0, before all steps.
const CONTEXT: &str = "[internal] load build context";

/// What `--progress` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Live,
    RawJson,
    Quiet,
}

impl Mode {
    /// Nothing but what it says itself is for people.
    pub(super) fn is_quiet(self) -> bool {
        matches!(self, Self::RawJson | Self::Quiet)
    }

    /// `variable` is BUILDKIT_PROGRESS, which counts where the flag says nothing.
    pub(super) fn read(flag: Option<&str>, variable: Option<&str>, is_quiet: bool) -> Result<Self, Failure> {
        let given = flag.unwrap_or("auto");
        let chosen = if given == "auto" { variable.filter(|it| !it.is_empty()).unwrap_or("auto") } else { given };
        match (given, is_quiet) {
            ("auto" | "quiet", true) => return Ok(Self::Quiet),
            (_, true) => {
                return Err(Failure::new(format!("ERROR: progress={given} and quiet cannot be used together")));
            }
            _ => {}
        }
        match chosen {
            "auto" if std::io::stderr().is_terminal() => Ok(Self::Live),
            "auto" | "plain" => Ok(Self::Plain),
            "tty" if std::io::stderr().is_terminal() => Ok(Self::Live),
            "tty" => Err(Failure::new("ERROR: failed to get console: stderr is no terminal")
                .with_hint("--progress plain shows the same, a line at a time")),
            "rawjson" => Ok(Self::RawJson),
            "quiet" | "none" => Ok(Self::Quiet),
            _ => Err(invalid(chosen, "progress", "want \"auto\", \"plain\", \"tty\", \"quiet\" or \"rawjson\"")),
        }
    }
}

/// What is shown, and what is remembered for the case that the build fails.
pub(super) struct Progress {
    began: Instant,
    journal: Journal,
    screen: Screen,
}

enum Screen {
    Plain(Plain),
    Live(Live),
    RawJson(RawJson),
    Quiet,
}

impl Progress {
    pub(super) fn new(mode: Mode) -> Self {
        let screen = match mode {
            Mode::Plain => Screen::Plain(Plain::default()),
            Mode::Live => Screen::Live(Live::default()),
            Mode::RawJson => Screen::RawJson(RawJson::default()),
            Mode::Quiet => Screen::Quiet,
        };
        let mut progress = Self { began: Instant::now(), journal: Journal::default(), screen };
        progress.journal.begin(0, CONTEXT.to_owned(), Duration::ZERO);
        progress.show(0, &[], Duration::ZERO);
        progress
    }

    /// The context is on its way: so many bytes so far.
    pub(super) fn sending(&mut self, bytes: u64) {
        self.journal.note(0, sent(bytes));
        self.tick();
    }

    /// All of it has gone.
    pub(super) fn sent(&mut self, bytes: u64) {
        let now = self.began.elapsed();
        let lines = [(now, format!("{} done", sent(bytes)))];
        self.journal.note(0, String::new());
        self.show(0, &lines, now);
        self.journal.end(0, false, now);
        self.show(0, &[], now);
    }

    pub(super) fn tell(&mut self, event: &Event) {
        let now = self.began.elapsed();
        match event {
            Event::Step(step) => {
                self.journal.total = step.total;
                self.journal.begin(step.id, step.title(), now);
                self.show(step.id, &[], now);
            }
            Event::Cached(step) | Event::Done(step) => {
                let lines = self.journal.rest(*step, now);
                if !lines.is_empty() {
                    self.show(*step, &lines, now);
                }
                if self.journal.end(*step, matches!(event, Event::Cached(_)), now) {
                    self.show(*step, &[], now);
                }
            }
            Event::Running(_) | Event::Shell(_) | Event::Statement(_) => {}
            Event::Output(it) => {
                if let Screen::RawJson(raw) = &mut self.screen {
                    output::say(&raw.output(it, &self.journal));
                }
                let lines = self.journal.take(it.step, &it.text, now);
                if !lines.is_empty() {
                    self.show(it.step, &lines, now);
                }
            }
            Event::Warning(text) => self.warn(text),
            Event::WantsLayer(_) | Event::CacheReady(_) | Event::Exporting(_) | Event::Built(_) | Event::Failed(_) => {}
        }
    }

    /// Somebody else has the terminal for a while; nothing that stands there is to be drawn over.
    pub(super) fn make_way(&mut self) {
        if let Screen::Live(live) = &mut self.screen {
            live.make_way();
        }
    }

    /// What a step is called.
    pub(super) fn title(&self, step: usize) -> &str {
        self.journal.steps.get(&step).map_or("", |record| &record.title)
    }

    /// Something that the caller should know.
    pub(super) fn warn(&mut self, text: &str) {
        let now = self.began.elapsed();
        match &mut self.screen {
            Screen::Plain(plain) => output::say(&plain.warning(text)),
            Screen::Live(live) => live.print(vec![format!("WARNING: {text}")], &self.journal, now),
            Screen::RawJson(raw) => output::say(&raw.warning(text)),
            Screen::Quiet => {}
        }
    }

    /// Something of this side's own begins, after all steps; its number.
    pub(super) fn begin(&mut self, title: &str) -> usize {
        let now = self.began.elapsed();
        let step = self.journal.steps.keys().next_back().map_or(1, |last| last + 1);
        self.journal.total += 1;
        self.journal.begin(step, title.to_owned(), now);
        self.show(step, &[], now);
        step
    }

    /// It says something.
    pub(super) fn say(&mut self, step: usize, line: &str) {
        let now = self.began.elapsed();
        let lines = self.journal.take(step, &format!("{line}\n"), now);
        self.show(step, &lines, now);
    }

    /// It is done.
    pub(super) fn end(&mut self, step: usize) {
        let now = self.began.elapsed();
        self.journal.end(step, false, now);
        self.show(step, &[], now);
    }

    /// Time goes by.
    pub(super) fn tick(&mut self) {
        if let Screen::Live(live) = &mut self.screen {
            live.draw(&self.journal, self.began.elapsed(), terminal::size());
        }
    }

    /// The image is there, with these names.
    pub(super) fn built(&mut self, image: &str, names: &[String]) {
        let now = self.began.elapsed();
        let named = names.iter().map(|name| format!("naming to {name} done"));
        let lines: Vec<String> = std::iter::once(format!("writing image {image} done")).chain(named).collect();
        match &mut self.screen {
            Screen::Plain(plain) => output::say(&plain.exported(&lines, &self.journal)),
            Screen::Live(live) => live.finish(&lines, &self.journal, now),
            Screen::RawJson(_) | Screen::Quiet => {}
        }
    }

    /// It has failed: which step, what that said last, and where in the file it stands. What is left to say is given back.
    pub(super) fn failed(&mut self, failed: Failed) -> Failure {
        let now = self.began.elapsed();
        let culprit = self.journal.culprit(failed.step);
        match &mut self.screen {
            Screen::Plain(plain) => {
                if let Some((step, _)) = culprit {
                    output::say(&plain.error(step, &failed.message, &self.journal));
                }
            }
            Screen::Live(live) => live.fail(culprit.map(|(step, _)| step), &self.journal, now),
            Screen::RawJson(raw) => {
                if let Some((step, _)) = culprit {
                    output::say(&raw.error(step, &failed.message, &self.journal));
                }
            }
            Screen::Quiet => {}
        }
        let mut text = culprit.map(|(_, record)| record.last_words()).unwrap_or_default();
        text.push_str(failed.excerpt.as_deref().unwrap_or_default());
        if !text.is_empty() {
            output::say(text.trim_end_matches('\n'));
        }
        Failure { hint: failed.hint, ..Failure::new(format!("ERROR: {}", failed.message)) }
    }

    fn show(&mut self, step: usize, lines: &[(Duration, String)], now: Duration) {
        let Some(record) = self.journal.steps.get(&step) else { return };
        let text = match &mut self.screen {
            Screen::Plain(plain) => plain.show(step, record, lines),
            Screen::RawJson(raw) if lines.is_empty() => raw.vertex(step, record),
            Screen::Live(live) => {
                live.show(record, lines.is_empty(), &self.journal, now);
                return;
            }
            Screen::RawJson(_) | Screen::Quiet => return,
        };
        if !text.is_empty() {
            output::say(&text);
        }
    }
}

fn sent(bytes: u64) -> String {
    format!("transferring context: {}", size::human(i64::try_from(bytes).unwrap_or(i64::MAX)))
}

/// `0.3s`.
fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

#[cfg(test)]
mod tests;
