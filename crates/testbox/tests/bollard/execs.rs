//! Further processes in a running container.

use bollard::Docker;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use dozen_testbox::Machine;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::{both, create, refusal, run, shell, with_busybox};

fn script(text: &str) -> CreateExecOptions<String> {
    CreateExecOptions {
        cmd: Some(["sh", "-c", text].map(String::from).into()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    }
}

async fn exit_code(docker: &Docker, id: &str) -> i64 {
    loop {
        let found = docker.inspect_exec(id).await.unwrap();
        if found.running == Some(false) {
            return found.exit_code.unwrap();
        }
    }
}

#[tokio::test]
async fn multiplexed_with_input_user_directory_and_environment() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    run(&docker, "host", shell("sleep 1000")).await;
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        env: Some(vec!["A=b".into()]),
        user: Some("33:100".into()),
        working_dir: Some("/tmp".into()),
        ..script("echo $A $(id -u):$(id -g) $(pwd); wc -c; echo problem >&2; exit 7")
    };
    let id = docker.create_exec("host", options).await.unwrap().id;
    assert_eq!(docker.inspect_exec(&id).await.unwrap().running, Some(false));
    let StartExecResults::Attached { output, mut input } = docker.start_exec(&id, None).await.unwrap() else {
        panic!("it is not attached")
    };
    input.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
    input.shutdown().await.unwrap();
    assert_eq!(both(output).await, ("b 33:100 /tmp\n1000000\n".into(), "problem\n".into()));
    assert_eq!(exit_code(&docker, &id).await, 7);
    let found = docker.inspect_exec(&id).await.unwrap();
    assert_eq!(found.process_config.unwrap().entrypoint.as_deref(), Some("sh"));
    // Once only.
    assert_eq!(refusal(docker.start_exec(&id, None).await.map(|_| ())).0, 409);
}

#[tokio::test]
async fn on_a_terminal_that_is_resized() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    run(&docker, "host", shell("sleep 1000")).await;
    let text = "trap 'stty size' WINCH; stty size; until read -r line; do :; done; echo \"[$line]\"; exit 3";
    let options = CreateExecOptions { attach_stdin: Some(true), tty: Some(true), ..script(text) };
    let id = docker.create_exec("host", options).await.unwrap().id;
    let start = StartExecOptions { tty: true, ..StartExecOptions::default() };
    let StartExecResults::Attached { mut output, mut input } = docker.start_exec(&id, Some(start)).await.unwrap()
    else {
        panic!("it is not attached")
    };
    let mut seen = String::new();
    docker.resize_exec(&id, ResizeExecOptions { height: 20, width: 50 }).await.unwrap();
    while !seen.contains("20 50") {
        seen += &output.next().await.unwrap().unwrap().to_string();
        docker.resize_exec(&id, ResizeExecOptions { height: 20, width: 50 }).await.unwrap();
    }
    input.write_all(b"typed\r").await.unwrap();
    input.flush().await.unwrap();
    let (rest, _) = both(output).await;
    assert!(rest.ends_with("[typed]\r\n"), "{rest:?}");
    assert_eq!(exit_code(&docker, &id).await, 3);
}

#[tokio::test]
async fn detached_and_refused() {
    let machine = Machine::new();
    let (_engine, docker) = with_busybox(&machine);
    run(&docker, "host", shell("sleep 1000")).await;
    let id = docker.create_exec("host", script("echo done >/tmp/proof; exit 9")).await.unwrap().id;
    let start = StartExecOptions { detach: true, ..StartExecOptions::default() };
    assert!(matches!(docker.start_exec(&id, Some(start)).await.unwrap(), StartExecResults::Detached));
    assert_eq!(exit_code(&docker, &id).await, 9);
    let found = docker.inspect_container("host", None).await.unwrap();
    assert_eq!(found.exec_ids.unwrap_or_default(), Vec::<String>::new());

    // How it ended can be asked when the container has ended, too, and what was not started cannot be.
    let never = docker.create_exec("host", script("true")).await.unwrap().id;
    let cut_short = docker.create_exec("host", script("sleep 1000")).await.unwrap().id;
    let start = StartExecOptions { detach: true, ..StartExecOptions::default() };
    docker.start_exec(&cut_short, Some(start)).await.unwrap();
    docker.kill_container("host", None::<bollard::query_parameters::KillContainerOptions>).await.unwrap();
    super::wait(&docker, "host").await;
    assert_eq!(exit_code(&docker, &id).await, 9);
    assert_eq!(exit_code(&docker, &cut_short).await, 137);
    assert_eq!(refusal(docker.start_exec(&never, None).await.map(|_| ())).0, 404);

    assert_eq!(refusal(docker.create_exec("nowhere", script("true")).await).0, 404);
    assert_eq!(refusal(docker.inspect_exec("nothing").await).0, 404);
    create(&docker, "idle", shell("true")).await;
    let (status, message) = refusal(docker.create_exec("idle", script("true")).await);
    assert!(status == 409 && message.contains("is not running"), "{status} {message}");
}
