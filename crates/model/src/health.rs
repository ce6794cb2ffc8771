//! How it is found out whether a container is well, and what follows if it is not.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A health check (docs.docker.com/reference/dockerfile, HEALTHCHECK). What is 0 has Docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is run in the container; 0 means that it is well.
    pub test: HealthTest,
    /// Between the end of a check and the next; also before the first.
    pub interval_ns: u64,
    /// One that takes longer has failed.
    pub timeout_ns: u64,
    /// After a start, failures do not count for so long, until the first success.
    pub start_period_ns: u64,
    /// The interval in that time.
    pub start_interval_ns: u64,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
    /// The shell of [`HealthTest::Shell`]: the image's, if it has one of its own.
    pub shell: Vec<String>,
    /// What follows when it has become unhealthy.
    pub on_unhealthy: OnUnhealthy,
}

/// What a check runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthTest {
    /// Nothing: there is no check, whatever the image says.
    #[default]
    None,
    /// A command line; never empty.
    Exec(Vec<String>),
    /// Words for the shell; never empty.
    Shell(Vec<String>),
}

/// What follows when a container has become unhealthy (podman-run(1), `--health-on-failure`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnhealthy {
    /// It is said.
    #[default]
    None,
    /// It is stopped and started again, with the pauses of a restart policy.
    Restart,
    /// It is stopped, and stays so.
    Stop,
    /// It is killed; then its restart policy decides.
    Kill,
}

impl OnUnhealthy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Restart, Self::Stop, Self::Kill];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Kill => "kill",
        }
    }
}

impl HealthCheck {
    /// The command line; `None` if nothing is checked.
    pub fn command(&self) -> Option<Vec<String>> {
        match &self.test {
            HealthTest::None => None,
            HealthTest::Exec(words) => Some(words.clone()),
            HealthTest::Shell(words) if self.shell.is_empty() => {
                Some(["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(words.iter().cloned()).collect())
            }
            HealthTest::Shell(words) => Some(self.shell.iter().chain(words).cloned().collect()),
        }
    }

    /// [`HealthCheck::interval_ns`], or its default.
    pub fn interval(&self) -> Duration {
        or_default(self.interval_ns, Duration::from_secs(30))
    }

    /// [`HealthCheck::timeout_ns`], or its default.
    pub fn timeout(&self) -> Duration {
        or_default(self.timeout_ns, Duration::from_secs(30))
    }

    /// [`HealthCheck::start_period_ns`].
    pub fn start_period(&self) -> Duration {
        Duration::from_nanos(self.start_period_ns)
    }

    /// [`HealthCheck::start_interval_ns`], or its default.
    pub fn start_interval(&self) -> Duration {
        or_default(self.start_interval_ns, Duration::from_secs(5))
    }

    /// [`HealthCheck::retries`], or its default.
    pub fn retries(&self) -> u32 {
        if self.retries == 0 { 3 } else { self.retries }
    }
}

fn or_default(nanoseconds: u64, default: Duration) -> Duration {
    if nanoseconds == 0 { default } else { Duration::from_nanos(nanoseconds) }
}
