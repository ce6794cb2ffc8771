//! Conversations with a manager that answers by heart.

use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use super::message::tests::message;
use super::message::{Message, PREFIX_BYTES};
use super::*;

/// What is answered to a method: whole messages, with the serial of what they answer put in.
type Answer = Box<dyn Fn(u32) -> Vec<Vec<u8>> + Send>;

/// Reads a greeting, then one message for each expected method. Ends when there are no more.
fn manager(mut stream: UnixStream, script: Vec<(&'static str, Answer)>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut greeting = Vec::new();
        let mut read_line = |stream: &mut UnixStream| {
            greeting.clear();
            while !greeting.ends_with(b"\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                greeting.push(byte[0]);
            }
            String::from_utf8(greeting.clone()).unwrap()
        };
        let uid: String = rustix::process::geteuid().as_raw().to_string().bytes().map(|d| format!("{d:02x}")).collect();
        assert_eq!(read_line(&mut stream), format!("\0AUTH EXTERNAL {uid}\r\n"));
        // It comes before we answer: a call that came with it would not be looked at.
        assert_eq!(read_line(&mut stream), "BEGIN\r\n");
        stream.write_all(b"OK 0123456789abcdef\r\n").unwrap();
        for (method, answer) in script {
            let mut prefix = [0; PREFIX_BYTES];
            stream.read_exact(&mut prefix).unwrap();
            let mut bytes = prefix.to_vec();
            bytes.resize(Message::length(&prefix).unwrap(), 0);
            stream.read_exact(&mut bytes[PREFIX_BYTES..]).unwrap();
            assert_eq!(Message::decode(&bytes).unwrap().member, method);
            let serial = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            for message in answer(serial) {
                stream.write_all(&message).unwrap();
            }
        }
    })
}

const SYSTEMD: (u8, &str, &str) = (7, "s", ":1.0");

fn returns(serial: u32) -> Vec<u8> {
    message(2, &[SYSTEMD], Some(serial), "", &Writer::default())
}

fn job(serial: u32, path: &str) -> Vec<u8> {
    let mut body = Writer::default();
    body.text(path);
    message(2, &[SYSTEMD], Some(serial), "o", &body)
}

fn removed(sender: &str, path: &str, result: &str) -> Vec<u8> {
    let mut body = Writer::default();
    body.number(1).text(path).text("x.scope").text(result);
    let manager = "org.freedesktop.systemd1.Manager";
    message(4, &[(2, "s", manager), (3, "s", "JobRemoved"), (7, "s", sender)], None, "uoss", &body)
}

fn refusal(serial: u32, name: &str) -> Vec<u8> {
    let mut body = Writer::default();
    body.text("said why");
    let name = format!("org.freedesktop.systemd1.{name}");
    message(3, &[(4, "s", name.as_str()), SYSTEMD], Some(serial), "s", &body)
}

/// Runs a conversation; on a bus it begins with three calls more.
fn converse<T>(
    is_bus: bool,
    script: Vec<(&'static str, Answer)>,
    speak: impl FnOnce(&mut Connection) -> Result<T, RuntimeError>,
) -> Result<T, String> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut whole: Vec<(&'static str, Answer)> = Vec::new();
    if is_bus {
        let name = |serial| {
            let mut body = Writer::default();
            body.text(":1.7");
            vec![message(2, &[], Some(serial), "s", &body)]
        };
        whole.push(("Hello", Box::new(name)));
        whole.push(("AddMatch", Box::new(|serial| vec![returns(serial)])));
        whole.push(("Subscribe", Box::new(|serial| vec![returns(serial)])));
    }
    whole.extend(script);
    let manager = manager(theirs, whole);
    let spoken = speak(&mut Connection::over(ours, is_bus).unwrap()).map_err(|error| error.to_string());
    manager.join().unwrap();
    spoken
}

fn scope() -> Scope {
    Scope::parse("system.slice:dozen:x").unwrap().unwrap()
}

#[test]
fn a_scope_is_started_when_its_job_is_done() {
    for is_bus in [false, true] {
        let answer = |serial| {
            // Ours has ended before we hear its name; others' jobs and others' lies are passed over.
            let all = [
                removed(":1.0", "/j/2", "failed"),
                removed(":6.6", "/j/1", "failed"),
                job(serial, "/j/1"),
                removed(":1.0", "/j/1", "done"),
            ];
            all.to_vec()
        };
        let start = |connection: &mut Connection| scope().start_over(connection, 1, true);
        converse(is_bus, vec![("StartTransientUnit", Box::new(answer))], start).unwrap();
    }
}

#[test]
fn what_has_failed_before_is_out_of_the_way() {
    let done = |serial| vec![job(serial, "/j/1"), removed(":1.0", "/j/1", "done")];
    let script: Vec<(&str, Answer)> = vec![
        ("StartTransientUnit", Box::new(|serial| vec![refusal(serial, "UnitExists")])),
        ("ResetFailedUnit", Box::new(|serial| vec![returns(serial)])),
        ("StartTransientUnit", Box::new(done)),
    ];
    converse(false, script, |connection| scope().start_over(connection, 1, true)).unwrap();
}

#[test]
fn refusals_are_told() {
    let start = |connection: &mut Connection| scope().start_over(connection, 1, true);
    let refuse = |name: &'static str| -> Answer { Box::new(move |serial| vec![refusal(serial, name)]) };
    let script = vec![("StartTransientUnit", refuse("AccessDenied"))];
    assert_eq!(converse(false, script, start).unwrap_err(), "start dozen-x.scope: said why");
    let script = vec![
        ("StartTransientUnit", refuse("UnitExists")),
        ("ResetFailedUnit", refuse("NoSuchUnit")),
        ("StartTransientUnit", refuse("UnitExists")),
    ];
    assert_eq!(converse(false, script, start).unwrap_err(), "systemd has a unit dozen-x.scope already");
    let failed = |serial| vec![job(serial, "/j/1"), removed(":1.0", "/j/1", "canceled")];
    let script: Vec<(&str, Answer)> =
        vec![("StartTransientUnit", Box::new(failed)), ("ResetFailedUnit", Box::new(|serial| vec![returns(serial)]))];
    assert!(converse(false, script, start).unwrap_err().contains("\"canceled\""));
    // Nothing at all, and the connection is over.
    let script: Vec<(&str, Answer)> = vec![("StartTransientUnit", Box::new(|_| Vec::new()))];
    assert!(converse(false, script, start).unwrap_err().contains("closed the connection"));
    let script: Vec<(&str, Answer)> = vec![("StartTransientUnit", Box::new(|_| vec![vec![0xff; 64]]))];
    assert!(converse(false, script, start).unwrap_err().contains("not a message"));
}

#[test]
fn a_scope_that_is_gone_is_stopped() {
    let script: Vec<(&str, Answer)> = vec![
        ("StopUnit", Box::new(|serial| vec![refusal(serial, "NoSuchUnit")])),
        ("ResetFailedUnit", Box::new(|serial| vec![refusal(serial, "NoSuchUnit")])),
    ];
    converse(false, script, |connection| scope().stop_over(connection)).unwrap();
}

#[test]
fn limits_are_in_force_when_the_manager_comes_round() {
    let script: Vec<(&str, Answer)> = vec![
        ("SetUnitProperties", Box::new(|serial| vec![returns(serial)])),
        ("Ping", Box::new(|serial| vec![returns(serial)])),
    ];
    let tasks = [("TasksMax", Value::Number(5))];
    converse(false, script, |connection| scope().limit_over(connection, &tasks, None)).unwrap();
    // A manager that knows of no idleness refuses the value, and all else is in force.
    let script: Vec<(&str, Answer)> = vec![
        ("SetUnitProperties", Box::new(|serial| vec![returns(serial)])),
        ("SetUnitProperties", Box::new(|serial| vec![refusal(serial, "InvalidArgs")])),
        ("Ping", Box::new(|serial| vec![returns(serial)])),
    ];
    let idle = Some(("CPUWeight", Value::Number(0)));
    converse(false, script, |connection| scope().limit_over(connection, &tasks, idle)).unwrap();
}

#[test]
fn a_machine_goes_down_when_its_target_has_a_job() {
    let asked = |number: u32, kind: &'static str| {
        let answer = move |serial| {
            let mut body = Writer::default();
            body.signature(kind).align(8).number(number).text("/org/freedesktop/systemd1/job/7");
            vec![message(2, &[SYSTEMD], Some(serial), "v", &body)]
        };
        converse(false, vec![("Get", Box::new(answer))], shutdown::has_shutdown_job)
    };
    assert_eq!(asked(0, "(uo)"), Ok(false));
    assert_eq!(asked(7, "(uo)"), Ok(true));
    assert!(asked(7, "(so)").unwrap_err().contains("another type"));
    let refused: Vec<(&str, Answer)> = vec![("Get", Box::new(|serial| vec![refusal(serial, "AccessDenied")]))];
    let error = converse(false, refused, shutdown::has_shutdown_job).unwrap_err();
    assert_eq!(error, "ask systemd for shutdown.target: said why");
}

#[test]
fn names_of_scopes() {
    let directory = |name: &str| Scope::parse(name).unwrap().and_then(|scope| scope.directory());
    assert_eq!(directory("system.slice:dozen:x").unwrap(), "system.slice/dozen-x.scope");
    assert_eq!(directory(":crio:x").unwrap(), "system.slice/crio-x.scope");
    assert_eq!(directory("a-b-c.slice::x").unwrap(), "a.slice/a-b.slice/a-b-c.slice/x.scope");
    assert_eq!(directory("-.slice:p:x").unwrap(), "p-x.scope");
    for bad in
        ["a:b:c", "a--b.slice:p:x", ".slice:p:x", "a.slice:p:../x", "a.slice:p/q:x", "a.slice:p:x y", "a-.slice:p:x"]
    {
        assert!(directory(bad).is_err(), "{bad}");
    }
    for other in ["/a:b:c", "/dozen/x", "a:b", "a:b:c:d", "x"] {
        assert!(Scope::parse(other).is_none(), "{other}");
    }
}
