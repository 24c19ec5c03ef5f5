"""Requests for one image's metadata per CPU-second, beside OpenStack's Glance.

Ours over keep-alive TLS with a proxy certificate, PostgreSQL's CPU included;
Glance in the clear, with SQLite in its own process and no authentication.

    python benchmarks/metadata.py [--requests 4000] [--connections 8]

Needs Debian's glance-api.  Prints the ratio last.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import evolve
from peers import Daemon, cpu, free_ports

GLANCE = """
[DEFAULT]
bind_host = 127.0.0.1
bind_port = {port}
workers = 0
log_file = {place}/glance.log
enabled_backends = files:file
[glance_store]
default_backend = files
[files]
filesystem_store_datadir = {place}/images
[os_glance_staging_store]
filesystem_store_datadir = {place}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {place}/tasks
[database]
connection = sqlite:///{place}/glance.sqlite
[paste_deploy]
flavor =
"""


@contextmanager
def glance(place: Path) -> Iterator[tuple[int, int]]:
    """A Glance without authentication; yields its port and pid."""
    if shutil.which("glance-api") is None:
        sys.exit("Glance is not installed: apt install glance-api")
    [port] = free_ports(1)
    config = place / "glance-api.conf"
    config.write_text(GLANCE.format(port=port, place=place))
    for name in ("images", "staging", "tasks"):
        (place / name).mkdir()
    options = ["--config-file", str(config)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["glance-manage", *options, "db_sync"], check=True, **quiet)
    subprocess.run(["glance-manage", *options, "db_load_metadefs"], check=False, **quiet)
    process = subprocess.Popen(["glance-api", *options], **quiet)
    try:
        for _ in range(300):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/v2/images")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                pass
            time.sleep(0.1)
        else:
            sys.exit(f"Glance does not answer; see {place}/glance.log")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def rate(pid: int, asking: Sequence[Callable[[], int]], count: int) -> tuple[float, float]:
    """Requests per CPU-second and per second, all connections together."""

    def ask(one: Callable[[], int], times: int) -> None:
        for _ in range(times):
            assert one() == 200

    with ThreadPoolExecutor(len(asking)) as clients:
        list(clients.map(ask, asking, [10] * len(asking)))
        before, begun = cpu(pid), time.monotonic()
        list(clients.map(ask, asking, [count // len(asking)] * len(asking)))
        seconds = time.monotonic() - begun
    asked = count // len(asking) * len(asking)
    return asked / max(cpu(pid) - before, 0.01), asked / seconds


def glance_client(port: int, image: str) -> Callable[[], int]:
    """What asks Glance for an image, again and again on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask() -> int:
        connection.request("GET", f"/v2/images/{image}")
        answer = connection.getresponse()
        answer.read()
        return answer.status

    return ask


def our_client(daemon: Daemon) -> Callable[[], int]:
    """What asks ours."""
    # Somebody with the same proxy, but a connection of their own.
    person = evolve(daemon.admin, connection=None)
    return lambda: person.ask("GET", "/api/images/one").status


def main() -> None:
    """Measure and print; the ratio last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    count = options.requests
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.chmod(0o711)
        (place / "ours").mkdir()
        (place / "glance").mkdir()
        daemon = stack.enter_context(Daemon(place / "ours").running())
        port, pid = stack.enter_context(glance(place / "glance"))
        connection = http.client.HTTPConnection("127.0.0.1", port)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v2/images", json.dumps({"name": "one"}), headers)
        answer = connection.getresponse()
        image = json.loads(answer.read())["id"]

        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        assert daemon.process is not None
        clients = range(options.connections)
        theirs = rate(pid, [glance_client(port, image) for _ in clients], max(count // 10, 40))
        ours = rate(daemon.process.pid, [our_client(daemon) for _ in clients], count)
        print("one image's metadata, requests per CPU-second and per second")
        for name, (per_cpu, per_second) in {"glance": theirs, "repoman": ours}.items():
            print(f"  {name:8} {per_cpu:7.0f} {per_second:7.0f}")
        print(f"ratio {ours[0] / theirs[0]:.1f}")


if __name__ == "__main__":
    os.umask(0o022)
    main()
