"""What a download and an upload cost, beside nginx: CPU-seconds per GiB, and the ratio.

Both servers run on loopback with TLS 1.3 and the same cipher and keys; curl is
the client.  They take turns; figures are medians.  Our client shows a proxy,
nginx's an end-entity certificate, since nginx refuses proxies.

    python benchmarks/transfer.py [--rounds 5] [--size 1GiB] [download|upload]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from peers import GIB, Daemon, cpu, curl, nginx

from repoman.settings import size


def measured(pid: int, transfer: Callable[[], None], gib: float) -> tuple[float, float]:
    """CPU-seconds per GiB, and MB/s, of one transfer."""
    before, begun = cpu(pid), time.monotonic()
    transfer()
    seconds = time.monotonic() - begun
    time.sleep(0.05)
    return (cpu(pid) - before) / gib, gib * GIB / seconds / 1e6


def hash_cost(path: Path) -> float:
    """CPU-seconds per GiB of hashing the same bytes, as the upload does."""
    digest, spent, count = hashlib.sha256(), 0.0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 18):
            begun = time.process_time()
            digest.update(block)
            spent += time.process_time() - begun
            count += len(block)
    return spent * GIB / count


def main() -> None:
    """Measure and print; the ratio last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="download", choices=("download", "upload"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=size, default=GIB)
    options = parser.parse_args()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.chmod(0o711)
        (place / "ours").mkdir()
        (place / "nginx").mkdir()
        daemon = stack.enter_context(Daemon(place / "ours").running())
        theirs, nginx_pid = stack.enter_context(nginx(place / "nginx", daemon))
        compare(options.what, daemon, place, theirs, nginx_pid, options.rounds, options.size)


def compare(
    what: str, daemon: Daemon, place: Path, theirs: str, nginx_pid: int, rounds: int, length: int
) -> None:
    """Let the two take turns, and print a table."""
    source = place / "nginx" / "root" / "image"
    with source.open("wb") as file:
        for _ in range(length >> 20):
            file.write(os.urandom(1 << 20))
    gib = length / GIB
    admin = daemon.admin
    assert admin.proxy is not None
    assert admin.credential is not None
    assert daemon.process is not None
    certificate, key = place / "usercert.pem", place / "userkey.pem"
    admin.credential.write_pair(certificate, key)
    admin.ask("POST", "/api/images", form={"name": "image"})
    ours = f"{daemon.url}/api/images/raw/{admin.name}/image"
    curl(daemon, admin.proxy, admin.proxy, "-T", source, ours)
    time.sleep(3 + 3 * gib)  # let the other digests be computed, which is not what is measured
    turns: dict[str, Callable[[], None]]
    if what == "download":
        turns = {
            "nginx": lambda: curl(daemon, certificate, key, f"{theirs}/image"),
            "repoman": lambda: curl(daemon, admin.proxy, admin.proxy, ours),
        }
    else:
        turns = {
            "nginx": lambda: curl(daemon, certificate, key, "-T", source, f"{theirs}/up/image"),
            "repoman": lambda: curl(daemon, admin.proxy, admin.proxy, "-T", source, ours),
        }
    pids = {"nginx": nginx_pid, "repoman": daemon.process.pid}
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            found = measured(pids[name], turn, gib)
            if number:  # the first round warms up
                figures[name].append(found)
            if what == "upload":
                time.sleep(1 + gib)
    report(what, figures, hash_cost(source) if what == "upload" else 0.0)


def report(what: str, figures: dict[str, list[tuple[float, float]]], hashing: float) -> None:
    """Print the table, and the ratio last."""
    print(f"{what}: CPU-s per GiB and MB/s, medians of {len(figures['nginx'])}")
    median = {}
    for name, found in figures.items():
        median[name] = statistics.median(f[0] for f in found)
        speed = statistics.median(f[1] for f in found)
        spread = f"{min(f[0] for f in found):.2f} to {max(f[0] for f in found):.2f}"
        print(f"  {name:10} {median[name]:6.2f}  ({spread})  {speed:7.0f} MB/s")
    if hashing:
        print(f"  sha256     {hashing:6.2f}  of the same bytes, which nginx does not compute")
    ratio = median["repoman"] / (median["nginx"] + hashing)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
