//! PostgreSQL on a volume, under load while whatever stands around it is killed.

use std::io::{Error, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dozen_testbox::{Engine, MACHINE_ADDRESS, Machine, Side, until};

use crate::{Set, kill_the_keeper, with};

/// A connection that speaks the simple queries of PostgreSQL's protocol, version 3 (postgresql.org/docs/15,
/// "Frontend/Backend Protocol").
struct Client {
    stream: TcpStream,
}

impl Client {
    fn connect(machine: &Machine, side: Side, address: SocketAddr) -> std::io::Result<Self> {
        let mut client = Self { stream: machine.connect(side, address)? };
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        startup.extend(b"user\0postgres\0\0");
        let length = u32::try_from(startup.len() + 4).unwrap().to_be_bytes();
        client.stream.write_all(&[&length[..], &startup].concat())?;
        client.answer()?;
        Ok(client)
    }

    /// The first column of the rows, once the server says that all is done: what it was told to write is committed.
    fn query(&mut self, query: &str) -> std::io::Result<Vec<String>> {
        let length = u32::try_from(query.len() + 5).unwrap().to_be_bytes();
        self.stream.write_all(&[b"Q", &length[..], query.as_bytes(), b"\0"].concat())?;
        self.answer()
    }

    fn answer(&mut self) -> std::io::Result<Vec<String>> {
        let mut rows = Vec::new();
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body)?;
            match head[0] {
                b'Z' => return Ok(rows),
                // A count of columns (2 bytes), the first one's length (4), its text.
                b'D' => {
                    let length = u32::from_be_bytes([body[2], body[3], body[4], body[5]]) as usize;
                    rows.push(String::from_utf8_lossy(&body[6..6 + length]).into_owned());
                }
                b'E' => return Err(Error::other(String::from_utf8_lossy(&body).replace('\0', " "))),
                _ => {}
            }
        }
    }
}

const RUN: [&str; 10] =
    ["run", "-d", "--name", "db", "-p", "5432:5432", "-v", "pg:/var/lib/postgresql/data", "-e", CHECKSUMS];
/// Every page says whether it is what was written.
const CHECKSUMS: &str = "POSTGRES_INITDB_ARGS=--data-checksums";

fn started<'a>(machine: &'a Machine) -> Engine<'a> {
    let engine = with(machine, "postgres:15");
    engine.dozen(&[&RUN[..], &["postgres:15"]].concat()).expect(0);
    ready(machine);
    engine
}

fn ready(machine: &Machine) -> Client {
    let address = SocketAddr::new(MACHINE_ADDRESS, 5432);
    until("the database is ready", || Client::connect(machine, Side::Neighbour, address).ok())
}

#[test]
#[ignore = "heavy: an image of its own (cargo xtask test)"]
fn postgres_has_its_data_in_another_container_too() {
    let machine = Machine::new();
    let engine = started(&machine);
    let ask = |query: &str| engine.dozen(&["exec", "db", "psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc", query]);
    ask("CREATE TABLE things (name text); INSERT INTO things SELECT 'thing ' || n FROM generate_series(1, 1000) n")
        .expect(0);
    engine.dozen(&["stop", "db"]).expect(0);
    assert_eq!(engine.dozen(&["wait", "db"]).text(), "0\n");
    engine.dozen(&["rm", "db"]).expect(0);
    engine.dozen(&[&RUN[..], &["postgres:15"]].concat()).expect(0);
    ready(&machine);
    assert_eq!(ask("SELECT max(name) FROM things").text(), "thing 999\n");
    // Parallel workers use /dev/shm.
    let parallel = "SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SELECT count(*) FROM things";
    assert!(ask(parallel).text().ends_with("1000\n"));
}

/// One that writes rows as fast as they are acknowledged, on a connection that it makes again when it breaks.
struct Writer {
    number: usize,
    side: Side,
    address: IpAddr,
    /// The rows that the database said it had.
    acknowledged: Mutex<Vec<u64>>,
    written: AtomicU64,
    connections: AtomicU64,
}

impl Writer {
    fn new(number: usize, side: Side, address: IpAddr) -> Self {
        let (acknowledged, written, connections) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        Self { number, side, address, acknowledged, written, connections }
    }

    fn write(&self, machine: &Machine, stop: &AtomicBool) {
        let mut connection = None;
        for row in 0.. {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            if connection.is_none() {
                let address = SocketAddr::new(self.address, 5432);
                connection = Client::connect(machine, self.side, address).ok();
                self.connections.fetch_add(u64::from(connection.is_some()), Ordering::SeqCst);
            }
            let Some(client) = &mut connection else {
                std::thread::sleep(std::time::Duration::from_millis(10));
                continue;
            };
            match client.query(&format!("INSERT INTO load VALUES ({}, {row}, repeat('x', 500))", self.number)) {
                Ok(_) => {
                    self.acknowledged.lock().unwrap().push(row);
                    self.written.fetch_add(1, Ordering::SeqCst);
                }
                // Whether the row is there nobody knows: it is not one that was acknowledged.
                Err(_) => connection = None,
            }
        }
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The engine, the keeper and the database itself are killed under load. What is published by the kernel's translation
/// does not even lose its connections with the first two; a forward of the keeper's is made again; and no row that was
/// acknowledged is lost to any of them.
#[test]
#[ignore = "heavy: an image of its own (cargo xtask test)"]
fn postgres_loses_no_acknowledged_row() {
    let machine = Machine::new();
    let mut engine = started(&machine);
    ready(&machine).query("CREATE TABLE load (writer int, row int, filler text, PRIMARY KEY (writer, row))").unwrap();
    let writers: Vec<Writer> = (0..4)
        .map(|number| match number {
            0 => Writer::new(number, Side::Machine, Ipv6Addr::LOCALHOST.into()),
            _ => Writer::new(number, Side::Neighbour, MACHINE_ADDRESS),
        })
        .collect();
    let stop = AtomicBool::new(false);
    // Everyone goes on by fifty rows, which is more than was in flight.
    let go_on = |when: &str| {
        let before: Vec<u64> = writers.iter().map(|writer| writer.written.load(Ordering::SeqCst)).collect();
        for (writer, before) in writers.iter().zip(before) {
            until(&format!("writer {} goes on {when}", writer.number), || {
                (writer.written.load(Ordering::SeqCst) > before + 50).then_some(())
            });
        }
    };
    std::thread::scope(|scope| {
        let _stop = Set(&stop);
        for writer in &writers {
            let (machine, stop) = (&machine, &stop);
            scope.spawn(move || writer.write(machine, stop));
        }
        go_on("at first");
        engine.kill();
        go_on("without an engine");
        engine.restart();
        go_on("under a new engine");
        assert!(writers.iter().all(|writer| writer.connections() == 1), "the engine's death cost a connection");
        kill_the_keeper(&machine);
        go_on("under a new keeper");
        assert!(writers[1..].iter().all(|writer| writer.connections() == 1), "the keeper's death cost a connection");
        engine.dozen(&["kill", "db"]).expect(0);
        assert_eq!(engine.dozen(&["wait", "db"]).text(), "137\n");
        engine.dozen(&["start", "db"]).expect(0);
        go_on("after the database was killed");
    });

    let mut client = ready(&machine);
    for writer in &writers {
        let found = client.query(&format!("SELECT row FROM load WHERE writer = {}", writer.number)).unwrap();
        let found: std::collections::HashSet<u64> = found.iter().map(|row| row.parse().unwrap()).collect();
        let acknowledged = writer.acknowledged.lock().unwrap();
        let lost: Vec<_> = acknowledged.iter().filter(|row| !found.contains(row)).collect();
        assert!(lost.is_empty(), "writer {} lost {lost:?} of {}", writer.number, acknowledged.len());
    }
    // By the database's own judgement: every index has every row, every page its checksum.
    let check =
        ["exec", "db", "pg_amcheck", "-h", "127.0.0.1", "-U", "postgres", "--install-missing", "--heapallindexed"];
    engine.dozen(&[&check[..], &["postgres"]].concat()).expect(0);
    engine.dozen(&["stop", "db"]).expect(0);
    let sums = ["run", "--rm", "-v", "pg:/var/lib/postgresql/data", "postgres:15", "pg_checksums", "--check"];
    assert!(engine.dozen(&sums).text().contains("Bad checksums:  0"));
}
