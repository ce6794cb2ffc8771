//! A machine in a box: a thread in a network namespace of its own plays the host, with an uplink to a neighbour.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dozen_model::ContainerId;
use dozen_network::{
    BridgeAddresses, BridgeNetwork, Destination, Endpoint, EndpointWish, Gateways, HostNetwork, NetworkConfig,
    NetworkError, Plug, PublishedPort, new_loopback_namespace, new_namespace,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

pub const HOST: &str = "203.0.113.1";
pub const NEIGHBOUR: &str = "203.0.113.2";
pub const HOST_6: &str = "2001:db8:1::1";
pub const NEIGHBOUR_6: &str = "2001:db8:1::2";
/// How long something that must not arrive is waited for, and the longest that anything else may take.
pub const NEVER: Duration = Duration::from_millis(400);
pub const SOON: Duration = Duration::from_secs(5);

/// A container: nothing but its namespace.
pub struct Container {
    pub endpoint: Endpoint,
    pub namespace: OwnedFd,
}

/// Runs the test on a thread whose network namespace is a fresh host; gives it the neighbour's namespace.
/// Everything goes with the thread and the descriptors.
pub fn on_a_host(test: impl FnOnce(BorrowedFd<'_>) + Send) {
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            // SAFETY: the thread is fresh, and only its own network namespace changes.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            run("ip link set lo up");
            // A new namespace has IPv4's settings of the first one (sysctl/net.rst, devconf_inherit_init_net), where another
            // engine may have turned it on.
            set("ipv4/ip_forward", "0");
            let neighbour = add_neighbour("up0", (HOST, NEIGHBOUR), (HOST_6, NEIGHBOUR_6));
            test(neighbour.as_fd());
        });
        if let Err(panic) = host.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Links a new namespace to the calling thread's by the interface `uplink`; the other end is `eth0`.
pub fn add_neighbour(uplink: &str, v4: (&str, &str), v6: (&str, &str)) -> OwnedFd {
    let namespace = new_loopback_namespace(None).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&namespace));
    // A link that has been up for long has no address that is still being checked.
    set("ipv6/conf/default/accept_dad", "0");
    within(&namespace, || set("ipv6/conf/default/accept_dad", "0"));
    run(&format!("ip link add {uplink} type veth peer name eth0 netns {path}"));
    run(&format!("ip addr add {}/24 dev {uplink}", v4.0));
    run(&format!("ip addr add {}/64 dev {uplink} nodad", v6.0));
    run(&format!("ip link set {uplink} up"));
    within(&namespace, || {
        run(&format!("ip addr add {}/24 dev eth0", v4.1));
        run(&format!("ip addr add {}/64 dev eth0 nodad", v6.1));
        run("ip link set eth0 up");
    });
    namespace
}

/// Runs the closure on a thread in that namespace.
pub fn within<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> T + Send) -> T {
    let namespace = namespace.as_fd();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a command in the calling thread's namespace; its output.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn config() -> NetworkConfig {
    NetworkConfig { ipv6: true, ..NetworkConfig::default() }
}

pub fn open() -> Network {
    Network::open(config()).unwrap()
}

/// The default network of an engine.
#[derive(Debug)]
pub struct Network {
    pub host: Arc<HostNetwork>,
    pub bridge: BridgeNetwork,
}

impl Network {
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        let host = Arc::new(HostNetwork::open(&config.instance)?);
        let bridge = host.default_bridge(&config)?;
        Ok(Self { host, bridge })
    }

    pub fn addresses(&self) -> &BridgeAddresses {
        self.bridge.addresses()
    }

    pub fn attach(&self, id: &ContainerId) -> Result<(Endpoint, OwnedFd), NetworkError> {
        let mut endpoint = self.bridge.take(id, &EndpointWish::default())?;
        let linked = link(&mut [(&self.bridge, &mut endpoint)]);
        linked.inspect_err(|_| self.bridge.release(&endpoint)).map(|namespace| (endpoint, namespace))
    }

    pub fn restore(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        self.bridge.restore(endpoint)?;
        self.publish(endpoint, ports)
    }

    pub fn release(&self, endpoint: &Endpoint) {
        self.bridge.release(endpoint);
    }

    pub fn publish(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        self.host.publish(endpoint, ports, &Default::default())
    }

    pub fn unpublish(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        self.host.unpublish(endpoint, ports, Destination::default())
    }

    pub fn retain(&self, running: &[Endpoint]) -> Result<(), Vec<NetworkError>> {
        self.host.retain(running)
    }

    pub fn refresh(&self) -> Result<(), NetworkError> {
        self.host.refresh()
    }

    pub fn teardown(&self) -> Result<(), Vec<NetworkError>> {
        self.host.teardown()
    }
}

/// A namespace with these places, the default routes by the first that leads anywhere.
pub fn link(places: &mut [(&BridgeNetwork, &mut Endpoint)]) -> Result<OwnedFd, NetworkError> {
    let by = places.iter().map(|(_, endpoint)| &**endpoint).find(|endpoint| !endpoint.internal);
    let gateways = by.map_or_else(Gateways::default, gateways);
    let mut plugs: Vec<Plug<'_>> = places.iter_mut().map(|(network, endpoint)| Plug { network, endpoint }).collect();
    new_namespace(None, &mut plugs, &gateways)
}

pub fn gateways(by: &Endpoint) -> Gateways {
    Gateways {
        ipv4: by.ipv4_gateway.map(|gateway| (by.inside.clone(), Some(gateway.into()))),
        ipv6: by.ipv6_gateway.map(|gateway| (by.inside.clone(), Some(gateway.into()))),
    }
}

pub fn attach(network: &Network) -> Container {
    let (endpoint, namespace) = network.attach(&ContainerId::random()).unwrap();
    Container { endpoint, namespace }
}

pub fn listen(namespace: impl AsFd, port: u16) -> TcpListener {
    within(namespace, || TcpListener::bind(("::", port)).unwrap())
}

/// Connects from that namespace; the caller's address as the listener sees it, IPv4 as such.
pub fn reach(from: impl AsFd, to: &str, port: u16, listener: &TcpListener) -> io::Result<IpAddr> {
    let client = dial(from, to, port, SOON)?;
    listener.set_nonblocking(false).unwrap();
    let (_server, peer) = listener.accept()?;
    drop(client);
    Ok(peer.ip().to_canonical())
}

pub fn dial(from: impl AsFd, to: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    within(from, || TcpStream::connect_timeout(&to, timeout))
}

/// The address is not reachable: no answer, or a refusal.
#[track_caller]
pub fn unreachable(from: impl AsFd, to: &str, port: u16) {
    let outcome = dial(from, to, port, NEVER);
    assert!(outcome.is_err(), "{to}:{port} answers");
}

pub fn udp(namespace: impl AsFd, address: &str, port: u16) -> UdpSocket {
    let socket = within(namespace, || UdpSocket::bind((address.parse::<IpAddr>().unwrap(), port)).unwrap());
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

pub fn set(setting: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{setting}"), value).unwrap();
}

pub fn get(setting: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{setting}")).unwrap().trim().to_owned()
}

/// The calling thread's own network namespace.
pub fn here() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
}
