"""python-on-whales, which is the docker CLI with types, against an engine that has the busybox image."""

import datetime
import os
import pathlib
import time
import tempfile
import urllib.request

from python_on_whales import DockerClient
from python_on_whales.exceptions import DockerException, NoSuchContainer, NoSuchImage, NoSuchVolume

docker = DockerClient(client_call=[os.environ["DOCKER_CLI"]])
# Gone with the program.
scratch = tempfile.TemporaryDirectory()
here = pathlib.Path(scratch.name)


def refused(kind, words, call):
    try:
        call()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"it is not refused: {words}")


# The engine.
info = docker.system.info()
assert info.images >= 1 and info.server_version, info
assert docker.version().server.api_version

# run, in the foreground: output, environment, files of it, failure.
assert docker.run("busybox", ["echo", "hello"], remove=True) == "hello"
(here / "variables").write_text("A=from a file\n")
said = docker.run("busybox", ["sh", "-c", "echo $A $B"], remove=True, env_files=[here / "variables"], envs={"B": "b"})
assert said == "from a file b", said
refused(DockerException, "with code 3", lambda: docker.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True))
refused(DockerException, "with code 127", lambda: docker.run("busybox", ["no-such-program"], remove=True))
parts = list(docker.run("busybox", ["sh", "-c", "echo a; echo b >&2"], remove=True, stream=True))
assert sorted(parts) == [("stderr", b"b\n"), ("stdout", b"a\n")], parts

# A container that stays.
docker.volume.create("data", labels={"kind": "test"})
docker.network.create("back", subnet="10.77.0.0/24", gateway="10.77.0.1", labels={"kind": "test"})
web = docker.run(
    "busybox",
    ["sh", "-c", "mkdir /www; echo served >/www/index.html; echo ready; exec httpd -f -p 80 -h /www"],
    name="web",
    detach=True,
    publish=[("127.0.0.1:8080", 80)],
    volumes=[("data", "/data"), (here, "/here", "ro")],
    tmpfs=[pathlib.Path("/scratch")],
    networks=["back"],
    network_aliases=["www"],
    ip="10.77.0.9",
    labels={"kind": "test"},
    hostname="front",
    memory="64m",
    cpus=0.5,
    restart="on-failure:2",
    health_cmd="test -e /www/index.html",
    health_interval=datetime.timedelta(seconds=1),
    add_hosts=[("far", "192.0.2.1")],
    init=True,
)
# Whole seconds: that client makes 0 of less, which is the default, 30.
for _ in range(400):
    if web.state.health.status == "healthy":
        break
    time.sleep(0.05)
    web.reload()
assert web.state.running and web.state.health.status == "healthy", web.state
# What was told: the last 256 events, of which each health check is some.
told = list(docker.system.events(since=datetime.timedelta(hours=1), until=datetime.datetime.now(), filters={"container": "web"}))
assert {"create", "start"} <= {event.action for event in told}, told
assert urllib.request.urlopen("http://127.0.0.1:8080/").read() == b"served\n"
assert web.name == "web" and web.config.hostname == "front" and web.config.labels["kind"] == "test"
assert web.host_config.memory == 64 * 1024 * 1024 and web.host_config.restart_policy.name == "on-failure"
assert web.network_settings.networks["back"].ip_address == "10.77.0.9", web.network_settings
assert web.network_settings.ports["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8080"}]
assert {mount.type for mount in web.mounts} == {"volume", "bind"}, web.mounts
assert [c.name for c in docker.ps(filters=[("label", "kind=test")])] == ["web"]

# Exec, with input of its own kinds.
assert web.execute(["hostname"]) == "front"
assert docker.execute(web, ["sh", "-c", "id -u; pwd; echo $A"], user="33", workdir="/tmp", envs={"A": "b"}) == "33\n/tmp\nb"
refused(DockerException, "", lambda: web.execute(["sh", "-c", "exit 4"]))
assert list(web.execute(["sh", "-c", "echo 1; echo 2"], stream=True))[0][0] == "stdout"
refused(DockerException, "Read-only file system", lambda: web.execute(["touch", "/here/x"]))

# Logs, as they are and followed.
assert web.logs() == "ready\n" or web.logs() == "ready", web.logs()
for kind, line in docker.logs(web, follow=True, stream=True):
    assert (kind, line) == ("stdout", b"ready\n"), (kind, line)
    break
assert docker.logs(web, tail=1, timestamps=True).split(" ")[0].endswith("Z")

# Copies, both ways.
(here / "given").write_text("given")
docker.copy(here / "given", (web, "/data/given"))
docker.copy((web, "/www/index.html"), here / "taken")
assert (here / "taken").read_text() == "served\n"
assert web.execute(["cat", "/data/given"]) == "given"
refused(DockerException, "", lambda: docker.copy((web, "/nowhere"), here / "x"))

# Names, and networks that come and go.
asker = docker.run("busybox", ["sleep", "1000"], detach=True, networks=["back"], name="asker")
for name in ("web", "www", "front"):
    if name != "front":
        assert asker.execute(["wget", "-q", "-O", "-", f"http://{name}/"]) == "served", name
docker.network.create("other")
docker.network.connect("other", asker, alias="else")
asker.reload()
assert set(asker.network_settings.networks) == {"back", "other"}
docker.network.disconnect("other", asker)
assert docker.network.inspect("back").ipam.config[0]["Subnet"] == "10.77.0.0/24"
assert len(docker.network.inspect("back").containers) == 2
assert [n.name for n in docker.network.list(filters={"label": "kind=test"})] == ["back"]
docker.network.remove("other")

# Figures, processes, changes, limits.
(stats,) = docker.stats(web)
assert stats.memory_used > 0 and stats.memory_limit == 64 * 1024 * 1024 and stats.container_name == "web", stats
assert any(path.startswith("/www") for path in docker.diff(web)), docker.diff(web)
docker.container.update(web, memory="96m", memory_swap="-1")
web.reload()
assert web.host_config.memory == 96 * 1024 * 1024

# Life.
asker.pause()
asker.reload()
assert asker.state.paused
asker.unpause()
asker.rename("renamed")
assert docker.container.exists("renamed") and not docker.container.exists("asker")
asker.kill()
assert docker.wait(asker) == 137
asker.start()
asker.restart(time=0)
asker.stop(time=0)
made = asker.commit(tag="made:1")
assert made.repo_tags == ["made:1"]
asker.export(here / "exported.tar")
assert docker.import_(here / "exported.tar", tag="flat:1").repo_tags == ["flat:1"]
asker.remove()
refused(NoSuchContainer, "", lambda: docker.container.inspect("renamed"))
exited = docker.create("busybox", ["sh", "-c", "exit 6"])
exited.start()
assert docker.wait(exited) == 6
assert docker.container.list(all=True, filters=[("status", "exited")])[0].id == exited.id
docker.container.prune()
assert not exited.exists()

# Images out and in, tags, history; what is absent.
docker.tag("busybox", "mine:1")
docker.save("mine:1", output=here / "mine.tar")
docker.image.remove("mine:1")
assert docker.load(here / "mine.tar") == ["mine:1"]
assert docker.image.inspect("mine:1").id == docker.image.inspect("busybox").id
assert docker.image.inspect("mine:1").config
assert "mine:1" in [tag for image in docker.images("mine") for tag in image.repo_tags]
docker.image.remove(["mine:1", "made:1", "flat:1"])
refused(NoSuchImage, "", lambda: docker.image.inspect("mine:1"))
assert not docker.image.exists("mine:1")
refused(DockerException, "No such image", lambda: docker.create("nobody", pull="never"))

# Volumes.
refused(DockerException, "volume is in use", lambda: docker.volume.remove("data"))
assert [v.name for v in docker.volume.list(filters={"label": "kind=test"})] == ["data"]
assert docker.volume.inspect("data").mountpoint
refused(NoSuchVolume, "", lambda: docker.volume.inspect("nothing"))

# What it all takes.
assert docker.system.disk_free().images.total_count >= 1
web.remove(force=True, volumes=True)
docker.volume.remove("data")
docker.network.remove("back")
docker.system.prune(volumes=True)
assert docker.ps(all=True) == [] and docker.volume.list() == []
assert sorted(n.name for n in docker.network.list()) == ["bridge", "host", "none"]

print("passed")
