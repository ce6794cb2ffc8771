//! The engine's log: lines on stderr, of a level that a reload changes.

use dozen_settings::LogLevel;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

/// Where the level is set.
#[derive(Clone)]
pub(crate) struct Log(Handle<LevelFilter, Registry>);

impl Log {
    /// Begins to log. Once per process.
    pub(crate) fn start() -> Self {
        let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
        tracing_subscriber::registry().with(filter).with(lines).init();
        Self(handle)
    }

    /// From now on nothing below this level is said.
    pub(crate) fn set(&self, level: LogLevel) {
        let filter = match level {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Error | LogLevel::Fatal => LevelFilter::ERROR,
        };
        // It fails only once the subscriber is gone, which lives as long as the process.
        let _ = self.0.reload(filter);
    }
}
