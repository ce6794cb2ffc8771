//! The row of requests, in an order that makes every kind of thing once. It is played on an engine that has nothing yet.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use dozen_testbox::{image_archive, until};
use serde_json::{Map, Value, json};

use crate::http::{self, Response};
use crate::{Answer, shape};

/// Step → answer.
pub type Recording = BTreeMap<String, Answer>;

/// Plays the row on the engine that listens there.
pub fn play(socket: &Path, version: &str) -> Recording {
    let mut player = Player { socket, version, answers: Recording::new() };
    player.host();
    player.images();
    player.networks_and_volumes();
    player.a_plain_container();
    player.a_container_with_everything();
    player.one_that_ends();
    player.refusals();
    player.swarm();
    player.events();
    player.leave_nothing();
    player.answers
}

struct Player<'a> {
    socket: &'a Path,
    version: &'a str,
    answers: Recording,
}

impl Player<'_> {
    fn host(&mut self) {
        self.get("/_ping");
        self.ask("HEAD", "/_ping", &Value::Null);
        self.get("/version");
        self.get("/info");
        self.get("/plugins");
    }

    fn images(&mut self) {
        let imported = "/images/create?fromSrc=-&repo=busybox&tag=latest&changes=ENV%20A%3Db&changes=LABEL%20c%3Dd";
        self.record("POST /images/create (import)", "POST", imported, "application/x-tar", &busybox_layer());
        self.get("/images/json");
        self.get("/images/json?shared-size=1");
        self.get("/images/busybox/json");
        self.get("/images/busybox/history");
        self.post("/images/busybox/tag?repo=other&tag=1", &Value::Null);
        self.ask("DELETE", "/images/other:1", &Value::Null);
    }

    fn networks_and_volumes(&mut self) {
        let subnet = json!({"Subnet": "10.99.0.0/24", "Gateway": "10.99.0.1", "IPRange": "10.99.0.128/25"});
        self.post("/volumes/create", &json!({"Name": "data", "Labels": {"a": "b"}}));
        self.post("/volumes/create", &json!({"Name": "bare"}));
        self.post(
            "/networks/create",
            &json!({
                "Name": "back", "Labels": {"a": "b"}, "IPAM": {"Config": [subnet]}, "CheckDuplicate": true,
            }),
        );
        self.post("/networks/create", &json!({"Name": "bare", "Internal": true}));
        self.get("/volumes");
        self.get("/volumes/data");
        self.get("/volumes/bare");
        self.get("/networks");
        for name in ["bridge", "host", "none", "back", "bare"] {
            self.get(&format!("/networks/{name}"));
        }
    }

    fn a_plain_container(&mut self) {
        self.post("/containers/create?name=plain", &json!({"Image": "busybox", "Cmd": ["sleep", "1000"]}));
        self.named("of one that was created", "GET", "/containers/plain/json", &Value::Null);
        self.post("/containers/plain/start", &Value::Null);
        self.named("a second time", "POST", "/containers/plain/start", &Value::Null);
        self.get("/containers/plain/json");
        self.get("/containers/json");
        self.get("/networks/bridge");
        self.get("/containers/plain/stats?stream=0");
        self.get("/containers/plain/stats?stream=0&one-shot=1");
        self.get("/containers/plain/changes");
        let exec = self.post("/containers/plain/exec", &json!({"Cmd": ["touch", "/new"], "AttachStdout": true}));
        let exec = exec["Id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/exec/{exec}");
        self.named("of one that was created", "GET", &format!("{path}/json"), &Value::Null);
        self.post(&format!("{path}/start"), &json!({"Detach": true}));
        until("the exec has ended", || (self.quiet(&format!("{path}/json"))["Running"] == json!(false)).then_some(()));
        self.get(&format!("{path}/json"));
        self.named("with a change", "GET", "/containers/plain/changes", &Value::Null);
        self.post("/containers/plain/update", &json!({"CpuShares": 512}));
        self.post("/containers/plain/rename?name=renamed", &Value::Null);
        self.post("/containers/renamed/pause", &Value::Null);
        self.named("of one that is paused", "GET", "/containers/renamed/json", &Value::Null);
        self.named("of one that is paused", "POST", "/containers/renamed/pause", &Value::Null);
        self.post("/containers/renamed/unpause", &Value::Null);
        self.ask("HEAD", "/containers/renamed/archive?path=/bin", &Value::Null);
        self.post("/networks/back/connect", &json!({"Container": "renamed", "EndpointConfig": {"Aliases": ["web"]}}));
        self.named("of two networks", "GET", "/containers/renamed/json", &Value::Null);
        self.named("with a container", "GET", "/networks/back", &Value::Null);
        self.post("/networks/back/disconnect", &json!({"Container": "renamed"}));
        self.get("/containers/renamed/logs?stdout=1");
        self.named("of one that runs", "DELETE", "/containers/renamed", &Value::Null);
        self.post("/commit?container=renamed&repo=made", &json!({}));
        self.named("of a commit", "GET", "/images/made/json", &Value::Null);
        self.post("/containers/renamed/kill?signal=KILL", &Value::Null);
        self.post("/containers/renamed/wait", &Value::Null);
        self.named("of one that was killed", "GET", "/containers/renamed/json", &Value::Null);
        self.named("of one that does not run", "POST", "/containers/renamed/kill", &Value::Null);
        self.named("of one that does not run", "POST", "/containers/renamed/exec", &json!({"Cmd": ["true"]}));
        self.named("of one that does not run", "POST", "/containers/renamed/stop", &Value::Null);
        self.named("of one that does not run", "POST", "/containers/renamed/pause", &Value::Null);
        self.ask("DELETE", "/containers/renamed?v=1", &Value::Null);
    }

    fn a_container_with_everything(&mut self) {
        let body = json!({
            "Image": "busybox", "Cmd": ["-c", "echo said; sleep 1000"], "Entrypoint": ["sh"],
            "Env": ["E=f"], "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
            "Hostname": "front", "Domainname": "example.org", "User": "0:0", "WorkingDir": "/tmp",
            "StopSignal": "SIGINT", "StopTimeout": 3, "Volumes": {"/anonymous": {}}, "OpenStdin": true, "StdinOnce": true,
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Timeout": 9_000_000_000_u64,
                "Retries": 3, "StartPeriod": 1_000_000_000},
            "HostConfig": {
                "Binds": ["data:/data:ro", "/etc:/given"],
                "Mounts": [{"Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": {"SizeBytes": 65536}},
                    {"Type": "volume", "Source": "bare", "Target": "/bare", "VolumeOptions": {"NoCopy": true}}],
                "Tmpfs": {"/run": "size=1m"}, "NetworkMode": "back", "AutoRemove": false,
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
                "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
                "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"], "Dns": ["192.0.2.1"], "DnsSearch": ["example.org"],
                "DnsOptions": ["ndots:1"], "ExtraHosts": ["db:192.0.2.2"], "GroupAdd": ["7"], "Init": true,
                "Memory": 67108864, "CpuShares": 512, "PidsLimit": 50, "OomScoreAdj": 100, "ShmSize": 1048576,
                "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}], "Sysctls": {"net.core.somaxconn": "9"},
                "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": true,
                "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nil", "CgroupPermissions": "rw"}],
            },
            "NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": ["web"],
                "IPAMConfig": {"IPv4Address": "10.99.0.200"}}}},
        });
        self.post("/containers/create?name=full", &body);
        self.post("/containers/full/start", &Value::Null);
        until("it is healthy", || {
            (self.quiet("/containers/full/json")["State"]["Health"]["Status"] == json!("healthy")).then_some(())
        });
        self.get("/containers/full/json");
        self.get("/containers/json?all=1&size=1");
        self.get("/containers/full/json?size=1");
        self.named("with a container", "GET", "/networks/back", &Value::Null);
        self.get("/system/df");
        self.named("while it is used", "DELETE", "/volumes/data", &Value::Null);
        self.named("while it is used", "DELETE", "/networks/back", &Value::Null);
        self.named("while it is used", "DELETE", "/images/busybox", &Value::Null);
        self.post("/containers/full/stop?t=0", &Value::Null);
        self.ask("DELETE", "/containers/full?v=1&force=1", &Value::Null);
    }

    fn one_that_ends(&mut self) {
        self.post(
            "/containers/create?name=ends",
            &json!({"Image": "busybox", "Cmd": ["sh", "-c", "exit 3"], "Tty": true}),
        );
        self.post("/containers/ends/start", &Value::Null);
        self.post("/containers/ends/wait", &Value::Null);
        self.get("/containers/ends/json");
        self.named("of one that has ended", "GET", "/containers/json?all=1", &Value::Null);
        self.get("/containers/ends/logs?stdout=1&stderr=1");
        self.named("of one that has ended", "GET", "/containers/ends/stats?stream=0", &Value::Null);
        self.post("/containers/create?name=missing", &json!({"Image": "busybox", "Cmd": ["no-such-program"]}));
        self.post("/containers/missing/start", &Value::Null);
        self.named("of one that could not start", "GET", "/containers/missing/json", &Value::Null);
        self.post("/containers/prune", &Value::Null);
        self.post("/containers/prune", &Value::Null);
    }

    fn refusals(&mut self) {
        for path in ["/containers/nobody/json", "/networks/nobody", "/volumes/nobody", "/images/nobody/json"] {
            self.get(path);
        }
        for path in ["/exec/nobody/json", "/images/nobody/history", "/containers/nobody/logs?stdout=1", "/nonsense"] {
            self.get(path);
        }
        for verb in ["start", "stop", "kill", "restart", "pause", "wait", "rename?name=x", "resize?h=1&w=1"] {
            self.post(&format!("/containers/nobody/{verb}"), &Value::Null);
        }
        for path in ["/containers/nobody", "/networks/nobody", "/volumes/nobody", "/images/nobody", "/networks/bridge"]
        {
            self.ask("DELETE", path, &Value::Null);
        }
        self.post("/containers/nobody/update", &json!({}));
        self.post("/containers/nobody/exec", &json!({"Cmd": ["true"]}));
        self.get("/containers/nobody/logs");
        self.get("/containers/json?filters=nonsense");
        self.get("/containers/json?filters=%7B%22nonsense%22%3A%5B%22x%22%5D%7D");
        self.get("/containers/json?limit=x");
        let create = "/containers/create?name=refused";
        for (what, body) in [
            ("no image", json!({})),
            ("an absent image", json!({"Image": "nobody:1"})),
            ("no command", json!({"Image": "busybox"})),
            ("a port that is none", json!({"Image": "busybox", "Cmd": ["x"], "ExposedPorts": {"x/tcp": {}}})),
            ("a relative target", json!({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"Binds": ["a:b"]}})),
            (
                "an unknown policy",
                json!({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"RestartPolicy": {"Name": "x"}}}),
            ),
            ("too little memory", json!({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"Memory": 1}})),
            (
                "an unknown mount",
                json!({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"Mounts": [{"Type": "x", "Target": "/x"}]}}),
            ),
            ("a signal that is none", json!({"Image": "busybox", "Cmd": ["x"], "StopSignal": "SIGX"})),
            ("a directory that is relative", json!({"Image": "busybox", "Cmd": ["x"], "WorkingDir": "x"})),
        ] {
            self.named(what, "POST", create, &body);
            // What is refused at one end is made at the other.
            self.send("DELETE", "/containers/refused?force=1", "", &[]);
        }
        self.named(
            "a bad name",
            "POST",
            "/containers/create?name=%2Fa%2Fb",
            &json!({"Image": "busybox", "Cmd": ["x"]}),
        );
        self.post("/volumes/create", &json!({"Name": "/"}));
        self.named("an unknown driver", "POST", "/volumes/create", &json!({"Name": "x", "Driver": "nonsense"}));
        self.named("a taken name", "POST", "/networks/create", &json!({"Name": "back", "CheckDuplicate": true}));
        self.named(
            "a subnet that overlaps",
            "POST",
            "/networks/create",
            &json!({"Name": "again", "IPAM": {"Config": [{"Subnet": "10.99.0.0/24"}]}}),
        );
        self.named("no name", "POST", "/networks/create", &json!({}));
        self.post("/networks/nobody/connect", &json!({"Container": "nobody"}));
        self.post("/networks/back/connect", &json!({"Container": "nobody"}));
        self.post("/images/nobody/tag?repo=x", &Value::Null);
        self.post("/images/busybox/tag?repo=X", &Value::Null);
        self.record("POST /containers/create (no JSON)", "POST", create, "application/json", b"{");
        self.record("POST /containers/create (no type)", "POST", create, "text/plain", b"{}");
    }

    /// Of a node that is not part of a swarm.
    fn swarm(&mut self) {
        for path in [
            "/swarm",
            "/swarm/unlockkey",
            "/nodes",
            "/nodes/x",
            "/services",
            "/services/x",
            "/services/x/logs?stdout=1",
            "/tasks",
            "/tasks/x",
            "/secrets",
            "/secrets/x",
            "/configs",
            "/configs/x",
        ] {
            self.get(path);
        }
        for path in [
            "/swarm/leave",
            "/services/create",
            "/secrets/create",
            "/configs/create",
            "/nodes/x/update?version=1",
            "/services/x/update?version=1",
        ] {
            self.post(path, &json!({}));
        }
        for path in ["/nodes/x", "/services/x", "/secrets/x", "/configs/x"] {
            self.ask("DELETE", path, &Value::Null);
        }
        self.named("overlay", "POST", "/networks/create", &json!({"Name": "over", "Driver": "overlay"}));
    }

    /// What has been told of all that, by kind and action.
    fn events(&mut self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() + 1;
        let response = self.send("GET", &format!("/events?since=1&until={now}"), "", &[]);
        let mut by_action: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for event in lines(&response.body) {
            let word =
                |name: &str| event[name].as_str().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
            by_action.entry(format!("GET /events ({} {})", word("Type"), word("Action"))).or_default().push(event);
        }
        for (step, events) in by_action {
            self.keep(step, &response, Some(Value::Array(events)));
        }
    }

    fn leave_nothing(&mut self) {
        self.post("/networks/prune", &Value::Null);
        self.post("/networks/prune", &Value::Null);
        let all = if self.version == "1.41" { "" } else { "?filters=%7B%22all%22%3A%5B%22true%22%5D%7D" };
        self.post(&format!("/volumes/prune{all}"), &Value::Null);
        self.ask("DELETE", "/volumes/bare?force=1", &Value::Null);
        self.ask("DELETE", "/volumes/data?force=1", &Value::Null);
        self.ask("DELETE", "/images/made", &Value::Null);
        self.ask("DELETE", "/images/busybox", &Value::Null);
        self.post("/images/prune", &Value::Null);
        self.named("of nothing", "GET", "/containers/json", &Value::Null);
        self.named("of nothing", "GET", "/images/json", &Value::Null);
        self.named("of nothing", "GET", "/volumes", &Value::Null);
        self.named("of nothing", "GET", "/system/df", &Value::Null);
    }

    fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null)
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        self.ask("POST", path, body)
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Value {
        self.play(format!("{method} {}", shape::without_ids(path)), method, path, body)
    }

    fn named(&mut self, what: &str, method: &str, path: &str, body: &Value) -> Value {
        self.play(format!("{method} {} ({what})", shape::without_ids(path)), method, path, body)
    }

    fn play(&mut self, step: String, method: &str, path: &str, body: &Value) -> Value {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.record(&step, method, path, "application/json", &bytes)
    }

    fn record(&mut self, step: &str, method: &str, path: &str, content_type: &str, body: &[u8]) -> Value {
        let response = self.send(method, path, content_type, body);
        let documents = lines(&response.body);
        let document = match documents.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            _ => Some(Value::Array(documents)),
        };
        let answer = document.clone().unwrap_or_default();
        let mut step = step.to_owned();
        while self.answers.contains_key(&step) {
            step += "'";
        }
        self.keep(step, &response, document);
        answer
    }

    fn keep(&mut self, step: String, response: &Response, document: Option<Value>) {
        let mut answer = Map::new();
        answer.insert("status".into(), json!(response.status));
        if let Some(kind) = response.header("content-type") {
            answer.insert("type".into(), json!(kind));
        }
        // The stat of a copy is in a header.
        let document = document.or_else(|| response.header("x-docker-container-path-stat").map(|_| json!("stat")));
        match document {
            Some(document) if response.status >= 400 => {
                let message = document["message"].as_str().unwrap_or_default();
                answer.insert("message".into(), json!(shape::without_ids(message)));
            }
            Some(document) => drop(answer.insert("shape".into(), json!(shape::of(&document)))),
            None => {}
        }
        self.answers.insert(step, answer);
    }

    /// A document that is not part of the recording.
    fn quiet(&self, path: &str) -> Value {
        serde_json::from_slice(&self.send("GET", path, "", &[]).body).unwrap_or_default()
    }

    fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Response {
        http::ask(self.socket, method, &format!("/v{}{path}", self.version), content_type, body)
    }
}

/// One document, or a line for each of several; nothing where it is no JSON.
fn lines(body: &[u8]) -> Vec<Value> {
    serde_json::Deserializer::from_slice(body).into_iter::<Value>().map_while(Result::ok).collect()
}

/// The one layer of the image: every version of Docker imports that, and an OCI archive only the latest load.
fn busybox_layer() -> Vec<u8> {
    let archive = image_archive("busybox");
    let member = |name: &str| -> Vec<u8> {
        let output = Command::new("tar").args(["--extract", "--to-stdout", "--file"]).arg(&archive).arg(name).output();
        output.unwrap().stdout
    };
    let document = |bytes: Vec<u8>| -> Value { serde_json::from_slice(&bytes).unwrap() };
    let blob = |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
    let index = document(member("index.json"));
    let manifest = document(member(&blob(&index["manifests"][0])));
    member(&blob(&manifest["layers"][0]))
}
