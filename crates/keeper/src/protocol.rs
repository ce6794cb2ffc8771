//! What engine and keeper say on `<run_root>/keeper.sock` (SOCK_STREAM): a connection per request, one line of JSON
//! each way; descriptors ride on the first byte of a line.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::names::NameFailure;
use crate::snapshot::PortFailure;

/// The longest line: a failure of each of 65535 ports on a few addresses would be longer, and is no use to anyone.
const LONGEST_LINE_BYTES: usize = 4 * 1024 * 1024;

/// A request and who asks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// [`crate::VERSION`] of the engine.
    pub version: u32,
    /// What it asks.
    pub request: Request,
}

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// A copy of the socket that listens at a path; made the first time.
    Listener {
        /// Where: absolute.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Group that owns the file.
        group: Option<u32>,
    },
    /// The descriptor sent along listens at this path: hold it (the engine outlived a keeper).
    Adopt {
        /// Where.
        path: PathBuf,
    },
    /// keeper.json is new.
    Reload,
    /// names.json is new. A keeper that knows of no names does not answer.
    Names,
    /// Become the program whose descriptor was sent along, with all that is held. Every version answers it.
    Upgrade,
    /// Close everything and end.
    Shutdown,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done; for [`Request::Listener`] the descriptor comes along.
    Done,
    /// The snapshot is in force, but for these ports.
    Applied(Vec<PortFailure>),
    /// The names are in force, but these containers cannot ask.
    Named(Vec<NameFailure>),
    /// It failed, and nothing changed.
    Failed {
        /// What failed and why.
        message: String,
        /// errno(3), 0 if there is none.
        errno: i32,
    },
}

/// Sends one line, and a descriptor with it.
pub fn send(stream: &UnixStream, message: &impl Serialize, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut rest = line.as_slice();
    let descriptors = descriptor.as_slice();
    let mut first = true;
    while !rest.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if first && !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        match rustix::net::sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
            Ok(count) => rest = &rest[count..],
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        first = false;
    }
    Ok(())
}

/// Receives one line, and the descriptor that came with it.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let (mut line, mut descriptor) = (Vec::new(), None);
    let mut part = [0_u8; 4096];
    while line.last() != Some(&b'\n') {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(&mut part)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let count = match received {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptors.last().or(descriptor);
            }
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&part[..count]);
        if line.len() > LONGEST_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
    }
    Ok((serde_json::from_slice(&line)?, descriptor))
}
