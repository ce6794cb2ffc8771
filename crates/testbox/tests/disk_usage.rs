//! `system df` and du(1) agree.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use dozen_testbox::{Machine, image_archive};

fn du(machine: &Machine, path: &str) -> u64 {
    let path = machine.directory().join("data").join(path);
    let text = machine.run("du", &["-s", "--block-size=1", path.to_str().unwrap()]).text();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn sizes_are_within_a_hundredth_of_what_du_says() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let debian = image_archive("debian:bookworm-slim");
    engine.dozen(&["load", "--input", debian.to_str().unwrap()]).expect(0);
    // Some of it sparse, some of it small, some with two names.
    let script = "dd if=/dev/urandom of=/file bs=1M count=5 2>/dev/null; ln /file /again; dd if=/dev/zero of=/sparse \
                  bs=1 count=1 seek=200000000 2>/dev/null; cp -r /etc /data/; dd if=/dev/urandom of=/data/x bs=1M count=3 \
                  2>/dev/null; mkdir /many; for i in $(seq 300); do echo $i >/many/$i; done";
    engine.dozen(&["run", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c", script]).expect(0);
    engine.dozen(&["commit", "one", "two:1"]).expect(0);
    engine.dozen(&["volume", "create", "unused"]).expect(0);
    let json = engine.docker(&["system", "df", "--format", "{{json .}}"]).text();
    assert_eq!(json.lines().count(), 4, "{json}");
    let own = engine.dozen(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}"]).text();
    let docker = engine.docker(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}"]).text();
    assert_eq!(own, docker);
    assert!(
        own.contains("Images 3 1 ") && own.contains("Containers 1 0 ") && own.contains("Local Volumes 2 1 "),
        "{own}"
    );
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    stream.write_all(b"GET /v1.47/system/df HTTP/1.0\r\nHost: box\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let usage: serde_json::Value = serde_json::from_str(body).unwrap();
    let near = |what: &str, told: u64, measured: u64| {
        assert!(told.abs_diff(measured) * 100 <= measured, "{what}: told {told}, du says {measured}");
    };
    near("images", usage["LayersSize"].as_u64().unwrap(), du(&machine, "layers") + du(&machine, "content"));
    let id = engine.dozen(&["inspect", "--format", "{{.Id}}", "one"]).text();
    let upper = format!("containers/{}/upper", id.trim());
    near("container", usage["Containers"][0]["SizeRw"].as_u64().unwrap(), du(&machine, &upper));
    let volumes = usage["Volumes"].as_array().unwrap();
    let of = |name: &str| volumes.iter().find(|volume| volume["Name"] == name).unwrap()["UsageData"].clone();
    near("volume", of("data")["Size"].as_u64().unwrap(), du(&machine, "volumes/data/_data"));
    assert_eq!(of("data")["RefCount"], 1);
    assert_eq!(of("unused"), serde_json::json!({"Size": 0, "RefCount": 0}));
    // What one image shares with another is counted once.
    let images = usage["Images"].as_array().unwrap();
    let unique: u64 =
        images.iter().map(|image| image["Size"].as_u64().unwrap() - image["SharedSize"].as_u64().unwrap()).sum();
    let shared = images.iter().map(|image| image["SharedSize"].as_u64().unwrap()).max().unwrap();
    assert!(shared > 0);
    near("images' parts", unique + shared, usage["LayersSize"].as_u64().unwrap());
    engine.docker(&["system", "df", "-v"]).expect(0);
    let details = engine.dozen(&["system", "df", "-v"]).text();
    assert!(details.contains("Local Volumes space usage:") && details.contains("two"), "{details}");
}
