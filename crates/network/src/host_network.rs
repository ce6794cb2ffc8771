//! The host's network as one engine uses it: what is there once, however many networks it has.
//!
//! [`HostNetwork::open`] looks and changes nothing; the first bridge brings the table. [`publish`](HostNetwork::publish)
//! leads ports of the host to a container, [`unpublish`](HostNetwork::unpublish) undoes it. After a restart: `open`,
//! every bridge that has containers, [`BridgeNetwork::restore`] and `publish` for each of them,
//! [`retain`](HostNetwork::retain) with all of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use dozen_model::Protocol;

use crate::address::{self, Destination, Endpoint, Ipv4Subnet};
use crate::bridge::{Attachment, BridgeConfig, BridgeNetwork, NetworkConfig, delete_link};
use crate::conntrack;
use crate::error::NetworkError;
use crate::failpoint::failpoint;
use crate::firewall::opening::Unopened;
use crate::firewall::{Element, Map, PublishedKey, Table};
use crate::forwarding::{self, Opened};
use crate::host::{DEFAULT_BRIDGE, Host, Member, Published, TAGGED_BRIDGE, Target, element, is_engines, locked};
use crate::link::{self, InterfaceAddress};
use crate::netlink::Socket;
use crate::parent::{self, ParentLink, ParentMode};
use crate::ports::{DirectPort, PublishedPort};
use crate::reach::{Behind, Interface, Translations};
use crate::watch::Watcher;
use crate::{setup, sysctl};

/// The networks of one engine, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct HostNetwork {
    pub(crate) host: Arc<Host>,
    /// br_netfilter puts bridged packets through the host's rules: see [`link::hairpin`].
    pub(crate) hairpin: bool,
    default_bridge: String,
    watcher: Mutex<Option<Watcher>>,
}

impl HostNetwork {
    /// Looks at what an earlier engine of this tag left: `NetworkConfig::instance` says what a tag is.
    pub fn open(instance: &str) -> Result<Self, NetworkError> {
        let (default_bridge, table) = names(instance)?;
        let route = Socket::route()?;
        let mut netfilter = Socket::netfilter()?;
        let elements = table.read(&mut netfilter)?;
        let host = Host {
            table,
            ipv6: sysctl::read("ipv6/conf/all/disable_ipv6")?.is_some(),
            route: Mutex::new(route),
            published: Mutex::new(Published::of(netfilter, &elements)),
            opens_others: Mutex::default(),
        };
        Ok(Self {
            host: Arc::new(host),
            hairpin: sysctl::is_one("bridge/bridge-nf-call-iptables")
                || sysctl::is_one("bridge/bridge-nf-call-ip6tables"),
            default_bridge,
            watcher: Mutex::new(None),
        })
    }

    /// Makes the default network, or adopts what an earlier engine of this tag left, and chooses its addresses.
    ///
    /// Running containers and those who call them notice nothing: the table and its ports are there throughout.
    pub fn default_bridge(self: &Arc<Self>, config: &NetworkConfig) -> Result<BridgeNetwork, NetworkError> {
        let addresses = setup::choose_addresses(&mut locked(&self.host.route), config, &self.default_bridge)?;
        // Containers on it may have kept it where another range was meant.
        let subnet = addresses.ipv4_subnet();
        let ipv4_range = config
            .ipv4_range
            .filter(|range| subnet.is_some_and(|it| it.contains(range.network()) && it.contains(range.last())));
        let (mtu, between_containers) = (config.mtu, !config.isolated);
        self.bridge(BridgeConfig { mtu, between_containers, ipv4_range, ..BridgeConfig::plain(addresses) })
    }

    /// Makes a network's bridge, or adopts it.
    pub fn bridge(self: &Arc<Self>, config: BridgeConfig) -> Result<BridgeNetwork, NetworkError> {
        let name = config.addresses.name.clone();
        self.refuse_foreign(&config)?;
        {
            let mut published = locked(&self.host.published);
            if published.bridges.contains_key(&name) {
                return Err(NetworkError::NotABridge(name));
            }
            published.bridges.insert(name.clone(), Member { index: None, config: config.clone() });
        }
        match self.make_bridge(&config) {
            Ok(index) => Ok(BridgeNetwork::new(self.clone(), config, Attachment::Bridge { index })),
            Err(error) => {
                // The link stays for the next try; what the table says of it does not.
                if let Err(undo) = self.host.dismiss(&name) {
                    tracing::error!(error = %undo, "cannot undo a network");
                }
                Err(error)
            }
        }
    }

    /// A network on an interface of the host's, which is made if it is to be.
    pub fn on_parent(
        self: &Arc<Self>,
        config: BridgeConfig,
        parent: ParentLink,
        mode: ParentMode,
    ) -> Result<BridgeNetwork, NetworkError> {
        parent::ensure(&mut locked(&self.host.route), &parent)?;
        Ok(BridgeNetwork::new(self.clone(), config, Attachment::Parent { parent, mode }))
    }

    /// Takes the interface away that was made for networks; fine when it is not there, or none of ours.
    pub fn remove_parent(&self, parent: &ParentLink) -> Result<(), NetworkError> {
        let removed = match parent {
            ParentLink::Present { .. } => Ok(()),
            ParentLink::Vlan { name, .. } | ParentLink::Dummy { name } => {
                delete_link(&mut locked(&self.host.route), name)
            }
        };
        failpoint("network.parent.removed");
        removed
    }

    /// A name that the user chose may have become somebody else's: then the interface has not our hardware address.
    fn refuse_foreign(&self, config: &BridgeConfig) -> Result<(), NetworkError> {
        let name = &config.addresses.name;
        if is_engines(name) {
            return Ok(());
        }
        let ours = config.addresses.mac();
        let links = link::links(&mut locked(&self.host.route))?;
        match links.values().find(|link| link.name == *name) {
            Some(link) if link.mac != Some(ours) => Err(NetworkError::InterfaceTaken(name.clone())),
            _ => Ok(()),
        }
    }

    fn make_bridge(&self, config: &BridgeConfig) -> Result<u32, NetworkError> {
        let index = setup::ensure_bridge(&mut locked(&self.host.route), config)?;
        self.host.admit(&config.addresses.name, index)?;
        setup::settle(&self.host, config, index)?;
        let mut watcher = locked(&self.watcher);
        if watcher.is_none() {
            // From here on; what changed since the table was set up is seen by the watcher's own first look.
            *watcher = Some(Watcher::start(self.host.clone())?);
        }
        Ok(index)
    }

    /// Takes a network's bridge away, with the links on it. Goes on past failures and reports them all.
    pub fn remove_bridge(&self, name: &str) -> Result<(), Vec<NetworkError>> {
        // The link first: by what the table says of it the next engine finds it.
        let mut errors: Vec<NetworkError> =
            delete_link(&mut locked(&self.host.route), name).err().into_iter().collect();
        failpoint("network.remove.bridge");
        errors.extend(self.host.dismiss(name).err());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Whether the host has an interface of this name, whosever it is.
    pub fn has_interface(&self, name: &str) -> Result<bool, NetworkError> {
        let links = link::links(&mut locked(&self.host.route))?;
        Ok(links.values().any(|link| link.name == name))
    }

    /// The bridges that an earlier engine's table knows and this one has not opened.
    pub fn inherited_bridges(&self) -> BTreeSet<String> {
        let published = locked(&self.host.published);
        let inherited = published.inherited.iter().filter(|element| element.map == Map::Bridges);
        inherited.map(Element::interface_name).filter(|name| !published.bridges.contains_key(name)).collect()
    }

    /// The first subnet of these pools (none: Docker's default ones) that overlaps neither the host's routes and addresses nor these.
    pub fn choose_subnet(&self, pools: &[(Ipv4Addr, u8)], avoid: &[Ipv4Subnet]) -> Result<Ipv4Subnet, NetworkError> {
        let mut taken = setup::occupied(&mut locked(&self.host.route))?;
        taken.extend(avoid);
        let pools = if pools.is_empty() { &address::default_pools() } else { pools };
        address::choose_subnet(pools, &taken).ok_or(NetworkError::PoolsExhausted)
    }

    /// A unique local /64 (RFC 4193) that follows from the machine, the engine's tag and the network's id. `None` if
    /// the kernel has no IPv6.
    pub fn choose_ipv6_subnet(&self, instance: &str, network_id: &str) -> Option<Ipv6Addr> {
        let label = format!("{instance}\0{network_id}");
        self.host.ipv6.then(|| address::unique_local_subnet(&setup::machine_id(), &label))
    }

    /// Looks again which of the host's interfaces have to forward. It happens by itself when one gets an address.
    pub fn refresh(&self) -> Result<(), NetworkError> {
        self.host.refresh()
    }

    /// Leads these ports of the host to the container, and opens those that are reached at its own addresses: all of them or
    /// none. What led elsewhere before leads here now: it is the caller who knows which ports are free.
    pub fn publish(
        &self,
        to: impl Into<Destination>,
        ports: &[PublishedPort],
        direct: &BTreeSet<DirectPort>,
    ) -> Result<(), NetworkError> {
        let wanted = wanted(to.into(), ports)?;
        if wanted.is_empty() && direct.is_empty() {
            return Ok(());
        }
        let mut published = locked(&self.host.published);
        let Published { socket, ports: present, .. } = &mut *published;
        let remove: Vec<_> = wanted
            .iter()
            .filter_map(|(key, target)| present.get(key).filter(|old| *old != target).map(|old| element(key, *old)))
            .collect();
        let mut add: Vec<_> = wanted.iter().map(|(key, target)| element(key, *target)).collect();
        add.extend(direct.iter().map(Element::direct));
        match self.host.table.change(socket, &remove, &add) {
            // Somebody flushed the host's firewall. What we know is enough to make the table again.
            Err(refusal) if refusal.is(libc::ENOENT) => {
                drop(published);
                self.host.set_up_table()?;
                published = locked(&self.host.published);
                self.host.table.change(&mut published.socket, &remove, &add)?;
            }
            outcome => outcome?,
        }
        failpoint("network.publish.elements");
        let Published { socket, ports: present, direct: open, .. } = &mut *published;
        present.extend(wanted.iter().copied());
        open.extend(direct);
        self.host.forget_misled_flows(socket, &wanted)?;
        failpoint("network.publish.flows");
        Ok(())
    }

    /// Undoes [`publish`](Self::publish): what leads to another container by now stays. Of what is reached at these
    /// addresses of the container's own nothing stays open.
    pub fn unpublish(
        &self,
        to: impl Into<Destination>,
        ports: &[PublishedPort],
        routed: Destination,
    ) -> Result<(), NetworkError> {
        let wanted = wanted(to.into(), ports)?;
        let mut published = locked(&self.host.published);
        let Published { ports: present, direct, .. } = &mut *published;
        let ours: Vec<_> = wanted.into_iter().filter(|(key, target)| present.get(key) == Some(target)).collect();
        let shut: Vec<_> =
            direct.iter().filter(|port| routed.address_like(port.address) == Some(port.address)).copied().collect();
        remove_ports(&self.host, &mut published, &ours, &shut)
    }

    /// After a restart, when every running container is [restored](BridgeNetwork::restore): removes the ports and the links of
    /// those that are gone, and bridges that nobody has opened. Goes on past failures and reports them all.
    pub fn retain(&self, running: &[Endpoint]) -> Result<(), Vec<NetworkError>> {
        let mut errors = Vec::new();
        let addresses: BTreeSet<IpAddr> = running.iter().flat_map(Endpoint::addresses).collect();
        {
            let mut published = locked(&self.host.published);
            let Published { ports: present, direct, .. } = &mut *published;
            let gone: Vec<_> = present
                .iter()
                .filter(|(_, target)| !addresses.contains(&target.0))
                .map(|(key, target)| (*key, *target))
                .collect();
            let shut: Vec<_> = direct.iter().filter(|port| !addresses.contains(&port.address)).copied().collect();
            errors.extend(remove_ports(&self.host, &mut published, &gone, &shut).err());
        }
        failpoint("network.retain.ports");
        let interfaces: BTreeSet<&str> = running.iter().map(|endpoint| endpoint.interface.as_str()).collect();
        let strangers = self.inherited_bridges();
        let ours = self.indexes();
        let mut route = locked(&self.host.route);
        match link::links(&mut route) {
            Ok(links) => {
                let is_known =
                    |master| ours.contains(&master) || links.get(&master).is_some_and(|m| strangers.contains(&m.name));
                let ports = links.values().filter(|link| link.master.is_some_and(is_known));
                for port in ports.filter(|link| !interfaces.contains(link.name.as_str())) {
                    errors.extend(delete_link(&mut route, &port.name).err());
                }
            }
            Err(refusal) => errors.push(refusal.into()),
        }
        failpoint("network.retain.links");
        for bridge in &strangers {
            errors.extend(delete_link(&mut route, bridge).err());
        }
        drop(route);
        failpoint("network.retain.bridges");
        {
            let mut published = locked(&self.host.published);
            let known: BTreeSet<Element> = published.bridges.values().flat_map(Member::elements).collect();
            let gone: Vec<Element> = std::mem::take(&mut published.inherited).difference(&known).cloned().collect();
            if !gone.is_empty() {
                errors.extend(self.host.remove_all(&mut published.socket, &gone).err());
            }
        }
        failpoint("network.retain.elements");
        let keep = locked(&self.host.published).bridge_names();
        errors.extend(self.host.tidy_others(&keep).err());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Removes every bridge, the links on them, the table, and turns off the forwarding that we turned on.
    /// Goes on past failures and reports them all. To be called in the namespace that the network was opened in.
    pub fn teardown(&self) -> Result<(), Vec<NetworkError>> {
        let mut errors = Vec::new();
        // First, so that it does not make again what goes.
        drop(locked(&self.watcher).take());
        {
            let mut published = locked(&self.host.published);
            let Published { socket, ports, direct, opened, is_set_up, .. } = &mut *published;
            match self.host.hand_over(socket, opened) {
                Ok(opened) => errors.extend(forwarding::undo(&opened)),
                Err(error) => errors.push(error),
            }
            failpoint("network.teardown.forwarding");
            match self.host.table.delete(socket) {
                Ok(()) => {
                    *is_set_up = false;
                    ports.clear();
                    direct.clear();
                    *opened = Opened::default();
                }
                Err(refusal) => errors.push(refusal.into()),
            }
        }
        failpoint("network.teardown.table");
        errors.extend(self.host.tidy_others(&BTreeSet::new()).err());
        let ours = self.indexes();
        let strangers = self.inherited_bridges();
        let mut published = locked(&self.host.published);
        let bridges =
            std::mem::take(&mut published.bridges).into_keys().chain(strangers).chain([self.default_bridge.clone()]);
        let bridges: BTreeSet<String> = bridges.collect();
        published.inherited.clear();
        drop(published);
        let mut route = locked(&self.host.route);
        match link::links(&mut route) {
            Ok(links) => {
                let is_known =
                    |master| ours.contains(&master) || links.get(&master).is_some_and(|m| bridges.contains(&m.name));
                for port in links.values().filter(|link| link.master.is_some_and(is_known)) {
                    errors.extend(delete_link(&mut route, &port.name).err());
                }
            }
            Err(refusal) => errors.push(refusal.into()),
        }
        failpoint("network.teardown.links");
        for bridge in &bridges {
            errors.extend(delete_link(&mut route, bridge).err());
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Opens the chains of other people's firewalls that drop what our bridges forward, by a rule of ours in each; from
    /// now on also for bridges and chains that come. False takes those rules away. What could not be opened is told.
    pub fn open_others(&self, is_asked: bool) -> Result<Vec<Unopened>, NetworkError> {
        self.host.open_others(is_asked)
    }

    /// What leads to whom in the kernel's table at this moment.
    pub fn translations(&self) -> Result<Translations, NetworkError> {
        let elements = self.host.table.read(&mut locked(&self.host.published).socket)?;
        let ports = elements.iter().filter_map(Element::parse_published);
        Ok(ports.map(|(key, address, port)| ((key.address, key.protocol, key.port), (address, port))).collect())
    }

    /// The host's interfaces with their addresses, and who is behind them.
    pub fn interfaces(&self) -> Result<Vec<Interface>, NetworkError> {
        let (bridges, internal) = {
            let published = locked(&self.host.published);
            let internal: BTreeSet<String> = published
                .bridges
                .values()
                .filter(|m| m.config.internal)
                .map(|m| m.config.addresses.name.clone())
                .collect();
            (published.bridge_names(), internal)
        };
        let mut route = locked(&self.host.route);
        let links = link::links(&mut route)?;
        let addresses = link::addresses(&mut route)?;
        drop(route);
        let ipv6_forwards = sysctl::is_one("ipv6/conf/all/forwarding");
        let interface = |address: link::InterfaceAddress| {
            let name = links.get(&address.index)?.name.clone();
            let behind = match bridges.contains(&name) {
                _ if address.index == link::LOOPBACK_INDEX => Behind::Machine,
                true if internal.contains(&name) => Behind::InternalNetwork,
                true => Behind::Containers,
                false => Behind::Others,
            };
            let forwards = match address.address {
                IpAddr::V4(_) => sysctl::is_one(&format!("ipv4/conf/{name}/forwarding")),
                IpAddr::V6(_) => ipv6_forwards || sysctl::is_one(&format!("ipv6/conf/{name}/force_forwarding")),
            };
            let InterfaceAddress { address, prefix_length, global, .. } = address;
            Some(Interface { name, address, prefix_length, is_global: global, behind, forwards })
        };
        Ok(addresses.into_iter().filter_map(interface).collect())
    }

    fn indexes(&self) -> BTreeSet<u32> {
        locked(&self.host.published).bridges.values().filter_map(|member| member.index).collect()
    }
}

/// The names of the bridge and of the table.
fn names(instance: &str) -> Result<(String, Table), NetworkError> {
    if instance.is_empty() {
        return Ok((DEFAULT_BRIDGE.to_owned(), Table("dozen".to_owned())));
    }
    let valid = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    if instance.len() > 8 || !instance.bytes().all(valid) {
        return Err(NetworkError::InvalidInstance(instance.chars().take(40).collect()));
    }
    Ok((format!("{TAGGED_BRIDGE}{instance}"), Table(format!("dozen-{instance}"))))
}

/// What each port means for the table.
fn wanted(to: Destination, ports: &[PublishedPort]) -> Result<Vec<(PublishedKey, Target)>, NetworkError> {
    let mut wanted = Vec::with_capacity(ports.len());
    for port in ports {
        match to.address_like(port.host_address) {
            // [::1] is the keeper's to forward; the kernel cannot translate it.
            Some(_) if port.host_address == IpAddr::V6(Ipv6Addr::LOCALHOST) => {}
            Some(container) => {
                let key = PublishedKey { address: port.host_address, protocol: port.protocol, port: port.host_port };
                wanted.push((key, (container, port.container_port)));
            }
            None => return Err(NetworkError::NotOfFamily { address: port.host_address }),
        }
    }
    Ok(wanted)
}

fn remove_ports(
    host: &Host,
    published: &mut Published,
    gone: &[(PublishedKey, Target)],
    shut: &[DirectPort],
) -> Result<(), NetworkError> {
    if gone.is_empty() && shut.is_empty() {
        return Ok(());
    }
    let Published { socket, ports: present, direct, .. } = published;
    let mut remove: Vec<_> = gone.iter().map(|(key, target)| element(key, *target)).collect();
    remove.extend(shut.iter().map(Element::direct));
    host.remove_all(socket, &remove)?;
    failpoint("network.unpublish.elements");
    for (key, _) in gone {
        present.remove(key);
    }
    for port in shut {
        direct.remove(port);
    }
    let of_udp = gone.iter().map(|(key, _)| key.protocol).chain(shut.iter().map(|port| port.protocol));
    if of_udp.into_iter().any(|protocol| protocol == Protocol::Udp) {
        conntrack::forget(socket, |flow| {
            gone.iter().any(|(key, target)| key.is_destination_of(flow) && flow.answers == target.0)
                || shut.iter().any(|port| port.is_destination_of(flow))
        })?;
    }
    failpoint("network.unpublish.flows");
    Ok(())
}
