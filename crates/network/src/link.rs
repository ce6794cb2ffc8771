//! rtnetlink requests: links, addresses, routes. Numbers from include/uapi/linux/{rtnetlink,if_link,if_addr}.h.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{Ipv4Subnet, MacAddress};
use crate::netlink::{
    Attributes, Batch, CREATE, DUMP, EXCLUSIVE, REPLACE, Refusal, Socket, attribute, number, received, text,
};
use crate::parent::ParentMode;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 0x02;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u32 = 255;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// The index of `lo`: always the first interface of a namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;

/// A link, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// The index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
    /// `bridge`, `veth`, …; none for a physical one.
    pub(crate) kind: Option<String>,
    /// The hardware address, where it has six bytes.
    pub(crate) mac: Option<MacAddress>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InterfaceAddress {
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
    pub(crate) prefix_length: u8,
    /// Neither link-local nor host-local.
    pub(crate) global: bool,
}

/// `struct ifinfomsg`.
fn link_header(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let flags = if up { IFF_UP } else { 0 };
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`.
fn address_header(address: IpAddr, prefix_length: u8, index: u32) -> [u8; 8] {
    let (family, flags) = if address.is_ipv4() { (AF_INET, 0) } else { (AF_INET6, IFA_F_NODAD) };
    let mut header = [family, prefix_length, flags, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

fn put_address(attributes: &mut Attributes<'_>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => attributes.bytes(kind, &address.octets()),
        IpAddr::V6(address) => attributes.bytes(kind, &address.octets()),
    }
}

/// Makes a bridge with a fixed hardware address (else it changes with its ports) and brings it up.
pub(crate) fn create_bridge(batch: &mut Batch, name: &str, mac: MacAddress, mtu: Option<u32>) {
    let label = format!("create the bridge {name}");
    batch.message(label, RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, true), |a| {
        a.text(IFLA_IFNAME, name);
        a.bytes(IFLA_ADDRESS, &mac.0);
        mtu.inspect(|mtu| a.u32(IFLA_MTU, *mtu));
        a.nest(IFLA_LINKINFO, |a| a.text(IFLA_INFO_KIND, "bridge"));
    });
}

/// What a veth pair is to be.
pub(crate) struct Veth<'a> {
    /// The host's side.
    pub(crate) name: &'a str,
    /// The container's side.
    pub(crate) inside: &'a str,
    /// The index of the bridge.
    pub(crate) bridge: u32,
    /// The container's.
    pub(crate) mac: MacAddress,
    pub(crate) mtu: Option<u32>,
}

/// Makes a veth pair: the host's side is a port of the bridge and up, the other is in the namespace, and down,
/// because a peer that is made up finds no other end yet and the kernel refuses it (ENOTCONN, drivers/net/veth.c).
///
/// One queue each: a veth transmits without a lock, and every queue costs a directory in sysfs to make and to unmake.
pub(crate) fn create_veth(batch: &mut Batch, veth: &Veth<'_>, namespace: i32) {
    let label = format!("create the link {} of a container", veth.name);
    batch.message(label, RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, true), |a| {
        a.text(IFLA_IFNAME, veth.name);
        a.u32(IFLA_MASTER, veth.bridge);
        veth.mtu.inspect(|mtu| a.u32(IFLA_MTU, *mtu));
        a.u32(IFLA_NUM_TX_QUEUES, 1);
        a.u32(IFLA_NUM_RX_QUEUES, 1);
        a.nest(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_KIND, "veth");
            a.nest(IFLA_INFO_DATA, |a| {
                a.nest_after(VETH_INFO_PEER, &link_header(0, false), |a| {
                    a.text(IFLA_IFNAME, veth.inside);
                    a.bytes(IFLA_ADDRESS, &veth.mac.0);
                    veth.mtu.inspect(|mtu| a.u32(IFLA_MTU, *mtu));
                    a.u32(IFLA_NUM_TX_QUEUES, 1);
                    a.u32(IFLA_NUM_RX_QUEUES, 1);
                    a.bytes(IFLA_NET_NS_FD, &namespace.to_ne_bytes());
                });
            });
        });
    });
}

/// What a container's link on a parent is to be.
pub(crate) struct Child<'a> {
    /// Its name at first. Kernels before Linux 6.15 refuse one that the socket's own namespace has.
    pub(crate) name: &'a str,
    /// The parent's index.
    pub(crate) parent: u32,
    /// `None`: the parent's.
    pub(crate) mac: Option<MacAddress>,
    pub(crate) mtu: Option<u32>,
    pub(crate) mode: ParentMode,
}

/// Makes a link on a parent, in the namespace from the first, and down. The parent is looked for in the socket's.
pub(crate) fn create_child(batch: &mut Batch, child: &Child<'_>, namespace: i32) {
    let kind = child.mode.kind();
    let label = format!("create the {kind} link of a container");
    batch.message(label, RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, false), |a| {
        a.text(IFLA_IFNAME, child.name);
        a.u32(IFLA_LINK, child.parent);
        a.bytes(IFLA_NET_NS_FD, &namespace.to_ne_bytes());
        child.mac.inspect(|mac| a.bytes(IFLA_ADDRESS, &mac.0));
        child.mtu.inspect(|mtu| a.u32(IFLA_MTU, *mtu));
        a.nest(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_KIND, kind);
            a.nest(IFLA_INFO_DATA, |a| child.mode.encode(a));
        });
    });
}

/// Gives a link that is down another name.
pub(crate) fn rename(batch: &mut Batch, index: u32, name: &str) {
    let label = format!("call a link of a container {name}");
    batch.message(label, RTM_NEWLINK, 0, &link_header(index, false), |a| a.text(IFLA_IFNAME, name));
}

/// Makes the sub-interface of a VLAN (802.1Q), and brings it up.
pub(crate) fn create_vlan(batch: &mut Batch, name: &str, of: u32, id: u16) {
    let label = format!("create the VLAN's interface {name}");
    batch.message(label, RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, true), |a| {
        a.text(IFLA_IFNAME, name);
        a.u32(IFLA_LINK, of);
        a.nest(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_KIND, "vlan");
            a.nest(IFLA_INFO_DATA, |a| a.u16(IFLA_VLAN_ID, id));
        });
    });
}

/// Makes an interface that leads nowhere, and brings it up.
pub(crate) fn create_dummy(batch: &mut Batch, name: &str) {
    batch.message(
        format!("create the interface {name}"),
        RTM_NEWLINK,
        CREATE | EXCLUSIVE,
        &link_header(0, true),
        |a| {
            a.text(IFLA_IFNAME, name);
            a.nest(IFLA_LINKINFO, |a| a.text(IFLA_INFO_KIND, "dummy"));
        },
    );
}

/// Keeps the containers of a bridge apart: an isolated port sends to those that are not alone (bridge(8)).
pub(crate) fn isolate(batch: &mut Batch, name: &str) {
    set_port(batch, format!("isolate {name}"), name, IFLA_BRPORT_ISOLATED);
}

/// Lets the bridge send a frame back through the port that it came from.
///
/// Only br_netfilter needs it: it carries out our DNAT inside the bridge, where a container that calls its own
/// published port would otherwise be both source and destination port.
pub(crate) fn hairpin(batch: &mut Batch, name: &str) {
    set_port(batch, format!("set hairpin mode on {name}"), name, IFLA_BRPORT_MODE);
}

fn set_port(batch: &mut Batch, label: String, name: &str, setting: u16) {
    batch.message(label, RTM_NEWLINK, 0, &link_header(0, false), |a| {
        a.text(IFLA_IFNAME, name);
        a.nest(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_SLAVE_KIND, "bridge");
            a.nest(IFLA_INFO_SLAVE_DATA, |a| a.u8(setting, 1));
        });
    });
}

/// Brings a link up.
pub(crate) fn bring_up(batch: &mut Batch, index: u32) {
    batch.message("bring an interface up", RTM_NEWLINK, 0, &link_header(index, true), |_| {});
}

/// Sets the largest packet, in bytes.
pub(crate) fn set_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.message("set an interface's MTU", RTM_NEWLINK, 0, &link_header(index, false), |a| a.u32(IFLA_MTU, mtu));
}

/// Deletes a link. Takes some 20 ms: the kernel waits for every reader.
pub(crate) fn delete_link(batch: &mut Batch, name: &str) {
    batch.message(format!("delete the link {name}"), RTM_DELLINK, 0, &link_header(0, false), |a| {
        a.text(IFLA_IFNAME, name);
    });
}

/// Adds an address; IPv6 without duplicate address detection, which would keep it unusable for a second or two.
pub(crate) fn add_address(batch: &mut Batch, index: u32, address: IpAddr, prefix_length: u8) {
    let label = format!("add the address {address}/{prefix_length}");
    let header = address_header(address, prefix_length, index);
    batch.message(label, RTM_NEWADDR, CREATE | REPLACE, &header, |a| {
        put_address(a, IFA_LOCAL, address);
        put_address(a, IFA_ADDRESS, address);
        if let IpAddr::V4(address) = address {
            let subnet = Ipv4Subnet::containing(address, prefix_length);
            put_address(a, IFA_BROADCAST, subnet.address(subnet.usable() + 1).into());
        }
    });
}

/// Removes an address.
pub(crate) fn delete_address(batch: &mut Batch, index: u32, address: IpAddr, prefix_length: u8) {
    let label = format!("remove the address {address}/{prefix_length}");
    let header = address_header(address, prefix_length, index);
    batch.message(label, RTM_DELADDR, 0, &header, |a| put_address(a, IFA_LOCAL, address));
}

/// Adds the default route by this gateway, in the place of one that is there.
pub(crate) fn set_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    let family = if gateway.is_ipv4() { AF_INET } else { AF_INET6 };
    let header = [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0];
    let label = format!("add the default route by {gateway}");
    batch.message(label, RTM_NEWROUTE, CREATE | REPLACE, &header, |a| {
        put_address(a, RTA_GATEWAY, gateway);
        a.u32(RTA_OIF, index);
    });
}

/// Adds the default route to the link itself: whoever is sent to is asked for there.
pub(crate) fn set_default_route_to_link(batch: &mut Batch, index: u32, ipv4: bool) {
    let (family, scope) = if ipv4 { (AF_INET, RT_SCOPE_LINK) } else { (AF_INET6, RT_SCOPE_UNIVERSE) };
    let header = [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0];
    let label = "add the default route to a link";
    batch.message(label, RTM_NEWROUTE, CREATE | REPLACE, &header, |a| a.u32(RTA_OIF, index));
}

/// All links, by index.
pub(crate) fn links(socket: &mut Socket) -> Result<BTreeMap<u32, Link>, Refusal> {
    let mut request = Batch::default();
    request.message("list the interfaces", RTM_GETLINK, DUMP, &link_header(0, false), |_| {});
    let links = socket.dump(&request, |kind, payload| (kind == RTM_NEWLINK).then(|| parse_link(payload)).flatten())?;
    Ok(links.into_iter().map(|link| (link.index, link)).collect())
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(16..)?;
    let kind = attribute(attributes, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND)).map(text);
    Some(Link {
        index: number(payload.get(4..)?)?,
        name: text(attribute(attributes, IFLA_IFNAME)?),
        master: attribute(attributes, IFLA_MASTER).and_then(number),
        kind,
        mac: attribute(attributes, IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok()).map(MacAddress),
    })
}

/// All addresses of all interfaces.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<InterfaceAddress>, Refusal> {
    let mut request = Batch::default();
    request.message("list the addresses", RTM_GETADDR, DUMP, &[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0], |_| {});
    socket.dump(&request, |kind, payload| (kind == RTM_NEWADDR).then(|| parse_address(payload)).flatten())
}

/// The addresses that a datagram of events says are new.
pub(crate) fn new_addresses(datagram: &[u8]) -> impl Iterator<Item = InterfaceAddress> {
    received(datagram)
        .filter(|message| message.kind == RTM_NEWADDR)
        .filter_map(|message| parse_address(message.payload))
}

fn parse_address(payload: &[u8]) -> Option<InterfaceAddress> {
    let attributes = payload.get(8..)?;
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL elsewhere (rtnetlink(7)).
    let value = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    Some(InterfaceAddress {
        index: number(payload.get(4..)?)?,
        address: parse_ip(value)?,
        prefix_length: payload[1],
        global: payload[3] == RT_SCOPE_UNIVERSE,
    })
}

fn parse_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

/// The IPv4 subnets that the host has a route to, other than by default, with the interface of each.
pub(crate) fn routed_subnets(socket: &mut Socket) -> Result<Vec<(Option<u32>, Ipv4Subnet)>, Refusal> {
    let mut request = Batch::default();
    request.message("list the routes", RTM_GETROUTE, DUMP, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| {});
    socket.dump(&request, |kind, payload| (kind == RTM_NEWROUTE).then(|| parse_route(payload)).flatten())
}

fn parse_route(payload: &[u8]) -> Option<(Option<u32>, Ipv4Subnet)> {
    let attributes = payload.get(12..)?;
    let (family, prefix_length, table) = (payload[0], payload[1], u32::from(payload[4]));
    let table = attribute(attributes, RTA_TABLE).and_then(number).unwrap_or(table);
    // A prefix of 1 is half of everything: VPNs override the default route by two of them.
    if family != AF_INET || prefix_length <= 1 || table == RT_TABLE_LOCAL {
        return None;
    }
    let Some(IpAddr::V4(network)) = attribute(attributes, RTA_DST).and_then(parse_ip) else { return None };
    Some((attribute(attributes, RTA_OIF).and_then(number), Ipv4Subnet::containing(network, prefix_length)))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    /// As `strace -e trace=sendmsg -v ip addr add 10.0.0.2/24 broadcast 10.0.0.255 dev eth0` shows it, bar the
    /// sequence number and the order of the attributes.
    #[test]
    fn an_address_is_encoded_as_iproute_does() {
        let mut batch = Batch::default();
        add_address(&mut batch, 2, Ipv4Addr::new(10, 0, 0, 2).into(), 24);
        #[rustfmt::skip]
        assert_eq!(batch.bytes(), [
            48, 0, 0, 0, 20, 0, 0x01, 0x05, 0, 0, 0, 0, 0, 0, 0, 0,
            2, 24, 0, 0, 2, 0, 0, 0,
            8, 0, 2, 0, 10, 0, 0, 2,
            8, 0, 1, 0, 10, 0, 0, 2,
            8, 0, 4, 0, 10, 0, 0, 255,
        ]);
    }

    #[test]
    fn a_default_route_is_encoded_as_iproute_replaces_it() {
        let mut batch = Batch::default();
        set_default_route(&mut batch, 3, Ipv4Addr::new(10, 0, 0, 1).into());
        #[rustfmt::skip]
        assert_eq!(batch.bytes(), [
            44, 0, 0, 0, 24, 0, 0x01, 0x05, 0, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0,
            8, 0, 5, 0, 10, 0, 0, 1,
            8, 0, 4, 0, 3, 0, 0, 0,
        ]);
    }

    #[test]
    fn routes_that_say_nothing_of_a_subnet_are_passed_over() {
        let route = |prefix: u8, table: u8| {
            let mut payload = vec![2, prefix, 0, 0, table, 3, 0, 1, 0, 0, 0, 0];
            payload.extend_from_slice(&[8, 0, 1, 0, 10, 1, 2, 0]);
            parse_route(&payload)
        };
        assert_eq!(route(24, 254), Some((None, Ipv4Subnet::containing(Ipv4Addr::new(10, 1, 2, 0), 24))));
        assert_eq!(route(24, 255), None, "the local table");
        assert_eq!(route(0, 254), None);
        assert_eq!(parse_route(&[2, 24]), None);
    }
}
