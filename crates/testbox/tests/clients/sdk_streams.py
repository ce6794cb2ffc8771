"""The docker SDK's streams: attach and exec by socket, terminals, logs, events, waiting."""

import datetime
import socket
import threading

import docker
import docker.errors
import docker.utils.socket as frames

client = docker.from_env()


def raw(wrapper):
    """The bare socket that docker-py wraps."""
    return getattr(wrapper, "_sock", wrapper)


# Attach: frames, half-close, exit code.
container = client.containers.create(
    "busybox", ["sh", "-c", "wc -c; echo oops >&2; exit 3"], stdin_open=True, network_mode="none"
)
wire = raw(container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}))
container.start()
wire.sendall(b"x" * 100000)
wire.shutdown(socket.SHUT_WR)
got = {1: b"", 2: b""}
for stream, data in frames.frames_iter(wire, tty=False):
    got[stream] += data
assert got == {1: b"100000\n", 2: b"oops\n"}, got
assert container.wait()["StatusCode"] == 3
container.remove()

# A terminal: raw bytes, a size, the log as it was.
container = client.containers.create(
    "busybox", ["sh", "-c", "read -r line; stty size; echo [$line]"], tty=True, stdin_open=True, network_mode="none"
)
wire = raw(container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1}))
container.start()
container.resize(height=40, width=120)
wire.sendall(b"typed\r")
seen = b""
while True:
    data = wire.recv(4096)
    if not data:
        break
    seen += data
assert b"40 120\r\n[typed]\r\n" in seen, seen
container.wait()
assert container.logs().endswith(b"[typed]\r\n"), container.logs()
container.remove()

# Attach in the foreground, as a generator.
container = client.containers.create("busybox", ["sh", "-c", "echo a; sleep 0.2; echo b"], network_mode="none")
stream = container.attach(stream=True, logs=False)
container.start()
assert b"".join(stream) == b"a\nb\n"
container.wait()

# Attach with the log so far: what was said before, and what is said from now on.
talker = client.containers.run("busybox", ["sh", "-c", "echo before; while [ ! -e /go ]; do sleep 0.05; done; echo after"],
                               detach=True, network_mode="none")
while not talker.logs():
    pass
stream = talker.attach(stream=True, logs=True)
seen = next(stream)
talker.exec_run(["touch", "/go"])
assert seen + b"".join(stream) == b"before\nafter\n"
talker.wait()
assert b"".join(talker.attach(stream=False, logs=True).splitlines()) == b"beforeafter"
talker.remove()

# Logs: since, until, tail, timestamps, one stream of the two.
assert container.logs(tail=1) == b"b\n"
assert container.logs(timestamps=True).split(b" ")[0].endswith(b"Z")
tomorrow = datetime.datetime.now() + datetime.timedelta(days=1)
assert container.logs(since=tomorrow) == b""
assert container.logs(until=tomorrow) == b"a\nb\n"
assert container.logs(stdout=False) == b""
container.remove()

# Exec: by socket with input, detached, on a terminal, as another user.
host = client.containers.run("busybox", ["sleep", "1000"], detach=True, name="host", network_mode="none")
made = client.api.exec_create("host", ["sh", "-c", "cat; exit 6"], stdin=True)
wire = raw(client.api.exec_start(made["Id"], socket=True))
wire.sendall(b"through")
wire.shutdown(socket.SHUT_WR)
assert b"".join(data for _, data in frames.frames_iter(wire, tty=False)) == b"through"
assert client.api.exec_inspect(made["Id"])["ExitCode"] == 6
assert not host.exec_run("touch /tmp/proof", detach=True).output
while host.exec_run("test -e /tmp/proof").exit_code:
    pass
code, output = host.exec_run("tty", tty=True)
assert (code, output.strip()[:9]) == (0, b"/dev/pts/"), (code, output)
assert host.exec_run("id -u", user="33").output == b"33\n"
assert host.exec_run("pwd", workdir="/tmp").output == b"/tmp\n"
assert host.exec_run("env", environment={"A": "b"}).output.count(b"A=b\n") == 1
code, output = host.exec_run("no-such-program")
assert code == 127 and b"executable file not found" in output, (code, output)
assert b"".join(host.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True).output) == b"1\n2\n"

# Waiting for each condition, from another thread; events meanwhile.
told = []
since = datetime.datetime.now()
events = client.events(decode=True, since=since, filters={"container": "host"})


def listen():
    for event in events:
        told.append(event["Action"])
        if event["Action"] == "destroy":
            return


listener = threading.Thread(target=listen)
listener.start()
removed = []
waiter = threading.Thread(target=lambda: removed.append(docker.from_env().containers.get("host").wait(condition="removed")))
waiter.start()
host.kill("SIGKILL")
assert host.wait(condition="not-running")["StatusCode"] == 137
host.start()
host.restart(timeout=0)
host.stop(timeout=0)
# The other thread may be slow, and has to have found the container before it goes.
while waiter.is_alive() and not removed:
    host.remove(force=True)
    waiter.join(5)
    break
listener.join(20)
assert not listener.is_alive(), told
assert [action for action in told if action in ("kill", "die", "start", "destroy")][-1] == "destroy", told
assert told.count("start") >= 1 and told.count("die") >= 1, told

print("passed")
