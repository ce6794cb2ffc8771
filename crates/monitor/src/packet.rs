//! Messages of any size over a SOCK_SEQPACKET pair.
//!
//! One packet cannot be longer than the socket's buffer, which an administrator limits (socket(7), wmem_max), so a
//! message is a packet with its length, 4 bytes little-endian, with which a descriptor may come, then packets of at
//! most [`PART_BYTES`].

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const PART_BYTES: usize = 32 * 1024;
/// Above any start request: environment and seccomp profile are far smaller.
const LONGEST_BYTES: usize = 16 * 1024 * 1024;

/// Sends a message as JSON, and a descriptor with it.
pub fn send(pair: BorrowedFd<'_>, message: &impl Serialize, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length as usize <= LONGEST_BYTES);
    let length = length.ok_or_else(|| io::Error::from(Errno::MSGSIZE))?;
    send_packet(pair, &length.to_le_bytes(), descriptor)?;
    bytes.chunks(PART_BYTES).try_for_each(|part| send_packet(pair, part, None))
}

/// Receives a message, and the descriptor that came with it. The end of the pair is `UnexpectedEof`.
pub fn receive<T: DeserializeOwned>(pair: BorrowedFd<'_>) -> io::Result<(T, Option<OwnedFd>)> {
    let mut length = [0_u8; 4];
    let (count, descriptor) = receive_packet(pair, &mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if count != 4 || length > LONGEST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        filled += receive_packet(pair, &mut bytes[filled..])?.0;
    }
    Ok((serde_json::from_slice(&bytes)?, descriptor))
}

fn send_packet(pair: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let descriptors = descriptor.as_slice();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        match rustix::net::sendmsg(pair, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn receive_packet(pair: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(bytes)];
        let received = match rustix::net::recvmsg(pair, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => message.bytes,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut descriptor = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptors.last();
            }
        }
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        return Ok((received, descriptor));
    }
}

/// A fresh pair.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn long_messages_and_descriptors_arrive() {
        let (ours, theirs) = pair().unwrap();
        let long = "x€".repeat(600_000);
        let sent = long.clone();
        let sender = std::thread::spawn(move || {
            send(ours.as_fd(), &sent, Some(ours.as_fd())).unwrap();
            send(ours.as_fd(), &"second", None).unwrap();
        });
        let (got, descriptor) = receive::<String>(theirs.as_fd()).unwrap();
        assert!(got == long && descriptor.is_some());
        let (got, none) = receive::<String>(theirs.as_fd()).unwrap();
        assert!(got == "second" && none.is_none());
        sender.join().unwrap();
        drop(descriptor);
        assert_eq!(receive::<String>(theirs.as_fd()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
