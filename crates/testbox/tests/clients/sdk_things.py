"""The docker SDK's things: images in and out, volumes, mounts, ports, what is refused."""

import io
import tarfile
import time
import urllib.request

import docker
import docker.errors
from docker.types import Mount

client = docker.from_env()

# Images out and in again.
image = client.images.get("busybox")
assert image.tag("mine", "1")
archive = b"".join(client.images.get("mine:1").save(named="mine:1"))
assert "manifest.json" in tarfile.open(fileobj=io.BytesIO(archive)).getnames()
client.images.remove("mine:1")
assert client.images.load(archive)[0].tags.count("mine:1") == 1
assert image.history()[0]["Id"] == image.id
assert [tag for found in client.images.list(name="mine") for tag in found.tags].count("mine:1") == 1
try:
    client.images.load(archive[: len(archive) // 2])
except docker.errors.ImageLoadError as error:
    assert "cut short" in str(error), error
else:
    raise AssertionError("half an archive is no image")
try:
    client.images.search("busybox")
except docker.errors.APIError as error:
    assert error.status_code == 503 and "cannot reach the registry index.docker.io" in error.explanation, error
else:
    raise AssertionError("nobody is there who could be asked")
built, _ = client.images.build(fileobj=io.BytesIO(b"FROM busybox\nLABEL kind=test\n"), tag="built:1", rm=True)
assert built.labels == {"kind": "test"} and built.tags == ["built:1"], built.attrs
client.images.remove("built:1")

# Volumes and every kind of mount.
volume = client.volumes.create("data", labels={"kind": "test"})
assert client.volumes.list(filters={"label": "kind=test"})[0].name == "data"
said = client.containers.run(
    "busybox",
    ["sh", "-c", "echo kept >/data/x; touch /scratch/y; cat /readonly/hosts >/dev/null; touch /readonly/z"],
    mounts=[
        Mount("/data", "data", type="volume"),
        Mount("/scratch", None, type="tmpfs", tmpfs_size=65536),
        Mount("/readonly", "/etc", type="bind", read_only=True),
    ],
    network_mode="none",
    detach=True,
)
assert said.wait()["StatusCode"] == 1 and b"Read-only file system" in said.logs(), said.logs()
assert {mount["Type"] for mount in said.attrs["Mounts"]} <= {"volume", "tmpfs", "bind"}
try:
    volume.remove()
except docker.errors.APIError as error:
    assert error.status_code == 409 and "volume is in use" in error.explanation, error
else:
    raise AssertionError("it is in use")
said.remove()
out = client.containers.run("busybox", ["cat", "/data/x"], volumes={"data": {"bind": "/data", "mode": "ro"}}, remove=True)
assert out == b"kept\n", out
volume.remove()

# Ports, names, users, capabilities, limits of what is built.
web = client.containers.run(
    "busybox",
    ["sh", "-c", "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www"],
    ports={"80/tcp": ("127.0.0.1", 8080)},
    detach=True,
    hostname="front",
    extra_hosts={"db": "10.1.2.3"},
    cap_drop=["ALL"],
    cap_add=["NET_BIND_SERVICE"],
    init=True,
    labels=["web"],
)
for _ in range(200):
    try:
        page = urllib.request.urlopen("http://127.0.0.1:8080/").read()
        break
    except OSError:
        time.sleep(0.05)
assert page == b"served\n", page
web.reload()
assert web.ports["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8080"}], web.ports
assert web.exec_run("hostname").output == b"front\n"
assert b"10.1.2.3\tdb" in web.exec_run("cat /etc/hosts").output
try:
    client.containers.run("busybox", "true", cpu_rt_runtime=1000)
except docker.errors.APIError as error:
    assert error.status_code == 501 and "CpuRealtimeRuntime" in error.explanation, error
else:
    raise AssertionError("a limit that does not limit")
try:
    client.containers.run("busybox", "true", name=web.name)
except docker.errors.APIError as error:
    assert error.status_code == 409 and "already in use" in error.explanation, error
else:
    raise AssertionError("two of one name")
web.remove(force=True)
assert client.containers.list(all=True) == [], client.containers.list(all=True)
assert client.info()["Containers"] == 0

print("passed")
