//! A netlink socket, which stays in the network namespace that it was opened in, whichever thread uses it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Batch, Received, attribute, received, text};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `SIOCGSKNS`, include/uapi/linux/sockios.h.
const SIOCGSKNS: libc::Ioctl = 0x894C;
const BUFFER_LENGTH: usize = 64 * 1024;
/// Above this the send buffer must grow first: the kernel takes a batch only whole (default 208 KiB).
const LARGE_BATCH: usize = 96 * 1024;

/// What the kernel refused, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}{}", .detail.as_ref().map(|detail| format!(" (the kernel says: {detail})")).unwrap_or_default())]
pub struct Refusal {
    /// What the request would have done, on what.
    pub what: String,
    /// The kernel's extended acknowledgement, where it gives one.
    pub detail: Option<String>,
    /// The error number.
    #[source]
    pub source: io::Error,
}

impl Refusal {
    pub(crate) fn is(&self, code: i32) -> bool {
        self.source.raw_os_error() == Some(code)
    }

    fn new(what: &str, source: impl Into<io::Error>) -> Self {
        Self { what: what.to_owned(), detail: None, source: source.into() }
    }
}

/// A netlink socket with its receive buffer.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket for links, addresses and routes (NETLINK_ROUTE is protocol 0).
    pub(crate) fn route() -> Result<Self, Refusal> {
        Self::open(None, 0)
    }

    /// A socket for nftables and connection tracking.
    pub(crate) fn netfilter() -> Result<Self, Refusal> {
        Self::open(Some(netlink::NETFILTER), 0)
    }

    /// A socket that hears of the events of these rtnetlink groups (a bit mask of `RTMGRP_*`).
    pub(crate) fn route_events(groups: u32) -> Result<Self, Refusal> {
        Self::open(None, groups)
    }

    /// A socket that hears of the events of these nfnetlink groups (bit `group - 1` of each).
    pub(crate) fn netfilter_events(groups: u32) -> Result<Self, Refusal> {
        Self::open(Some(netlink::NETFILTER), groups)
    }

    fn open(protocol: Option<rustix::net::Protocol>, groups: u32) -> Result<Self, Refusal> {
        let open = || -> rustix::io::Result<OwnedFd> {
            let descriptor =
                rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
            rustix::net::bind(&descriptor, &SocketAddrNetlink::new(0, groups))?;
            Ok(descriptor)
        };
        let descriptor = open().map_err(|error| Refusal::new("open a netlink socket", error))?;
        // Both only make errors better to read, so a kernel without them is fine (netlink(7)).
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let _ = set_option(&descriptor, libc::SOL_NETLINK, option, 1);
        }
        Ok(Self { descriptor, buffer: vec![0; BUFFER_LENGTH] })
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// A descriptor of the network namespace that the socket is in.
    pub(crate) fn namespace(&self) -> io::Result<OwnedFd> {
        // SAFETY: SIOCGSKNS takes no argument and returns a new descriptor, closed on exec (fs/nsfs.c), or an error.
        let descriptor = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), SIOCGSKNS, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// Sends the batch and waits for its outcome; the first refusal is the error.
    ///
    /// rtnetlink carries out every message on its own, also after a refused one; nftables all of them or none.
    /// Both do so before `send` returns, so the answers are waiting by then and an empty queue means no more of them.
    pub(crate) fn run(&mut self, batch: &mut Batch) -> Result<(), Refusal> {
        batch.acknowledge_newest();
        self.run_acknowledged(batch, u32::try_from(batch.len() - 1).expect("a batch is small"))
    }

    /// As [`run`](Self::run), when the message that is to be acknowledged is marked already.
    pub(crate) fn run_acknowledged(&mut self, batch: &Batch, acknowledged: u32) -> Result<(), Refusal> {
        self.send(batch)?;
        let mut refusal = None;
        loop {
            let wait = if refusal.is_some() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            let length = match self.receive(wait) {
                Ok(length) => length,
                Err(error) if refusal.is_some() && error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Refusal::new(batch.label(acknowledged), error)),
            };
            let mut done = false;
            for message in received(&self.buffer[..length]).filter(|message| message.kind == NLMSG_ERROR) {
                match error_of(&message) {
                    None => done |= message.sequence == acknowledged,
                    Some((error, detail)) => {
                        let what = batch.label(message.sequence).to_owned();
                        refusal.get_or_insert(Refusal { what, detail, source: error });
                    }
                }
            }
            if done && refusal.is_none() {
                return Ok(());
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Sends the one request in `batch` and hands each answer (its type and what follows the header) to `take`,
    /// until the kernel says that it is done. Starts over when the kernel's lists changed in between.
    pub(crate) fn dump<T>(
        &mut self,
        batch: &Batch,
        mut take: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        const TRIES: usize = 5;
        for last_try in (0..TRIES).rev() {
            self.send(batch)?;
            let mut found = Vec::new();
            let mut interrupted = false;
            'answer: loop {
                let length = self.receive(RecvFlags::empty()).map_err(|error| Refusal::new(batch.label(0), error))?;
                for message in received(&self.buffer[..length]) {
                    interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                    match message.kind {
                        NLMSG_DONE => break 'answer,
                        NLMSG_ERROR => match error_of(&message) {
                            None => break 'answer,
                            Some((source, detail)) => {
                                return Err(Refusal { what: batch.label(0).to_owned(), detail, source });
                            }
                        },
                        kind => found.extend(take(kind, message.payload)),
                    }
                }
            }
            if !interrupted || last_try == 0 {
                return Ok(found);
            }
        }
        unreachable!("the last try returns")
    }

    fn send(&mut self, batch: &Batch) -> Result<(), Refusal> {
        let bytes = batch.bytes();
        if bytes.len() > LARGE_BATCH {
            let room = i32::try_from(bytes.len()).expect("a batch is far smaller than 2 GiB");
            let _ = set_option(&self.descriptor, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, room);
        }
        rustix::io::retry_on_intr(|| rustix::net::send(&self.descriptor, bytes, SendFlags::empty()))
            .map_err(|error| Refusal::new(batch.label(0), error))?;
        Ok(())
    }

    /// Receives one datagram into the buffer; `WouldBlock` only where the flags ask for it.
    pub(crate) fn receive(&mut self, flags: RecvFlags) -> io::Result<usize> {
        let (length, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.descriptor, self.buffer.as_mut_slice(), flags | RecvFlags::TRUNC)
        })?;
        Ok(length.min(self.buffer.len()))
    }

    /// As [`receive`](Self::receive), the datagram itself.
    pub(crate) fn datagram(&mut self, flags: RecvFlags) -> io::Result<&[u8]> {
        let length = self.receive(flags)?;
        Ok(&self.buffer[..length])
    }
}

/// The error in an `NLMSG_ERROR` message; `None` is an acknowledgement.
fn error_of(message: &Received<'_>) -> Option<(io::Error, Option<String>)> {
    let code = i32::from_ne_bytes(message.payload.get(..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    // After the code stands the header of our own message, then the attributes (NETLINK_CAP_ACK leaves out its body).
    let detail = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| message.payload.get(20..).and_then(|rest| attribute(rest, NLMSGERR_ATTR_MSG)).map(text))
        .flatten();
    Some((io::Error::from_raw_os_error(-code), detail))
}

fn set_option(descriptor: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            descriptor.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
