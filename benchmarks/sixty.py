"""One image pulled by sixty machines at once, beside nginx: speed, fairness, memory.

    python benchmarks/sixty.py [--clients 60] [--size 128MiB]

One curl process makes all connections.  Prints aggregate MB/s of both, the
slowest client over the median, how much the daemon's memory grew, its threads,
and the slowest small request meanwhile; the ratio of the aggregates last.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from peers import Daemon, Peer, nginx, wait_until_idle

from repoman.settings import size


def pull(daemon: Daemon, url: str, clients: int, place: Path) -> subprocess.Popen[str]:
    """Start ``clients`` downloads of ``url`` at once."""
    plan = place / "plan"
    plan.write_text("".join(f'url = "{url}"\noutput = "/dev/null"\n' for _ in range(clients)))
    assert daemon.admin.credential is not None
    certificate, key = place / "usercert.pem", place / "userkey.pem"
    daemon.admin.credential.write_pair(certificate, key)
    return subprocess.Popen(
        ["curl", "-sS", "--no-progress-meter", "--fail", "--parallel", "--parallel-immediate",
         "--parallel-max", str(clients), "--http1.1", "--capath", str(daemon.ca_directory),
         "--cert", str(certificate), "--key", str(key), "-K", str(plan),
         "-w", "%{time_total} %{size_download}\n"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def resident(pid: int) -> int:
    """Resident memory of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


def main() -> None:
    """Measure and print; the ratio last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--size", type=size, default=128 << 20)
    options = parser.parse_args()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.chmod(0o711)
        (place / "ours").mkdir()
        (place / "nginx").mkdir()
        daemon = stack.enter_context(Daemon(place / "ours").running())
        peer = stack.enter_context(nginx(place / "nginx", daemon))
        measure(daemon, peer, place, options.clients, options.size)


def measure(daemon: Daemon, peer: Peer, place: Path, clients: int, length: int) -> None:
    """Let both serve, one after the other."""
    source = peer.root / "image"
    source.write_bytes(os.urandom(length))
    daemon.admin.ask("POST", "/api/images", form={"name": "image"})
    stored = daemon.admin.ask("PUT", "/api/images/raw/image", body=source.read_bytes())
    assert stored.status == 200, stored
    assert daemon.process is not None
    wait_until_idle(daemon.process.pid)
    pid, total = daemon.process.pid, clients * length / 1e6
    speeds = {}
    for name, url in {
        "nginx": peer.file,
        "repoman": f"{daemon.url}/api/images/raw/image",
    }.items():
        idle, most, threads, slowest_small = resident(pid), 0, 0, 0.0
        begun = time.monotonic()
        running = pull(daemon, url, clients, place)
        while running.poll() is None:
            most, threads = max(most, resident(pid)), len(os.listdir(f"/proc/{pid}/task"))
            if name == "repoman":
                asked = time.monotonic()
                daemon.admin.ask("GET", "/api/images/image")
                slowest_small = max(slowest_small, time.monotonic() - asked)
            time.sleep(0.05)
        speeds[name] = total / (time.monotonic() - begun)
        lines = [line.split() for line in running.communicate()[0].splitlines()]
        assert [int(line[1]) for line in lines] == [length] * clients, f"{name}: not all arrived"
        times = sorted(float(line[0]) for line in lines)
        fairness = times[-1] / statistics.median(times)
        print(f"{name:8} {speeds[name]:7.0f} MB/s, slowest {fairness:.2f} x the median")
        if name == "repoman":
            print(
                f"         memory +{most - idle} MiB, {threads} thread(s),"
                f" slowest small request {slowest_small * 1000:.0f} ms"
            )
    print(f"ratio {speeds['repoman'] / speeds['nginx']:.2f}")


if __name__ == "__main__":
    main()
