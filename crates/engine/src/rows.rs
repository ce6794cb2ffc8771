//! Containers and volumes in the ledger.

use std::collections::BTreeMap;

use dozen_ledger::rusqlite::{Connection, OptionalExtension, params};
use dozen_ledger::{Durability, Ledger, LedgerError, Migration};
use dozen_model::{ContainerId, ContainerName, ContainerSpec, ImageId, UserNamespace, VolumeName};
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::container::ids;
use crate::container::lifecycle::{Life, Wish};
use crate::container::restart::Restarts;
use crate::container::snapshot::Phase;

/// The engine's tables. The phase is JSON: it is read and written whole, by the container's owner.
pub(crate) const MIGRATION: Migration = Migration(
    "CREATE TABLE containers (
         id TEXT PRIMARY KEY,
         name TEXT NOT NULL UNIQUE,
         created TEXT NOT NULL,
         spec TEXT NOT NULL,
         phase TEXT NOT NULL
     ) STRICT;
     CREATE TABLE volumes (
         name TEXT PRIMARY KEY,
         labels TEXT NOT NULL,
         anonymous INTEGER NOT NULL,
         created TEXT NOT NULL
     ) STRICT;
     CREATE TABLE facts (
         name TEXT PRIMARY KEY,
         value TEXT NOT NULL
     ) STRICT;",
);

/// A wish stands beside the phase, and a removal knows whether volumes go with it: until now those of `--rm` did.
pub(crate) const WISHES: Migration = Migration(
    r#"ALTER TABLE containers ADD COLUMN wish TEXT NOT NULL DEFAULT '"none"';
       UPDATE containers SET phase = json_object('removing', json_object('volumes',
           json(CASE WHEN spec ->> '$.auto_remove' THEN 'true' ELSE 'false' END))) WHERE phase = '"removing"';"#,
);

/// A container's row.
pub(crate) struct ContainerRow {
    pub id: ContainerId,
    pub name: ContainerName,
    pub created: Timestamp,
    pub spec: ContainerSpec,
    pub phase: Phase,
    pub wish: Wish,
    pub restarts: Restarts,
    /// Failed checks of its health in a row.
    pub failing_streak: u32,
}

/// A volume's row in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeRow {
    pub name: VolumeName,
    pub labels: BTreeMap<String, String>,
    pub anonymous: bool,
    pub created: Timestamp,
    /// Of the driver.
    pub options: BTreeMap<String, String>,
}

/// What one cannot read is the ledger's fault, not the caller's.
pub(crate) fn corrupt(what: &str, error: impl std::fmt::Display) -> LedgerError {
    let words = format!("{what}: {error}");
    LedgerError::Statement(dozen_ledger::rusqlite::Error::ToSqlConversionFailure(words.into()))
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types have string keys only")
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, LedgerError> {
    serde_json::from_str(text).map_err(|error| corrupt(what, error))
}

/// Why there is no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotInserted {
    /// Somebody has the name.
    NameTaken(ContainerId),
    /// No such range of ids is free.
    NoIds,
}

/// The spec as it is in the row, with ids that it has from now on, if some are wanted. The row is there, power-safe, and
/// with it those of the volumes that were made for it.
pub(crate) fn insert_container(
    ledger: &Ledger,
    mut row: ContainerRow,
    volumes: Vec<VolumeRow>,
    ids: Option<ids::Wanted>,
) -> Result<Result<ContainerSpec, NotInserted>, LedgerError> {
    ledger.write(Durability::Power, move |connection| {
        if let Some(holder) = holder_of(connection, &row.name)? {
            return Ok(Err(NotInserted::NameTaken(holder)));
        }
        if let Some(ids) = &ids {
            match ids.choose(&ids::taken(connection)?) {
                Some(range) => row.spec.user_namespace = UserNamespace::Own(range),
                None => return Ok(Err(NotInserted::NoIds)),
            }
        }
        connection
            .prepare_cached(
                "INSERT INTO containers (id, name, created, spec, phase, wish) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                row.id.as_str(),
                row.name.as_str(),
                row.created.to_string(),
                json(&row.spec),
                json(&row.phase),
                json(&row.wish)
            ])?;
        volumes.iter().try_for_each(|volume| write_volume(connection, volume))?;
        Ok::<_, LedgerError>(Ok(row.spec))
    })
}

/// Whoever holds the name, if it is taken; else it is the container's, power-safe.
pub(crate) fn rename_container(
    ledger: &Ledger,
    id: ContainerId,
    name: ContainerName,
) -> Result<Result<(), ContainerId>, LedgerError> {
    ledger.write(Durability::Power, move |connection| {
        if let Some(holder) = holder_of(connection, &name)? {
            return Ok(Err(holder));
        }
        connection.execute("UPDATE containers SET name = ?2 WHERE id = ?1", params![id.as_str(), name.as_str()])?;
        Ok::<_, LedgerError>(Ok(()))
    })
}

fn holder_of(connection: &Connection, name: &ContainerName) -> Result<Option<ContainerId>, LedgerError> {
    let id: Option<String> = connection
        .prepare_cached("SELECT id FROM containers WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    id.map(|id| id.parse().map_err(|error| corrupt("a container's id", error))).transpose()
}

/// Kill-safe is enough for most: after a reboot nothing runs, and recovery finds that out by itself. Whether it is to run
/// then has to be power-safe ([`Life::runs_after_boot`]). What is essential is also written on a full disk.
pub(crate) async fn save_life(
    ledger: &Ledger,
    id: ContainerId,
    life: &Life,
    durability: Durability,
    essential: bool,
) -> Result<(), LedgerError> {
    let begins = matches!(life.phase, Phase::Starting { run: None });
    let (phase, wish, restarts) = (json(&life.phase), json(&life.wish), json(&life.restarts));
    let update = move |connection: &Connection| {
        let statement = "UPDATE containers SET phase = ?2, wish = ?3, restarts = ?4,
            failing_streak = CASE WHEN ?5 THEN 0 ELSE failing_streak END WHERE id = ?1";
        connection.prepare_cached(statement)?.execute(params![id.as_str(), phase, wish, restarts, begins])?;
        Ok(())
    };
    let (done, saved) = oneshot::channel();
    // Nobody waits for it any more if it cannot be sent.
    ledger.submit(durability, update.clone(), move |result| drop(done.send(result)));
    match saved.await.unwrap_or(Err(LedgerError::Closed)) {
        Err(LedgerError::Disk(_)) if essential => {
            let ledger = ledger.clone();
            let write = move || ledger.write_essential(durability, update);
            tokio::task::spawn_blocking(write).await.unwrap_or(Err(LedgerError::Closed))
        }
        other => other,
    }
}

/// A changed spec, power-safe. While a change is under way `before` is the one that it had: see `container/change.rs`.
pub(crate) fn save_spec(
    ledger: &Ledger,
    id: &ContainerId,
    spec: &ContainerSpec,
    before: Option<&ContainerSpec>,
) -> Result<(), LedgerError> {
    let (id, spec, before) = (id.clone(), json(spec), before.map(json));
    ledger.write(Durability::Power, move |connection| {
        let statement = "UPDATE containers SET spec = ?2, spec_before = ?3 WHERE id = ?1";
        connection.prepare_cached(statement)?.execute(params![id.as_str(), spec, before])?;
        Ok(())
    })
}

/// Containers whose change was interrupted, with the specs that they had before it.
pub(crate) fn specs_before(ledger: &Ledger) -> Result<Vec<(ContainerId, ContainerSpec)>, LedgerError> {
    ledger.read(|connection| {
        let mut statement =
            connection.prepare("SELECT id, spec_before FROM containers WHERE spec_before IS NOT NULL")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| {
            let (id, spec) = row?;
            let id = id.parse().map_err(|error| corrupt("a container's id", error))?;
            Ok((id, from_json("a container's spec before a change", &spec)?))
        })
        .collect()
    })
}

/// Kill-safe.
pub(crate) async fn save_failing_streak(ledger: &Ledger, id: ContainerId, streak: u32) -> Result<(), LedgerError> {
    let (done, saved) = oneshot::channel();
    let update = move |connection: &Connection| {
        let statement = "UPDATE containers SET failing_streak = ?2 WHERE id = ?1";
        connection.prepare_cached(statement)?.execute(params![id.as_str(), streak])?;
        Ok::<_, LedgerError>(())
    };
    ledger.submit(Durability::Kill, update, move |result| drop(done.send(result)));
    saved.await.unwrap_or(Err(LedgerError::Closed))
}

/// A container's row goes, and with it those of the volumes that were only its own: power-safe, all or nothing.
///
/// `used`: its images, which somebody has wanted up to this moment.
pub(crate) fn delete_container(
    ledger: &Ledger,
    id: ContainerId,
    volumes: Vec<VolumeName>,
    used: (Vec<ImageId>, i64),
) -> Result<(), LedgerError> {
    ledger.write_essential(Durability::Power, move |connection| {
        connection.execute("DELETE FROM containers WHERE id = ?1", [id.as_str()])?;
        for volume in &volumes {
            connection.execute("DELETE FROM volumes WHERE name = ?1", [volume.as_str()])?;
        }
        let (images, now_s) = &used;
        images.iter().try_for_each(|image| dozen_image::write_use(connection, image, *now_s))
    })
}

/// All of them.
pub(crate) fn containers(ledger: &Ledger) -> Result<Vec<ContainerRow>, LedgerError> {
    ledger.read(|connection| {
        let mut statement = connection
            .prepare("SELECT id, name, created, spec, phase, wish, restarts, failing_streak FROM containers")?;
        let rows = statement.query_map([], |row| {
            let text = |column| row.get::<_, String>(column);
            Ok(([text(0)?, text(1)?, text(2)?, text(3)?, text(4)?, text(5)?, text(6)?], row.get(7)?))
        })?;
        rows.map(|row| {
            let ([id, name, created, spec, phase, wish, restarts], failing_streak) = row?;
            Ok(ContainerRow {
                id: id.parse().map_err(|error| corrupt("a container's id", error))?,
                name: name.parse().map_err(|error| corrupt("a container's name", error))?,
                created: created.parse().map_err(|error| corrupt("a container's time", error))?,
                spec: from_json("a container's spec", &spec)?,
                phase: from_json("a container's phase", &phase)?,
                wish: from_json("a container's wish", &wish)?,
                restarts: from_json("a container's restarts", &restarts)?,
                failing_streak,
            })
        })
        .collect()
    })
}

/// Power-safe.
pub(crate) fn insert_volume(ledger: &Ledger, volume: VolumeRow) -> Result<(), LedgerError> {
    ledger.check_room()?;
    ledger.write(Durability::Power, move |connection| write_volume(connection, &volume))
}

fn write_volume(connection: &Connection, volume: &VolumeRow) -> Result<(), LedgerError> {
    connection.execute(
        "INSERT INTO volumes (name, labels, anonymous, created, options) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            volume.name.as_str(),
            json(&volume.labels),
            volume.anonymous,
            volume.created.to_string(),
            json(&volume.options)
        ],
    )?;
    Ok(())
}

/// Power-safe.
pub(crate) fn delete_volume(ledger: &Ledger, name: VolumeName) -> Result<(), LedgerError> {
    ledger.write_essential(Durability::Power, move |connection| {
        connection.execute("DELETE FROM volumes WHERE name = ?1", [name.as_str()])?;
        Ok(())
    })
}

/// All of them.
pub(crate) fn volumes(ledger: &Ledger) -> Result<Vec<VolumeRow>, LedgerError> {
    ledger.read(|connection| {
        let mut statement = connection.prepare("SELECT name, labels, created, options, anonymous FROM volumes")?;
        let rows = statement.query_map([], |row| {
            let text = |column| row.get::<_, String>(column);
            Ok(([text(0)?, text(1)?, text(2)?, text(3)?], row.get::<_, bool>(4)?))
        })?;
        rows.map(|row| {
            let ([name, labels, created, options], anonymous) = row?;
            Ok(VolumeRow {
                name: name.parse().map_err(|error| corrupt("a volume's name", error))?,
                labels: from_json::<BTreeMap<String, String>>("a volume's labels", &labels)?,
                anonymous,
                created: created.parse().map_err(|error| corrupt("a volume's time", error))?,
                options: from_json("a volume's options", &options)?,
            })
        })
        .collect()
    })
}

/// A fact about this engine, such as its id; `None` before it was first set.
pub(crate) fn fact<T: serde::de::DeserializeOwned>(
    ledger: &Ledger,
    name: &'static str,
) -> Result<Option<T>, LedgerError> {
    let text: Option<String> = ledger.read(move |connection| {
        let value =
            connection.query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| row.get(0)).optional()?;
        Ok::<_, LedgerError>(value)
    })?;
    text.map(|text| from_json(name, &text)).transpose()
}

/// Sets a fact, power-safe.
pub(crate) fn set_fact<T: serde::Serialize>(ledger: &Ledger, name: &'static str, value: &T) -> Result<(), LedgerError> {
    let value = json(value);
    ledger.write(Durability::Power, move |connection| {
        connection.execute(
            "INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            params![name, value],
        )?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{change, health, restart};

    fn open() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&directory.path().join("state.db"), &[MIGRATION, crate::volumes::OPTIONS]).unwrap();
        (directory, ledger)
    }

    #[test]
    fn facts_are_kept() {
        let (_directory, ledger) = open();
        assert_eq!(fact::<String>(&ledger, "id").unwrap(), None);
        set_fact(&ledger, "id", &"a").unwrap();
        set_fact(&ledger, "id", &"b").unwrap();
        assert_eq!(fact::<String>(&ledger, "id").unwrap().as_deref(), Some("b"));
    }

    /// Rows as the versions before wishes wrote them.
    #[test]
    fn an_interrupted_removal_of_an_older_dozen_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let old = Ledger::open(&path, &[MIGRATION]).unwrap();
        let insert = |id: char, spec: &'static str, phase: &'static str| {
            let row = [id.to_string().repeat(64), format!("name-{id}"), spec.into(), phase.into()];
            old.write(Durability::Power, move |connection| {
                let statement = "INSERT INTO containers (id, name, created, spec, phase) VALUES (?1, ?2, '', ?3, ?4)";
                Ok::<_, LedgerError>(connection.execute(statement, row)?)
            })
            .unwrap();
        };
        insert('a', r#"{"auto_remove":true}"#, r#""removing""#);
        insert('b', r#"{"auto_remove":false}"#, r#""removing""#);
        insert('c', r#"{"auto_remove":true}"#, r#"{"created":{"last_failure":null}}"#);
        drop(old);
        let ledger = Ledger::open(&path, &[MIGRATION, WISHES]).unwrap();
        let rows: Vec<(String, String)> = ledger
            .read(|connection| {
                let mut statement = connection.prepare("SELECT phase, wish FROM containers ORDER BY id")?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>();
                Ok::<_, LedgerError>(rows?)
            })
            .unwrap();
        let phases: Vec<Phase> = rows.iter().map(|(phase, _)| from_json("phase", phase).unwrap()).collect();
        let removing = |volumes| Phase::Removing { volumes, failure: None };
        assert_eq!(phases, [removing(true), removing(false), Phase::Created { last_failure: None }]);
        assert!(rows.iter().all(|(_, wish)| from_json::<Wish>("wish", wish).unwrap() == Wish::None));
    }

    #[test]
    fn what_a_spec_was_is_kept_while_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let migrations = [MIGRATION, WISHES, change::SPEC_BEFORE, restart::MIGRATION, health::MIGRATION];
        let ledger = Ledger::open(&directory.path().join("state.db"), &migrations).unwrap();
        let spec: ContainerSpec = from_json("an older spec", &older_spec()).unwrap();
        assert_eq!(spec.resources, dozen_model::ResourceSpec::default());
        let id: ContainerId = "a".repeat(64).parse().unwrap();
        let row = ContainerRow {
            id: id.clone(),
            name: "web".parse().unwrap(),
            created: "2026-01-02T03:04:05Z".parse().unwrap(),
            spec: spec.clone(),
            phase: Phase::Created { last_failure: None },
            wish: Wish::None,
            restarts: Restarts::default(),
            failing_streak: 0,
        };
        assert_eq!(insert_container(&ledger, row, Vec::new(), None).unwrap().unwrap(), spec);
        let kept = || containers(&ledger).unwrap().remove(0).spec;
        assert_eq!((kept(), specs_before(&ledger).unwrap()), (spec.clone(), Vec::new()));
        let mut after = spec.clone();
        after.resources.pids_max = Some(5);
        save_spec(&ledger, &id, &after, Some(&spec)).unwrap();
        assert_eq!((kept(), specs_before(&ledger).unwrap()), (after.clone(), vec![(id.clone(), spec)]));
        save_spec(&ledger, &id, &after, None).unwrap();
        assert_eq!((kept(), specs_before(&ledger).unwrap()), (after, Vec::new()));
    }

    #[test]
    fn ids_are_free_again_when_no_row_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let migrations =
            [MIGRATION, WISHES, change::SPEC_BEFORE, restart::MIGRATION, health::MIGRATION, ids::MIGRATION];
        let ledger = Ledger::open(&directory.path().join("state.db"), &migrations).unwrap();
        let pool: dozen_model::IdRange = "100000:200".parse().unwrap();
        let insert = |name: &str, wanted: bool| {
            let row = ContainerRow {
                id: ContainerId::random(),
                name: name.parse().unwrap(),
                created: "2026-01-02T03:04:05Z".parse().unwrap(),
                spec: from_json("an older spec", &older_spec()).unwrap(),
                phase: Phase::Created { last_failure: None },
                wish: Wish::None,
                restarts: Restarts::default(),
                failing_streak: 0,
            };
            let wanted = wanted.then(|| ids::Wanted { count: 100, pool, from: pool.first(), claimed: Vec::new() });
            insert_container(&ledger, row, Vec::new(), wanted).unwrap()
        };
        let own = |first| UserNamespace::Own(dozen_model::IdRange::new(first, 100).unwrap());
        assert_eq!(insert("none", false).unwrap().user_namespace, UserNamespace::Unsaid);
        assert_eq!(insert("one", true).unwrap().user_namespace, own(100_000));
        assert_eq!(insert("two", true).unwrap().user_namespace, own(100_100));
        assert!(matches!(insert("two", true), Err(NotInserted::NameTaken(_))));
        assert_eq!(insert("three", true), Err(NotInserted::NoIds));
        let one = containers(&ledger).unwrap().into_iter().find(|row| row.name.as_str() == "one").unwrap();
        assert_eq!(one.spec.user_namespace, own(100_000), "it is the row's");
        delete_container(&ledger, one.id, Vec::new(), (Vec::new(), 0)).unwrap();
        assert_eq!(insert("three", true).unwrap().user_namespace, own(100_000));
    }

    /// As an engine that knew of no limits wrote it.
    fn older_spec() -> String {
        r#"{"image":"sha256:aa","image_name":"x","process":{"entrypoint":[],"command":["a"],"environment":[],
            "working_directory":"/","user":"","terminal":false,"stdin":"closed",
            "attach":[false,false,false]},"hostname":null,"domainname":null,"labels":{},"stop":{"signal":15,
            "timeout_s":null},"mounts":[],"network":"none","exposed_ports":[],"ports":[],"publish_all":false,
            "extra_hosts":[],"isolation":{"privileged":false,"capabilities":{"add":[],"drop":[]},"read_only_root":false,
            "no_new_privileges":false,"seccomp":"default","unmasked_system_paths":false},"init":false,"auto_remove":false,
            "shm_size_bytes":1,"log":{"file_size_bytes":1,"files":1}}"#
            .replace("sha256:aa", &format!("sha256:{}", "a".repeat(64)))
    }

    #[test]
    fn volumes_are_kept() {
        let (_directory, ledger) = open();
        let row = VolumeRow {
            name: "data".parse().unwrap(),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            anonymous: true,
            created: "2026-01-02T03:04:05Z".parse().unwrap(),
            options: BTreeMap::from([("type".into(), "tmpfs".into())]),
        };
        insert_volume(&ledger, row.clone()).unwrap();
        assert_eq!(volumes(&ledger).unwrap(), std::slice::from_ref(&row));
        delete_volume(&ledger, row.name).unwrap();
        assert_eq!(volumes(&ledger).unwrap(), []);
    }
}
