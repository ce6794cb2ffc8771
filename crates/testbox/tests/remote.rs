//! Engines that are reached by other ways than a socket of this machine's: contexts and ssh.

#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use dozen_testbox::{Machine, docker_program, dozen_program};

/// A stand-in for ssh(1): the other machine is this one. It takes what comes before the host for options, and gives the
/// rest to a shell, as sshd does.
const SSH: &str = r#"#!/bin/sh
while [ "$1" != -- ]; do shift; done
echo "$2" >>"$SSH_LOG"
shift 2
# The other machine's environment is its own.
unset DOCKER_HOST DOCKER_CONTEXT
exec sh -c "$*"
"#;

/// The PATH with the stand-in and dozen, and where the stand-in writes whom it was to reach.
fn other_machine(machine: &Machine) -> (String, PathBuf) {
    let programs = machine.directory().join("bin");
    std::fs::create_dir(&programs).unwrap();
    std::fs::write(programs.join("ssh"), SSH).unwrap();
    std::fs::set_permissions(programs.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(dozen_program(), programs.join("dozen")).unwrap();
    // For docker's own command line, which asks the other machine for docker.
    std::os::unix::fs::symlink(dozen_program(), programs.join("docker")).unwrap();
    (format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()), machine.directory().join("ssh.log"))
}

#[test]
fn an_engine_is_reached_by_ssh_and_streams_end_as_they_do_here() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let (path, log) = other_machine(&machine);
    let variables = |host: &'static str| {
        [("PATH", path.clone()), ("SSH_LOG", log.display().to_string()), ("DOCKER_HOST", host.to_owned())]
    };
    let run = |program: &std::path::Path, host: &'static str, arguments: &[&str], input: &[u8]| {
        let variables = variables(host);
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        machine.run_with(program, arguments, input, &variables)
    };
    let dozen = dozen_program();
    // Half-closed: sort says what it has only at the end of its input.
    let sorted = run(&dozen, "ssh://me@there", &["run", "--rm", "-i", "busybox", "sort"], b"b\na\n");
    assert_eq!(sorted.text(), "a\nb\n");
    run(&dozen, "ssh://me@there", &["run", "--rm", "busybox", "sh", "-c", "exit 7"], b"").expect(7);
    let socket = format!("ssh://there{}", machine.socket().display());
    assert!(run(&dozen, Box::leak(socket.into_boxed_str()), &["ps", "-a"], b"").text().contains("CONTAINER ID"));
    assert!(std::fs::read_to_string(&log).unwrap().lines().all(|host| host == "there"));
    // docker's own command line reaches us the same way.
    let docker = run(&docker_program(), "ssh://me@there", &["run", "--rm", "-i", "busybox", "sort"], b"b\na\n");
    assert_eq!(docker.text(), "a\nb\n");
    // One that cannot be reached: ssh's own words, and ours.
    std::fs::write(machine.directory().join("bin/ssh"), "#!/bin/sh\necho no route to you >&2; exit 255\n").unwrap();
    let failed = run(&dozen, "ssh://nowhere", &["ps"], b"").expect(1);
    assert!(failed.err.contains("no route to you"), "{failed:?}");
}

#[test]
fn contexts_are_dockers_own() {
    let machine = Machine::new();
    let engine = machine.engine();
    engine.load("busybox");
    let address = format!("unix://{}", machine.socket().display());
    let none = [("DOCKER_HOST", "")];
    let dozen = |arguments: &[&str]| machine.run_with(dozen_program(), arguments, b"", &none);
    let docker = |arguments: &[&str]| machine.run_with(docker_program(), arguments, b"", &none);

    let endpoint = format!("host={address}");
    let create = ["context", "create", "ours", "--docker", &endpoint, "--description", "made by dozen"];
    assert_eq!(dozen(&create).text(), "ours\n");
    assert!(dozen(&create).expect(1).err.contains("context \"ours\" already exists"));
    let listed = docker(&["context", "ls", "--format", "{{.Name}}|{{.Description}}|{{.DockerEndpoint}}"]).text();
    assert!(listed.contains(&format!("ours|made by dozen|{address}")), "{listed}");
    docker(&["context", "create", "theirs", "--docker", &endpoint]).expect(0);
    assert_eq!(dozen(&["context", "ls", "-q"]).text(), "default\nours\ntheirs\n");
    assert_eq!(
        dozen(&["context", "inspect", "-f", "{{.Endpoints.docker.Host}}", "theirs"]).text(),
        format!("{address}\n")
    );

    dozen(&["--context", "theirs", "run", "--rm", "busybox", "true"]).expect(0);
    assert!(dozen(&["--context", "none", "ps"]).expect(1).err.contains("no such context \"none\""));
    let both = dozen(&["--context", "ours", "--host", &address, "ps"]).expect(1);
    assert!(both.err.contains("cannot specify both --host and --context"), "{both:?}");

    docker(&["context", "use", "theirs"]).expect(0);
    assert_eq!(dozen(&["context", "show"]).text(), "theirs\n");
    assert!(dozen(&["context", "rm", "theirs"]).expect(1).err.contains("is in use, set -f flag to force remove"));
    dozen(&["context", "use", "ours"]).expect(0);
    assert_eq!(docker(&["context", "show"]).text(), "ours\n");
    dozen(&["context", "rm", "ours", "theirs", "-f"]).expect(0);
    assert_eq!(docker(&["context", "ls", "-q"]).text(), "default\n");
    assert_eq!(dozen(&["context", "show"]).text(), "default\n");
    assert!(
        dozen(&["context", "create", "default", "--docker", &endpoint])
            .expect(1)
            .err
            .contains("is a reserved context name")
    );
}
