//! What an engine's run root has for others to find.

/// The API's unix socket. Whoever holds the published ports keeps it open, so that it may take connections while there
/// is no engine to answer them.
pub const SOCKET_NAME: &str = "dozen.sock";

/// Locked (flock(2), exclusively) for as long as an engine uses this run root, however it ends: the data root has a file
/// of the same name for the same. A shared lock that is had for a moment tells whether there is an engine, and disturbs
/// neither an engine that begins, which tries again, nor another who asks.
pub const LOCK_NAME: &str = "engine.lock";

/// Below the data root: what the engines say that a client has started.
pub const LOG_NAME: &str = "engine.log";

/// There, while the engine that uses this run root was started by a client that needed one: nobody else will start the
/// next.
pub const UNSUPERVISED_NAME: &str = "engine.unsupervised";

/// In the environment of an engine that a client starts, which makes that file.
pub const UNSUPERVISED_VARIABLE: &str = "DOZEN_UNSUPERVISED";
