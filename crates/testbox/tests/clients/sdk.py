"""The docker SDK against an engine that has the busybox image."""

import docker
import docker.errors

client = docker.from_env()
assert client.ping()
assert client.version()["ApiVersion"]

# run, in the foreground: output and failure.
assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
try:
    client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
except docker.errors.ContainerError as error:
    assert error.exit_status == 3 and b"why" in error.stderr, error
else:
    raise AssertionError("exit 3 is no failure")

# A container that stays: exec, logs, list, inspect, stop, wait, remove.
container = client.containers.run(
    "busybox",
    ["sh", "-c", "echo started; trap 'exit 4' TERM; while :; do sleep 0.1; done"],
    detach=True,
    name="worker",
    environment={"A": "b"},
    labels={"kind": "test"},
)
code, output = container.exec_run(["sh", "-c", "echo $A; exit 5"])
assert (code, output) == (5, b"b\n"), (code, output)
code, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
assert (code, out, err) == (0, b"o\n", b"e\n"), (code, out, err)
assert [c.name for c in client.containers.list(filters={"label": "kind=test"})] == ["worker"]
container.reload()
assert container.status == "running" and container.attrs["Config"]["Env"][0] == "A=b", container.attrs
assert next(container.logs(stream=True, follow=True)) == b"started\n"
assert any("sleep" in " ".join(row) or "sh" in " ".join(row) for row in container.top()["Processes"])
container.rename("renamed")
assert client.containers.get("renamed").id == container.id
container.stop(timeout=10)
assert container.wait()["StatusCode"] == 4
image = container.commit("made", "1")
assert image.tags == ["made:1"], image.tags
container.remove()
try:
    client.containers.get("renamed")
except docker.errors.NotFound:
    pass
else:
    raise AssertionError("it is still there")

# Images.
assert client.images.get("busybox").tag("other", "2")
assert "other:2" in client.images.get("busybox").tags
client.images.remove("other:2")
client.images.remove("made:1")
try:
    client.images.get("made:1")
except docker.errors.ImageNotFound:
    pass
else:
    raise AssertionError("it is still there")

print("passed")
