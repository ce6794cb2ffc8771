//! The frame of our table: its sets and chains without what they hold.
//!
//! A table that is deleted and made again, be it in one transaction, is empty for some packets: the kernel changes to
//! the new generation at one stroke, but a packet passes several chains and maps, and may meet the new ones before
//! the stroke and the old ones after it (`nft_do_chain`, `nft_genmask_cur`). What was published is refused to it.
//! Where the frame is right it therefore stays, and so do the elements that are right; every chain gets all its rules
//! anew. Of one chain, and of what it jumps to, a packet sees either the old rules or the new ones.

use super::ruleset::Chain;
use super::set::Map;
use super::table::{GET_TABLE, MESSAGE, NEW_CHAIN, NEW_SET, NEW_TABLE, SUBSYSTEM, Table};
use crate::netlink::{Batch, DUMP, Refusal, Socket, attribute, number_be, text};

const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const GET_SET: u16 = SUBSYSTEM << 8 | 10;

/// What is compared. Anything else of a set or chain changes with the kernel's version, or with each dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `dormant` and the like; ours has none.
    flags: u32,
    sets: Vec<Set>,
    chains: Vec<Hooked>,
}

/// A set or a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Set {
    name: String,
    flags: u32,
    /// Type and length.
    key: (u32, u32),
    /// As the key's; `None` for a set.
    value: Option<(u32, u32)>,
}

/// A chain and where it hangs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Hooked {
    name: String,
    /// Type, hook and priority of a base chain. Its policy is set with its rules.
    base: Option<(String, u32, i32)>,
}

impl Frame {
    /// What these chains and all the maps make.
    pub(crate) fn wanted(chains: &[Chain]) -> Self {
        let sets = Map::ALL.map(|map| Set {
            name: map.name().to_owned(),
            flags: map.flags(),
            key: map.key(),
            value: map.value(),
        });
        let chains = chains.iter().map(|chain| Hooked {
            name: chain.name.to_owned(),
            base: chain.base.as_ref().map(|base| (base.kind.to_owned(), base.hook, base.priority)),
        });
        Self { flags: 0, sets: sets.into(), chains: chains.collect() }.sorted()
    }

    /// What the kernel has; `None` when there is no such table.
    pub(crate) fn read(table: &Table, socket: &mut Socket) -> Result<Option<Self>, Refusal> {
        match Self::try_read(table, socket) {
            Ok(frame) => Ok(frame),
            // It went away while we looked.
            Err(refusal) if refusal.is(libc::ENOENT) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    fn try_read(table: &Table, socket: &mut Socket) -> Result<Option<Self>, Refusal> {
        let label = format!("look at the nftables table inet {}", table.0);
        let mut request = Batch::default();
        request.message(label.clone(), GET_TABLE, 0, &MESSAGE, |a| a.text(1, &table.0));
        request.acknowledge_newest();
        let flags = socket.dump(&request, |kind, payload| {
            (kind == NEW_TABLE).then(|| payload.get(4..).and_then(|rest| attribute(rest, 2)).and_then(number_be))
        })?;
        let mut request = Batch::default();
        request.message(label.clone(), GET_SET, DUMP, &MESSAGE, |a| a.text(1, &table.0));
        let sets =
            socket.dump(&request, |kind, payload| (kind == NEW_SET).then(|| Set::parse(table, payload)).flatten())?;
        let mut request = Batch::default();
        request.message(label, GET_CHAIN, DUMP, &MESSAGE, |a| a.text(1, &table.0));
        // The kernel lists the chains of all tables.
        let chains = socket
            .dump(&request, |kind, payload| (kind == NEW_CHAIN).then(|| Hooked::parse(table, payload)).flatten())?;
        Ok(flags.first().map(|flags| Self { flags: flags.unwrap_or(0), sets, chains }.sorted()))
    }

    fn sorted(mut self) -> Self {
        self.sets.sort();
        self.chains.sort();
        self
    }
}

impl Set {
    fn parse(table: &Table, payload: &[u8]) -> Option<Self> {
        let attributes = payload.get(4..)?;
        let number = |kind| attribute(attributes, kind).and_then(number_be);
        (text(attribute(attributes, 1)?) == table.0).then_some(())?;
        Some(Self {
            name: text(attribute(attributes, 2)?),
            flags: number(3).unwrap_or(0),
            key: (number(4).unwrap_or(0), number(5).unwrap_or(0)),
            value: number(6).map(|value_type| (value_type, number(7).unwrap_or(0))),
        })
    }
}

impl Hooked {
    fn parse(table: &Table, payload: &[u8]) -> Option<Self> {
        let attributes = payload.get(4..)?;
        (text(attribute(attributes, 1)?) == table.0).then_some(())?;
        let base = attribute(attributes, 4).map(|hook| {
            let number = |kind| attribute(hook, kind).and_then(number_be).unwrap_or(0);
            (attribute(attributes, 7).map(text).unwrap_or_default(), number(1), number(2).cast_signed())
        });
        Some(Self { name: text(attribute(attributes, 3)?), base })
    }
}

#[cfg(test)]
mod tests {
    use super::super::element::Element;
    use super::super::ruleset::Rules;
    use super::*;

    fn rules() -> Rules {
        Rules { ipv6: false, ipv6_forwarding_is_ours: false }
    }

    /// As the kernel of the machine says it, whichever that is.
    #[test]
    fn a_frame_that_somebody_changed_is_not_the_one_that_was_made() {
        let test = || {
            // SAFETY: the thread is fresh, and only its own network namespace changes.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            let (table, mut socket) = (Table("dozen".to_owned()), Socket::netfilter().unwrap());
            let wanted = Some(Frame::wanted(&rules().chains()));
            assert_eq!(Frame::read(&table, &mut socket).unwrap(), None);
            let subnet = ["10.0.0.0", "10.0.255.255"].map(|text| text.parse().unwrap());
            let mut element = [Element::interface(Map::Opened4, "up0"), Element::subnet("a", subnet[0], subnet[1])];
            element.sort();
            table.put(&mut socket, &rules(), &[], &element).unwrap();
            assert_eq!(Frame::read(&table, &mut socket).unwrap(), wanted);
            for change in [
                "add table inet dozen { flags dormant; }",
                "delete set inet dozen advertised",
                "add set inet dozen mine { type mark; }",
                "add chain inet dozen mine",
                "add chain inet dozen mine { type filter hook forward priority 0; policy drop; }",
                "delete table inet dozen ; add table inet dozen",
                "delete set inet dozen advertised ; add set inet dozen advertised { type mark; }",
                "flush chain inet dozen guard ; delete chain inet dozen guard ; add chain inet dozen guard",
                "flush chain inet dozen guard ; delete chain inet dozen guard ; \
                 add chain inet dozen guard { type filter hook prerouting priority 0; }",
            ] {
                let nft = std::process::Command::new("nft").arg(change).status().unwrap();
                assert!(nft.success(), "{change}");
                assert_ne!(Frame::read(&table, &mut socket).unwrap(), wanted, "{change}");
                table.put(&mut socket, &rules(), &element, &element).unwrap();
                assert_eq!(Frame::read(&table, &mut socket).unwrap(), wanted, "{change}");
                assert_eq!(table.read(&mut socket).unwrap(), element, "{change}");
            }
        };
        std::thread::spawn(test).join().unwrap();
    }
}
