//! Moves network devices into a container's network, with their addresses (rtnetlink(7)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Context, RuntimeError};
use crate::plan::NetDevice;
use crate::sys;

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_CACHEINFO: u16 = 6;
const IFA_F_PERMANENT: u8 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;

/// Moves and renames each, sets its lasting addresses again, and switches it on.
pub(crate) fn move_to(devices: &[NetDevice], network: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let here = socket().context(|| "open a netlink socket".to_owned())?;
    let there = socket_in(network)?;
    devices.iter().try_for_each(|device| {
        move_one(device, network, &here, &there)
            .context(|| format!("move network device {} to the container", device.name))
    })
}

fn move_one(device: &NetDevice, network: BorrowedFd<'_>, here: &OwnedFd, there: &OwnedFd) -> Result<(), Errno> {
    let index = index_of(&device.name, here)?;
    let addresses = addresses_of(index, here)?;
    let moved = Request::link(RTM_NEWLINK, index, 0)
        .attribute(IFLA_NET_NS_FD, &(network.as_raw_fd() as u32).to_ne_bytes())
        .attribute(IFLA_IFNAME, &with_null(&device.new_name));
    moved.ask(here)?;
    let index = index_of(&device.new_name, there)?;
    for address in addresses {
        new_address(&address, index).ask(there)?;
    }
    Request::link(RTM_NEWLINK, index, IFF_UP).ask(there).map(drop)
}

fn index_of(name: &str, socket: &OwnedFd) -> Result<u32, Errno> {
    let answers = Request::link(RTM_GETLINK, 0, 0).attribute(IFLA_IFNAME, &with_null(name)).ask(socket)?;
    // struct ifinfomsg: family, type, index.
    answers.first().and_then(|link| number(link, 4)).ok_or(Errno::NODEV)
}

/// Those that an administrator gave it, as `struct ifaddrmsg` and attributes. Others come by themselves.
fn addresses_of(index: u32, socket: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut dump = Request::new(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP);
    dump.0.extend([0; 8]);
    let lasts = |address: &Vec<u8>| {
        address.len() >= 8
            && number(address, 4) == Some(index)
            && address[2] & IFA_F_PERMANENT != 0
            && address[3] == RT_SCOPE_UNIVERSE
    };
    Ok(dump.ask(socket)?.into_iter().filter(lasts).collect())
}

/// The same address for another device, without what is left of its time.
fn new_address(address: &[u8], index: u32) -> Request {
    let mut request = Request::new(RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
    request.0.extend([&address[..4], &index.to_ne_bytes()].concat());
    let mut rest = &address[8..];
    while let (Some(length), Some(kind)) = (short(rest, 0), short(rest, 2)) {
        let Some(value) = rest.get(4..usize::from(length)) else { break };
        if kind != IFA_CACHEINFO {
            request = request.attribute(kind, value);
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    request
}

/// A message: `struct nlmsghdr`, what the kind has of its own, attributes.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        let [kind, flags] = [kind.to_ne_bytes(), flags.to_ne_bytes()];
        Self([&[0; 4], &kind[..], &flags, &[0; 8]].concat())
    }

    /// With `struct ifinfomsg`; `flags` are those to switch on.
    fn link(kind: u16, index: u32, flags: u32) -> Self {
        let mut request = Self::new(kind, NLM_F_REQUEST | NLM_F_ACK);
        let [index, flags] = [index.to_ne_bytes(), flags.to_ne_bytes()];
        request.0.extend([&[0; 4], &index[..], &flags, &flags].concat());
        request
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Sends it, and gathers what is answered until the end or an error.
    fn ask(mut self, socket: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        rustix::net::send(socket, &self.0, SendFlags::empty())?;
        let (mut answers, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..length];
            while let (Some(length), Some(kind)) = (number(rest, 0), short(rest, 4)) {
                let payload = rest.get(16..length as usize).ok_or(Errno::BADMSG)?;
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        return match number(payload, 0).ok_or(Errno::BADMSG)? as i32 {
                            0 => Ok(answers),
                            error => Err(Errno::from_raw_os_error(-error)),
                        };
                    }
                    _ => answers.push(payload.to_vec()),
                }
                rest = rest.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn with_null(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
}

/// A socket stays in the network in which it was made: a thread goes there for it.
fn socket_in(network: BorrowedFd<'_>) -> Result<OwnedFd, RuntimeError> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            sys::setns(network.as_fd(), libc::CLONE_NEWNET)
                .and_then(|()| socket())
                .context(|| "open a netlink socket in the container's network".to_owned())
        });
        worker.join().unwrap_or_else(|_| Err(RuntimeError::Invalid("the thread that opens a socket died".to_owned())))
    })
}
