use proptest::prelude::*;

use super::*;

/// As another party writes one.
pub(in crate::cgroup::systemd) fn message(
    kind: u8,
    fields: &[(u8, &str, &str)],
    reply_to: Option<u32>,
    signature: &str,
    body: &Writer,
) -> Vec<u8> {
    let mut message = Writer::default();
    message.byte(b'l').byte(kind).byte(0).byte(1).number(body.bytes.len() as u32).number(77);
    message.array(8, |array| {
        for (code, kind, text) in fields {
            array.align(8).byte(*code).signature(kind).text(text);
        }
        if let Some(serial) = reply_to {
            array.align(8).byte(5).signature("u").number(serial);
        }
        array.align(8).byte(8).signature("g").signature(signature);
    });
    message.align(8).bytes.extend(&body.bytes);
    message.bytes
}

fn job_removed() -> Vec<u8> {
    let mut body = Writer::default();
    body.number(7).text("/org/freedesktop/systemd1/job/7").text("a.scope").text("done");
    let fields =
        [(1, "o", "/x"), (2, "s", "org.freedesktop.systemd1.Manager"), (3, "s", "JobRemoved"), (7, "s", ":1.0")];
    message(4, &fields, None, "uoss", &body)
}

/// Byte by byte, as the specification's rules have it.
#[test]
fn a_call_is_written() {
    let call = Call { destination: "d", path: "/", interface: "i", method: "m" };
    let mut body = Writer::default();
    body.text("a").properties(&[("P", Value::Flag(true))]);
    let bytes = call.encode(3, "sa(sv)", &body);
    let expected: &[&[u8]] = &[
        b"l\x01\0\x01",
        &[32, 0, 0, 0, 3, 0, 0, 0, 76, 0, 0, 0],
        b"\x01\x01o\0\x01\0\0\0/\0\0\0\0\0\0\0",
        b"\x02\x01s\0\x01\0\0\0i\0\0\0\0\0\0\0",
        b"\x03\x01s\0\x01\0\0\0m\0\0\0\0\0\0\0",
        b"\x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0",
        b"\x08\x01g\0\x06sa(sv)\0",
        &[0, 0, 0, 0],
        // The body: a text, an array of 16 bytes at the next 8, in it a text and a variant.
        b"\x01\0\0\0a\0\0\0",
        &[16, 0, 0, 0, 0, 0, 0, 0],
        b"\x01\0\0\0P\0\x01b\0\0\0\0\x01\0\0\0",
    ];
    assert_eq!(bytes, expected.concat());
    assert_eq!(Message::length(bytes.first_chunk().unwrap()), Ok(bytes.len()));
}

#[test]
fn values_are_aligned() {
    let written = |value: Value| {
        let mut writer = Writer::default();
        writer.value(&value);
        writer.bytes
    };
    assert_eq!(written(Value::Number(5)), [&b"\x01t\0\0\0\0\0\0"[..], &[5, 0, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(written(Value::Bytes(vec![3])), b"\x02ay\0\x01\0\0\0\x03");
    assert_eq!(written(Value::Numbers(vec![9])), b"\x02au\0\x04\0\0\0\x09\0\0\0");
    assert_eq!(written(Value::Text("x".to_owned())), b"\x01s\0\0\x01\0\0\0x\0");
}

#[test]
fn messages_are_read() {
    let signal = Message::decode(&job_removed()).unwrap();
    assert_eq!((signal.kind, signal.member.as_str(), signal.sender.as_str()), (Kind::Signal, "JobRemoved", ":1.0"));
    assert_eq!(signal.texts().unwrap(), ["/org/freedesktop/systemd1/job/7", "a.scope", "done"]);
    let mut body = Writer::default();
    body.text("it is there");
    let error = Message::decode(&message(3, &[(4, "s", "x.Exists")], Some(4), "s", &body)).unwrap();
    assert_eq!((error.kind, error.reply_to, error.error_name.as_str()), (Kind::Error, Some(4), "x.Exists"));
    assert_eq!(error.texts().unwrap(), ["it is there"]);
}

#[test]
fn what_lies_about_its_length_is_refused() {
    let good = job_removed();
    for length in 0..good.len() {
        assert!(Message::decode(&good[..length]).is_err(), "{length}");
    }
    let mut long = good.clone();
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Message::length(long.first_chunk().unwrap()), Err(Malformed("too long")));
    let mut big_endian = good;
    big_endian[0] = b'B';
    assert!(Message::decode(&big_endian).is_err());
}

proptest! {
    /// Whatever comes, it is read or refused, and no more is held than was sent.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = Message::decode(&bytes) {
            let _ = message.texts();
        }
    }

    /// The same near a good one, where more of the code is reached.
    #[test]
    fn any_changed_message_is_survived(changes in proptest::collection::vec((0usize..200, any::<u8>()), 1..6)) {
        let mut bytes = job_removed();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert!(message.body.len() <= bytes.len());
            let _ = message.texts();
        }
    }
}
