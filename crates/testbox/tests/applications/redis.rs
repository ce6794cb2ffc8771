//! Redis: what it was told to keep is there after it was killed.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dozen_testbox::{MACHINE_ADDRESS, Machine, Side, until};

use crate::{Set, with};

/// A connection that speaks as much of RESP as inline commands need (redis.io, "Redis serialization protocol").
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(machine: &Machine) -> Option<Self> {
        let stream = machine.connect(Side::Neighbour, SocketAddr::new(MACHINE_ADDRESS, 6379)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream: BufReader::new(stream) })
    }

    /// The answer: a simple string, a number, or a string; `None` when there is none or the connection has ended.
    fn ask(&mut self, command: &str) -> Option<String> {
        self.stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut line = || -> Option<String> {
            let mut line = String::new();
            self.stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
            Some(line.trim_end().to_owned())
        };
        let first = line()?;
        match first.split_at_checked(1)? {
            ("+" | ":", rest) => Some(rest.to_owned()),
            ("$", length) => {
                let length: usize = length.parse().ok()?;
                let mut bytes = vec![0; length + 2];
                std::io::Read::read_exact(&mut self.stream, &mut bytes).ok()?;
                Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
            }
            ("-", error) if error.starts_with("LOADING") => None,
            _ => panic!("redis answers '{command}' with {first}"),
        }
    }
}

fn answering(machine: &Machine) -> Client {
    until("redis answers", || {
        let mut client = Client::connect(machine)?;
        (client.ask("PING").as_deref() == Some("PONG")).then_some(client)
    })
}

#[test]
#[ignore = "heavy: an image of its own (cargo xtask test)"]
fn redis_keeps_its_data() {
    let machine = Machine::new();
    let engine = with(&machine, "redis:7");
    let run = ["run", "-d", "--name", "store", "-p", "6379:6379", "-v", "redis:/data", "redis:7"];
    engine.dozen(&run).expect(0);
    let mut client = answering(&machine);
    assert_eq!(client.ask("SET colour green").as_deref(), Some("OK"));
    assert_eq!(client.ask("SAVE").as_deref(), Some("OK"));
    engine.dozen(&["rm", "-f", "store"]).expect(0);
    engine.dozen(&run).expect(0);
    assert_eq!(answering(&machine).ask("GET colour").as_deref(), Some("green"));
    assert_eq!(engine.dozen(&["exec", "store", "id", "-un"]).text(), "redis\n");
}

/// Killed in the middle of writing, with its log of commands synced once a second: what the disk had been told of
/// before is there, and of the rest a beginning without a gap.
#[test]
#[ignore = "heavy: an image of its own (cargo xtask test)"]
fn redis_is_killed_while_it_writes_its_log() {
    let machine = Machine::new();
    let engine = with(&machine, "redis:7");
    let run = ["run", "-d", "--name", "store", "-p", "6379:6379", "-v", "redis:/data", "redis:7", "redis-server"];
    let keep = ["--protected-mode", "no", "--appendonly", "yes", "--appendfsync", "everysec"];
    engine.dozen(&[&run[..], &keep[..]].concat()).expect(0);
    let mut client = answering(&machine);

    let push = |client: &mut Client, number: u64| client.ask(&format!("RPUSH numbers {number}"));
    for number in 0..1000 {
        assert_eq!(push(&mut client, number), Some((number + 1).to_string()));
    }
    until("the first thousand is on disk", || {
        let persistence = client.ask("INFO persistence").unwrap();
        let zero = |field: &str| persistence.lines().any(|line| line == format!("{field}:0"));
        (zero("aof_pending_bio_fsync") && zero("aof_buffer_length")).then_some(())
    });
    let (acknowledged, stop) = (AtomicU64::new(1000), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let at_the_end = Set(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let number = acknowledged.load(Ordering::SeqCst);
                let Some(_) = push(&mut client, number) else { break };
                acknowledged.store(number + 1, Ordering::SeqCst);
            }
        });
        until("it is written to", || (acknowledged.load(Ordering::SeqCst) > 3000).then_some(()));
        engine.dozen(&["kill", "store"]).expect(0);
        drop(at_the_end);
    });
    assert_eq!(engine.dozen(&["wait", "store"]).text(), "137\n");
    engine.dozen(&["start", "store"]).expect(0);

    let mut client = answering(&machine);
    let length: u64 = client.ask("LLEN numbers").unwrap().parse().unwrap();
    // The last one may have been written and not been answered any more.
    let written = acknowledged.load(Ordering::SeqCst) + 1;
    assert!((1000..=written).contains(&length), "{length} of {written}");
    for number in 0..length {
        assert_eq!(client.ask(&format!("LINDEX numbers {number}")), Some(number.to_string()));
    }
}
