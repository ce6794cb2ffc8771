"""testcontainers for Python, as tests of applications use it, against an engine that has busybox and python images. Its
reaper is an image that only a registry has: it is switched off, as the documentation says how."""

import pathlib
import re
import tempfile
import urllib.request

import docker.errors
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    CompositeWaitStrategy,
    ExecWaitStrategy,
    FileExistsWaitStrategy,
    HealthcheckWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)
from testcontainers.core.waiting_utils import wait_for_logs

PYTHON = "python:3.11-slim"
# Gone with the program.
scratch = tempfile.TemporaryDirectory()
here = pathlib.Path(scratch.name)


def page(container, port, name=""):
    url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(port)}/{name}"
    return urllib.request.urlopen(url).read()


# A port, variables, a wait for what is logged.
with (
    DockerContainer("busybox")
    .with_exposed_ports(80)
    .with_env("GREETING", "hello")
    .with_name("greeter")
    .with_command(["sh", "-c", "mkdir /www; echo $GREETING >/www/index.html; echo now ready; exec httpd -f -p 80 -h /www"])
    .waiting_for(CompositeWaitStrategy(LogMessageWaitStrategy(re.compile("now (ready|never)")), PortWaitStrategy(80)))
) as container:
    assert page(container, 80) == b"hello\n"
    assert container.get_wrapped_container().name == "greeter"
    assert container.exec(["sh", "-c", "echo $GREETING; exit 7"]) == (7, b"hello\n")
    assert container.get_logs() == (b"now ready\n", b"")
    assert wait_for_logs(container, "ready") >= 0
    container.copy_into_container(b"copied", "/www/copied")
    assert page(container, 80, "copied") == b"copied"
    container.copy_from_container("/www/copied", here / "taken")
    assert (here / "taken").read_bytes() == b"copied"
    shown = container.get_container_info()
    assert shown.State.Running and shown.Config.Image == "busybox", shown

# A fixed port, files that are there before the start, a wait for an answer.
(here / "site").mkdir()
(here / "site/index.html").write_text("from a test")
with (
    DockerContainer(PYTHON)
    .with_bind_ports(8000, 8080)
    .with_volume_mapping(here / "site", "/site", "ro")
    .with_copy_into_container(b"before", "/before")
    .with_tmpfs_mount("/scratch", "size=64k")
    .with_command("python3 -m http.server 8000 --directory /site")
    .waiting_for(HttpWaitStrategy(8000).for_status_code(200).for_response_predicate(lambda body: "a test" in body))
) as container:
    assert urllib.request.urlopen("http://127.0.0.1:8080/").read() == b"from a test"
    assert container.exec("cat /before").output == b"before"
    assert container.exec("touch /site/x").exit_code != 0

# Health, files, commands.
with (
    DockerContainer("busybox")
    .with_command(["sh", "-c", "sleep 0.3; touch /ready; sleep 1000"])
    .with_kwargs(healthcheck={"test": ["CMD", "test", "-e", "/ready"], "interval": 100_000_000, "retries": 100})
    .waiting_for(HealthcheckWaitStrategy())
) as container:
    container.reload()
    assert container.get_wrapped_container().attrs["State"]["Health"]["Status"] == "healthy"
    ExecWaitStrategy(["test", "-e", "/ready"]).wait_until_ready(container)
with (
    DockerContainer("busybox", volumes=[(str(here), "/here", "rw")])
    .with_command(["sh", "-c", "sleep 0.2; touch /here/there; sleep 1000"])
    .waiting_for(FileExistsWaitStrategy(here / "there"))
):
    assert (here / "there").exists()

# One that ends before it has said it.
never = DockerContainer("busybox").with_command(["sh", "-c", "echo no; exit 3"])
try:
    never.waiting_for(LogMessageWaitStrategy("never said").with_startup_timeout(20)).start()
except RuntimeError as error:
    assert "exited" in str(error) and "3" in str(error), error
else:
    raise AssertionError("it said nothing")
assert never.wait() == 3
never.stop()

# A network with names.
with Network() as network:
    server = (
        DockerContainer("busybox")
        .with_network(network)
        .with_network_aliases("db", "database")
        .with_command(["sh", "-c", "mkdir /www; echo rows >/www/index.html; echo up; exec httpd -f -p 80 -h /www"])
        .waiting_for(LogMessageWaitStrategy("up"))
    )
    with server, DockerContainer("busybox").with_network(network).with_command("sleep 1000") as client:
        for name in ("db", "database"):
            assert client.exec(["wget", "-q", "-O", "-", f"http://{name}/"]) == (0, b"rows\n"), name

# What nobody has: the registry that would be asked cannot be reached, or has not got it.
try:
    DockerContainer("nobody:1").start()
except docker.errors.APIError as error:
    assert error.status_code in (404, 500, 503), error
else:
    raise AssertionError("it is not absent")

# Everything was taken away with its container.
client = docker.from_env()
assert client.containers.list(all=True) == [] and client.volumes.list() == []
assert sorted(network.name for network in client.networks.list()) == ["bridge", "host", "none"]

print("passed")
