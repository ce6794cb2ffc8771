//! Networks in the ledger.

use dozen_ledger::rusqlite::params;
use dozen_ledger::{Durability, Ledger, LedgerError, Migration};
use dozen_model::{ContainerId, ContainerSpec, NetworkId, NetworkName, NetworkSpec};
use dozen_network::BridgeAddresses;
use jiff::Timestamp;

use crate::container::lifecycle::Life;
use crate::rows::{corrupt, from_json, json};

/// Networks of the user's own. What every engine has is no row.
pub(crate) const NETWORKS: Migration = Migration(
    "CREATE TABLE networks (
         id TEXT PRIMARY KEY,
         name TEXT NOT NULL UNIQUE,
         created TEXT NOT NULL,
         spec TEXT NOT NULL,
         addresses TEXT NOT NULL
     ) STRICT;",
);

/// A network's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkRow {
    pub(crate) id: NetworkId,
    pub(crate) name: NetworkName,
    pub(crate) created: Timestamp,
    pub(crate) spec: NetworkSpec,
    pub(crate) addresses: BridgeAddresses,
}

/// Power-safe.
pub(crate) fn insert(ledger: &Ledger, row: NetworkRow) -> Result<(), LedgerError> {
    ledger.check_room()?;
    ledger.write(Durability::Power, move |connection| {
        connection.execute(
            "INSERT INTO networks (id, name, created, spec, addresses) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![row.id.as_str(), row.name.as_str(), row.created.to_string(), json(&row.spec), json(&row.addresses)],
        )?;
        Ok(())
    })
}

/// Power-safe.
pub(crate) fn delete(ledger: &Ledger, id: NetworkId) -> Result<(), LedgerError> {
    ledger.write_essential(Durability::Power, move |connection| {
        connection.execute("DELETE FROM networks WHERE id = ?1", [id.as_str()])?;
        Ok(())
    })
}

/// All of them.
pub(crate) fn all(ledger: &Ledger) -> Result<Vec<NetworkRow>, LedgerError> {
    ledger.read(|connection| {
        let mut statement = connection.prepare("SELECT id, name, created, spec, addresses FROM networks")?;
        let rows = statement.query_map([], |row| {
            let text = |column| row.get::<_, String>(column);
            Ok([text(0)?, text(1)?, text(2)?, text(3)?, text(4)?])
        })?;
        rows.map(|row| {
            let [id, name, created, spec, addresses] = row?;
            Ok(NetworkRow {
                id: id.parse().map_err(|error| corrupt("a network's id", error))?,
                name: name.parse().map_err(|error| corrupt("a network's name", error))?,
                created: created.parse().map_err(|error| corrupt("a network's time", error))?,
                spec: from_json("a network's spec", &spec)?,
                addresses: from_json("a network's addresses", &addresses)?,
            })
        })
        .collect()
    })
}

/// A container's places on networks: what was asked for and what its run has of it, in one step. Power-safe.
pub(crate) fn save_places(
    ledger: &Ledger,
    id: &ContainerId,
    spec: &ContainerSpec,
    life: &Life,
) -> Result<(), LedgerError> {
    let (id, spec, phase) = (id.clone(), json(spec), json(&life.phase));
    ledger.write_essential(Durability::Power, move |connection| {
        connection
            .execute("UPDATE containers SET spec = ?2, phase = ?3 WHERE id = ?1", params![id.as_str(), spec, phase])?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&directory.path().join("state.db"), &[NETWORKS]).unwrap();
        let row = NetworkRow {
            id: NetworkId::random(),
            name: "backend".parse().unwrap(),
            created: "2026-01-02T03:04:05Z".parse().unwrap(),
            spec: NetworkSpec { internal: true, ..NetworkSpec::default() },
            addresses: BridgeAddresses {
                name: "dz-0123456789ab".into(),
                ipv4_gateway: Some([172, 18, 0, 1].into()),
                ipv4_prefix_length: 16,
                ipv6_gateway: None,
                ipv6_prefix_length: 64,
            },
        };
        insert(&ledger, row.clone()).unwrap();
        assert_eq!(all(&ledger).unwrap(), std::slice::from_ref(&row));
        assert!(insert(&ledger, NetworkRow { id: NetworkId::random(), ..row.clone() }).is_err(), "the name is taken");
        delete(&ledger, row.id).unwrap();
        assert_eq!(all(&ledger).unwrap(), []);
    }
}
