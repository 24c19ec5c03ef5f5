"""What a download costs us whose bytes come from the store: CPU, for small and large images.

    python benchmarks/redirect.py [--rounds 9]

The daemon keeps its bytes in a Ceph on the same machine and sends every client
there (``[storage] redirect = public``); the client fetches all of them.  Then it
fetches them once more by the address that it has, of which the daemon learns
nothing: what that uses meanwhile, on a machine as busy, is taken off.  A
download begins every eight seconds, whatever the size.  The ratio is that of
the largest image's cost to the smallest's.
"""

from __future__ import annotations

import argparse
import http.client
import ssl
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from peers import Daemon, free_ports, in_ceph, wait_until_idle

from repoman.settings import size
from tests.gateway import tls_gateway

SIZES = ("1MiB", "64MiB", "1GiB")
EVERY = 8.0
"""Seconds from one download to the next: a rare request finds cold caches, and costs more."""


def used(pid: int) -> float:
    """CPU-seconds of a process and its descendants so far, to the microsecond."""
    total, waiting = 0, [pid]
    while waiting:
        task = Path(f"/proc/{waiting.pop()}/task")
        for thread in task.iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
            waiting += map(int, (thread / "children").read_text().split())
    return total / 1e9


def store(daemon: Daemon, name: str, length: int) -> None:
    """Let there be a public image."""
    daemon.admin.ask("POST", "/api/images", form={"name": name, "unauthenticated_access": True})
    with tempfile.TemporaryFile() as file:
        file.truncate(length)
        answer = daemon.admin.ask("PUT", f"/api/images/raw/{name}", body=file)
    assert answer.status == 200, answer


def ask(daemon: Daemon, name: str) -> str:
    """Where in the store the image is."""
    path = f"/api/images/raw/{name}"
    answer = daemon.admin.ask("GET", path, headers={"Prefer": "redirect"})
    assert answer.status == 307, answer
    return answer.headers["Location"]


def fetch(daemon: Daemon, location: str, length: int) -> None:
    """Take all bytes from the store."""
    parts, count = urlsplit(location), 0
    tls = ssl.create_default_context(capath=str(daemon.ca_directory))
    with closing(http.client.HTTPSConnection(parts.netloc, context=tls)) as connection:
        connection.request("GET", f"{parts.path}?{parts.query}")
        reply = connection.getresponse()
        while piece := reply.read(1 << 20):
            count += len(piece)
    assert count == length


def cost(daemon: Daemon, name: str, length: int) -> tuple[float, float]:
    """CPU-seconds of the daemon during a download, and during one that it does not know of."""
    assert daemon.process is not None
    pid = daemon.process.pid
    before = used(pid)
    location = ask(daemon, name)
    fetch(daemon, location, length)
    between = used(pid)
    fetch(daemon, location, length)
    return between - before, used(pid) - between


def served(daemon: Daemon, name: str, length: int) -> float:
    """CPU-seconds of the daemon during the same download, if it serves the bytes itself."""
    assert daemon.process is not None
    before, count = used(daemon.process.pid), 0
    with closing(daemon.admin.connection()) as connection:
        connection.request("GET", f"/api/images/raw/{name}", headers={"Prefer": "redirect=no"})
        reply = connection.getresponse()
        while piece := reply.read(1 << 20):
            count += len(piece)
    assert count == length
    return used(daemon.process.pid) - before


def measured(daemon: Daemon, text: str, rounds: int) -> float:
    """The cost of one size, printed."""
    name, length, costs = f"image{text}", size(text), list[tuple[float, float]]()
    store(daemon, name, length)
    assert daemon.process is not None
    wait_until_idle(daemon.process.pid)
    cost(daemon, name, length)  # to warm up
    for _ in range(rounds):
        ends = time.monotonic() + EVERY
        costs.append(cost(daemon, name, length))
        time.sleep(max(0.0, ends - time.monotonic()))
    during, without = (statistics.median(column) * 1000 for column in zip(*costs, strict=True))
    beyond = statistics.median(one - other for one, other in costs) * 1000
    ourselves = statistics.median(served(daemon, name, length) for _ in range(3)) * 1000
    print(
        f"  {text:>6} {beyond:6.2f} ({during:.2f} during it, {without:.2f} without it);"
        f" served by us {ourselves:.0f}",
        flush=True,
    )
    return beyond


def main() -> None:
    """Measure and print; the ratio last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory, in_ceph(Path(directory) / "ceph") as cluster:
        (place := Path(directory) / "daemon").mkdir()
        [port] = free_ports(1)
        storage = {
            **cluster.storage(cluster.bucket(), redirect="public", ca_file=place / "ca.pem"),
            "endpoint": f"https://localhost:{port}",
        }
        daemon = Daemon(place, storage=storage)
        (place / "ca.pem").write_bytes(daemon.grid.ca.pem())
        certificate, key = place / "hostcert.pem", place / "hostkey.pem"
        with tls_gateway(cluster, port, certificate, key), daemon.running():
            print(f"redirect: CPU-ms of the daemon per download; medians of {rounds}")
            costs = [measured(daemon, text, rounds) for text in SIZES]
            print(f"ratio {costs[-1] / costs[0]:.2f}")


if __name__ == "__main__":
    main()
