//! Command lines and the bodies that they become.

use super::*;

fn ask(line: &[&str]) -> Result<CreateRequest, String> {
    let command = with_flags(crate::arguments::flags::verb("run", "", "", "")).arg(switch("detach", 'd', ""));
    let matches = command.try_get_matches_from([&["run"], line].concat()).map_err(|error| error.kind().to_string())?;
    let around = Surroundings {
        environment: &|name| (name == "HOME").then(|| "/root".to_owned()),
        directory: std::path::Path::new("/here"),
        read_file: &|path| match path {
            "vars" => Ok(b"A=file\nB=file\n".to_vec()),
            other => Err(format!("open {other}: no such file or directory")),
        },
    };
    request(&matches, is_on(&matches, "detach"), Some((24, 80)), &around).map_err(|failure| failure.message)
}

#[test]
fn a_plain_run() {
    insta::assert_json_snapshot!(ask(&["busybox", "sh", "-c", "echo -d"]).unwrap().body);
}

#[test]
fn the_everyday_flags() {
    let line = [
        "-itd",
        "--rm",
        "--name=web",
        "-e",
        "A=b",
        "-eHOME",
        "-e",
        "NONE",
        "--env-file",
        "vars",
        "-p8080:80",
        "-P",
        "--expose",
        "90-91",
        "-v",
        "./src:/src:ro",
        "-v",
        "/data",
        "--mount",
        "type=tmpfs,dst=/t",
        "--tmpfs",
        "/run:size=1m",
        "-w",
        "/app",
        "-u",
        "1:1",
        "--entrypoint",
        "",
        "--network",
        "none",
        "--cap-add",
        "net_admin",
        "--cap-drop",
        "ALL",
        "--read-only",
        "--init",
        "-h",
        "box",
        "--add-host",
        "db=[::1]",
        "-l",
        "a=b",
        "--stop-signal",
        "QUIT",
        "--stop-timeout",
        "3",
        "--shm-size",
        "1m",
        "--log-opt",
        "max-size=1m",
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "systempaths=unconfined",
        "img",
        "--rm",
    ];
    let request = ask(&line).unwrap();
    assert_eq!((request.name.as_deref(), request.removes_itself), (Some("web"), true));
    insta::assert_json_snapshot!(request.body);
}

#[test]
fn switches_take_values_and_options_stop_at_the_image() {
    let request = ask(&["--rm=false", "-t", "--tty=0", "img", "-it", "--", "--name", "x"]).unwrap();
    assert!(!request.removes_itself && !request.is_tty && !request.is_interactive && request.name.is_none());
    assert_eq!(request.body["Cmd"], json!(["-it", "--", "--name", "x"]));
    assert_eq!(ask(&["-e", "-x=1", "img"]).unwrap().body["Env"], json!(["-x=1"]));
    assert_eq!(ask(&["--name", "a", "--name", "b", "img"]).unwrap().name.as_deref(), Some("b"));
}

#[test]
fn what_is_so_anyway_may_be_asked_for() {
    for (line, host) in [
        (&["--restart", "no"][..], json!({"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}})),
        (&["--restart", "on-failure:3"], json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}})),
        (&["--restart="], json!({})),
        (
            &["--cgroupns=private", "--ipc", "private", "--userns", "host"],
            json!({"CgroupnsMode": "private", "IpcMode": "private", "UsernsMode": "host"}),
        ),
        (&["--userns", "auto:size=1000"], json!({"UsernsMode": "auto:size=1000"})),
        (&["--security-opt", "label:disable"], json!({"SecurityOpt": ["label=disable"]})),
        (
            &["--mount", "type=bind,src=/a,dst=/b,consistency=cached"],
            json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "Consistency": "cached"}]}),
        ),
    ] {
        assert_eq!(ask(&[line, &["img"]].concat()).unwrap().body["HostConfig"], host, "{line:?}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for (line, words) in [
        (&["-d", "-a", "stdout", "img"][..], "conflicting options: cannot specify both --attach and --detach"),
        (
            &["-a", "x", "img"],
            "invalid argument \"x\" for \"--attach\" flag: valid streams are STDIN, STDOUT and STDERR",
        ),
        (&["--restart", "always", "--rm", "img"], "conflicting options: cannot specify both --restart and --rm"),
        (&["--sysctl", "x", "img"], "invalid argument \"x\" for \"--sysctl\" flag: want NAME=VALUE"),
        (&["--log-opt", "max-size", "img"], "invalid argument \"max-size\" for \"--log-opt\" flag: want NAME=VALUE"),
        (&["--stop-signal", "NOPE", "img"], "invalid signal: NOPE"),
        (&["--env-file", "none", "img"], "open none: no such file or directory"),
        (&["-p", "99999:1", "img"], "invalid hostPort: 99999"),
        (&["--rm=maybe", "img"], "invalid value for one of the arguments"),
    ] {
        assert_eq!(ask(line).unwrap_err(), words);
    }
}
