"""What two workers cost beside one, and whether they share the load.

Clients of a fixed rate download one image over TLS, from two workers and then from one.  Shares
are of the CPU-seconds of each worker; costs are of all processes of the daemon.

    python benchmarks/workers.py [--clients 16] [--rate 20MiB] [--seconds 20]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

from attrs import frozen
from peers import GIB, Daemon, cpu, wait_until_idle

from repoman.settings import size


@frozen
class Figures:
    """CPU-seconds of each worker, and CPU-seconds per GiB of the whole daemon."""

    each: list[float]
    cost: float


def workers_of(daemon: Daemon, count: int) -> list[int]:
    """The processes that serve."""
    assert daemon.process is not None
    pid = daemon.process.pid
    if count == 1:
        return [pid]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children if b"--logger=" in Path(f"/proc/{c}/cmdline").read_bytes()]


def measure(place: Path, count: int, options: argparse.Namespace) -> Figures:
    """Let the clients load a daemon of ``count`` workers."""
    place.mkdir()
    length = options.rate * options.seconds
    with Daemon(place, server={"workers": count}).running() as daemon:
        admin = daemon.admin
        assert daemon.process is not None
        admin.ask("POST", "/api/images", form={"name": "image"})
        image = place / "image"
        with image.open("wb") as file:
            file.truncate(length)
        url = f"{daemon.url}/api/images/raw/{admin.name}/image"
        subprocess.run(
            ["curl", *admin.curl, "--fail", "-o", "/dev/null", "-T", image, url], check=True
        )
        admin.hang_up()
        time.sleep(2)  # all workers have begun
        wait_until_idle(daemon.process.pid)
        pids, whole = workers_of(daemon, count), daemon.process.pid
        before, all_before = [cpu(pid) for pid in pids], cpu(whole)
        fetch = ["curl", *admin.curl, "--fail", "--tls13-ciphers", "TLS_AES_256_GCM_SHA384",
                 "--limit-rate", str(options.rate), "-o", "/dev/null", url]  # fmt: skip
        clients = [subprocess.Popen(fetch) for _ in range(options.clients)]
        assert [client.wait() for client in clients] == [0] * options.clients
        each = [cpu(pid) - one for pid, one in zip(pids, before, strict=True)]
        return Figures(each, (cpu(whole) - all_before) * GIB / (length * options.clients))


def main() -> None:
    """Measure and print; the ratio last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rate", type=size, default=20 << 20)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = {count: measure(Path(place) / str(count), count, options) for count in (1, 2)}
    for count, figures in found.items():
        shares = " ".join(f"{one / sum(figures.each):.0%}" for one in figures.each)
        print(f"workers {count}: {figures.cost:.2f} CPU-s per GiB, shares {shares}")
    print(f"ratio {found[2].cost / found[1].cost:.2f}")


if __name__ == "__main__":
    main()
