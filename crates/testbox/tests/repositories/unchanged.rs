//! ADD of a URL: what its server says has not changed is not sent again.

use std::sync::{Arc, Mutex};

use dozen_testbox::{Machine, NEIGHBOUR_ADDRESS, Side};

use super::server::{answer, serve};
use super::{build, with_busybox};

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let machine = Machine::new();
    let mut engine = with_busybox(&machine);
    let text = Arc::new(Mutex::new("one".to_owned()));
    let now = text.clone();
    let log = serve(&machine, Side::Neighbour, move |request| {
        let text = now.lock().unwrap().clone();
        let field = |name: &str| request.fields.get(name).cloned().unwrap_or_default();
        let (etag, date) = (format!("\"{text}\""), "Sun, 06 Nov 1994 08:49:37 GMT");
        match request.path.as_str() {
            "/etag" if field("if-none-match") == etag => answer("304 Not Modified", &[&format!("ETag: {etag}")], b""),
            "/etag" => answer("200 OK", &[&format!("ETag: {etag}")], text.as_bytes()),
            "/dated" if field("if-modified-since") == date => answer("304 Not Modified", &[], b""),
            "/dated" => {
                let fields = [&format!("Last-Modified: {date}"), "Date: Mon, 07 Nov 1994 08:49:37 GMT"];
                answer("200 OK", &fields, text.as_bytes())
            }
            _ => answer("200 OK", &[], text.as_bytes()),
        }
    });
    // What was asked for since the last look.
    let asked = || std::mem::take(&mut *log.lock().unwrap());
    let adds = |path: &str, flags: &[&str], more: &str| {
        let dockerfile = format!("FROM busybox\n{more}ADD http://{NEIGHBOUR_ADDRESS}:8000/{path} /a\nCMD cat /a\n");
        build(&machine, &[&["-t", "made"], flags].concat(), &dockerfile).expect(0)
    };
    for path in ["etag", "dated"] {
        adds(path, &[], "");
        assert_eq!(asked(), [format!("GET /{path}? 200")]);
        let again = adds(path, &[], "");
        assert_eq!(asked(), [format!("GET /{path}? 304")]);
        assert!(again.err.contains("CACHED"), "{}", again.err);
    }
    // Nothing that was made of it is there, or is wanted: it is fetched, and not asked for twice.
    for (flags, more) in [(&["--no-cache"][..], ""), (&[], "RUN true >/x\n")] {
        adds("etag", flags, more);
        assert_eq!(asked(), ["GET /etag? 200"]);
    }
    engine.dozen(&["builder", "prune", "-af"]).expect(0);
    engine.dozen(&["rmi", "made"]).expect(0);
    adds("etag", &[], "");
    assert_eq!(asked(), ["GET /etag? 200"]);
    // Another engine knows it, too, whatever became of this one.
    engine.kill();
    engine.restart();
    adds("etag", &[], "");
    assert_eq!(asked(), ["GET /etag? 304"]);

    *text.lock().unwrap() = "two".to_owned();
    let changed = adds("etag", &[], "");
    assert_eq!(asked(), ["GET /etag? 200"]);
    assert!(!changed.err.contains("CACHED"), "{}", changed.err);
    assert_eq!(engine.dozen(&["run", "--rm", "--network", "none", "made"]).text(), "two");
    adds("etag", &[], "");
    assert_eq!(asked(), ["GET /etag? 304"]);
    // Who says nothing of a file is asked for it each time.
    for _ in 0..2 {
        adds("plain", &[], "");
        assert_eq!(asked(), ["GET /plain? 200"]);
    }
}
