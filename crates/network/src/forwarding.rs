//! Forwarding: which interfaces must forward for containers to reach out and be reached, and how to give it back.
//!
//! The kernel asks the interface that a packet comes in by (`ip_route_input_slow`, `ip6_forward`): the bridge for what
//! containers send, the host's other interfaces for the answers and for published ports. IPv4 has a switch per
//! interface; IPv6 has one since Linux 6.17 (`force_forwarding`), before that only one for all of them.
//! What we turn on is recorded in our table (see [`crate::firewall`]), whose rules keep it to containers' packets.

use std::collections::BTreeSet;

use crate::error::NetworkError;
use crate::firewall::{Element, Map};
use crate::sysctl;

/// In [`Map::Opened6`]: the switch of all interfaces.
pub(crate) const ALL_INTERFACES: &str = "all";

/// What has been turned on by us, as the table records it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) ipv4: BTreeSet<String>,
    pub(crate) ipv6: BTreeSet<String>,
    pub(crate) advertised: BTreeSet<String>,
}

impl Opened {
    pub(crate) fn of(elements: &[Element]) -> Self {
        let of = |map| elements.iter().filter(|e| e.map == map).map(Element::interface_name).collect();
        Self { ipv4: of(Map::Opened4), ipv6: of(Map::Opened6), advertised: of(Map::Advertised) }
    }

    pub(crate) fn elements(&self) -> Vec<Element> {
        let of = |map, names: &BTreeSet<String>| -> Vec<Element> {
            names.iter().map(|name| Element::interface(map, name)).collect()
        };
        [of(Map::Opened4, &self.ipv4), of(Map::Opened6, &self.ipv6), of(Map::Advertised, &self.advertised)].concat()
    }

    /// Takes over what another record says.
    pub(crate) fn join(&mut self, other: Self) {
        self.ipv4.extend(other.ipv4);
        self.ipv6.extend(other.ipv6);
        self.advertised.extend(other.advertised);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty() && self.advertised.is_empty()
    }
}

/// What is to be turned on: decided by reading alone, so that it can be recorded before it is done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What the record must say from now on.
    pub(crate) opened: Opened,
    /// The settings to write, in order.
    pub(crate) settings: Vec<(String, &'static str)>,
}

/// Plans forwarding for these interfaces, which have a global IPv4 or IPv6 address and are not ours.
///
/// `ipv6_per_interface` says whether the kernel has `force_forwarding`: see [`has_ipv6_per_interface`].
/// `before` is what the record said so far. Where the host forwards anyway, nothing is ours any more.
pub(crate) fn plan(
    before: &Opened,
    ipv4: &BTreeSet<String>,
    ipv6: Option<&BTreeSet<String>>,
    ipv6_per_interface: bool,
) -> Result<Plan, NetworkError> {
    let mut plan = Plan::default();
    if !is_on("ipv4/conf/all/forwarding")? {
        for interface in ipv4 {
            let setting = format!("ipv4/conf/{interface}/forwarding");
            let on = is_on(&setting)?;
            if !on || before.ipv4.contains(interface) {
                plan.opened.ipv4.insert(interface.clone());
            }
            if !on {
                plan.settings.push((setting, "1"));
            }
        }
    }
    let Some(ipv6) = ipv6 else { return Ok(plan) };
    let ours = before.ipv6.contains(ALL_INTERFACES);
    plan.opened.advertised.clone_from(&before.advertised);
    let all_on = is_on("ipv6/conf/all/forwarding")?;
    if all_on {
        if ours {
            plan.opened.ipv6.insert(ALL_INTERFACES.to_owned());
        }
    } else if ipv6_per_interface {
        for interface in ipv6 {
            let setting = format!("ipv6/conf/{interface}/force_forwarding");
            let on = is_on(&setting)?;
            if !on || before.ipv6.contains(interface) {
                plan.opened.ipv6.insert(interface.clone());
            }
            if !on {
                plan.settings.push((setting, "1"));
            }
        }
    } else {
        // A router takes no default route from advertisements unless told to by 2
        // (Documentation/networking/ip-sysctl.rst); the host must keep the one that it has.
        for interface in ipv6 {
            let setting = format!("ipv6/conf/{interface}/accept_ra");
            if sysctl::read(&setting)?.as_deref() == Some("1") {
                plan.opened.advertised.insert(interface.clone());
                plan.settings.push((setting, "2"));
            }
        }
        plan.opened.ipv6.insert(ALL_INTERFACES.to_owned());
        plan.settings.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    Ok(plan)
}

/// Whether IPv6 forwarding can be turned on for one interface.
pub(crate) fn has_ipv6_per_interface() -> Result<bool, NetworkError> {
    Ok(sysctl::read("ipv6/conf/all/force_forwarding")?.is_some())
}

/// Writes the settings of a plan.
pub(crate) fn carry_out(plan: &Plan) -> Result<(), NetworkError> {
    for (name, value) in &plan.settings {
        // An interface that has gone since needs none.
        sysctl::write(name, value)?;
    }
    Ok(())
}

/// Turns off again what the record says; goes on past failures.
pub(crate) fn undo(opened: &Opened) -> Vec<NetworkError> {
    let ipv4 = opened.ipv4.iter().map(|interface| (format!("ipv4/conf/{interface}/forwarding"), "0"));
    let ipv6 = opened.ipv6.iter().map(|interface| match interface.as_str() {
        ALL_INTERFACES => ("ipv6/conf/all/forwarding".to_owned(), "0"),
        interface => (format!("ipv6/conf/{interface}/force_forwarding"), "0"),
    });
    let advertised = opened.advertised.iter().map(|interface| (format!("ipv6/conf/{interface}/accept_ra"), "1"));
    ipv4.chain(ipv6).chain(advertised).filter_map(|(name, value)| sysctl::write(&name, value).err()).collect()
}

fn is_on(name: &str) -> Result<bool, NetworkError> {
    Ok(sysctl::read(name)?.is_some_and(|value| value != "0"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::thread::UnshareFlags;

    use super::*;

    /// The kernels of today's distributions have one switch for all of IPv6; this one behaves like them if we do.
    #[test]
    fn with_one_switch_for_ipv6_the_host_keeps_its_default_route() {
        let test = || {
            // SAFETY: the thread is fresh, and only its own network namespace changes.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            sysctl::write("ipv4/conf/all/forwarding", "0").unwrap();
            let uplinks = BTreeSet::from(["lo".to_owned()]);
            let read = |name| sysctl::read(name).unwrap().unwrap();
            let settings =
                || ["ipv4/conf/lo/forwarding", "ipv6/conf/lo/accept_ra", "ipv6/conf/all/forwarding"].map(read);
            sysctl::write("ipv6/conf/lo/accept_ra", "1").unwrap();
            let first = plan(&Opened::default(), &uplinks, Some(&uplinks), false).unwrap();
            let names: Vec<_> = first.settings.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let want =
                [("ipv4/conf/lo/forwarding", "1"), ("ipv6/conf/lo/accept_ra", "2"), ("ipv6/conf/all/forwarding", "1")];
            assert_eq!(names, want);
            carry_out(&first).unwrap();
            assert_eq!(settings(), ["1", "2", "1"]);
            // A second look changes nothing and forgets nothing.
            let second = plan(&first.opened, &uplinks, Some(&uplinks), false).unwrap();
            assert_eq!(second, Plan { opened: first.opened.clone(), settings: vec![] });
            assert_eq!(Opened::of(&first.opened.elements()), first.opened);
            assert!(undo(&first.opened).is_empty());
            assert_eq!(settings(), ["0", "1", "0"]);
        };
        thread::spawn(test).join().unwrap();
    }
}
