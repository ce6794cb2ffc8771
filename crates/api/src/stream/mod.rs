//! Connections that stop being HTTP: attach and exec take the client's socket over.

pub(crate) mod detach;
pub(crate) mod hangup;
pub(crate) mod relay;
pub(crate) mod socket;
pub(crate) mod takeover;
mod unread;
pub(crate) mod websocket;
