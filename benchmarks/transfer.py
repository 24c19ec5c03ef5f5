"""What a download and an upload cost, beside another server: CPU-seconds per GiB, and the ratio.

Both servers run on loopback with TLS 1.3 and the same cipher and keys; curl is
the client.  They take turns; figures are medians.  Our client shows a proxy,
nginx's and Apache's an end-entity certificate, since they refuse proxies.

    python benchmarks/transfer.py [--rounds 5] [--size 1GiB] [--peer NAME] [download|upload]

Peers: nginx, apache; stock, which is ourselves with Twisted's own TLS; and ceph, which is
ourselves with the bytes in a Ceph.
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
from functools import partial
from pathlib import Path

from attrs import frozen
from peers import GIB, PEERS, Daemon, Peer, cpu, curl, forget_peak, peak_memory, wait_until_idle

from repoman.settings import size


@frozen
class Figures:
    """Of one transfer: CPU-seconds per GiB, bytes per second, peak memory in MiB."""

    cpu: float
    speed: float
    peak: int


def measured(pid: int, transfer: Callable[[], None], length: int) -> Figures:
    """Run one transfer of ``length`` bytes."""
    forget_peak(pid)
    before, begun = cpu(pid), time.monotonic()
    transfer()
    seconds = time.monotonic() - begun
    time.sleep(0.05)
    return Figures((cpu(pid) - before) * GIB / length, length / seconds, peak_memory(pid))


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
    parser.add_argument("--peer", default="nginx", choices=PEERS)
    options = parser.parse_args()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.chmod(0o711)
        (place / "ours").mkdir()
        (place / "peer").mkdir()
        daemon = stack.enter_context(Daemon(place / "ours").running())
        peer = stack.enter_context(PEERS[options.peer](place / "peer", daemon))
        source = peer.root / "image"
        with source.open("wb") as file:
            for _ in range(options.size >> 20):
                file.write(os.urandom(1 << 20))
        compare(options.what, daemon, peer, source, options.rounds)


def compare(what: str, daemon: Daemon, peer: Peer, source: Path, rounds: int) -> None:
    """Let the two take turns, and print a table."""
    admin = daemon.admin
    assert admin.proxy is not None
    assert admin.credential is not None
    assert daemon.process is not None
    certificate, key = source.parent / "usercert.pem", source.parent / "userkey.pem"
    admin.credential.write_pair(certificate, key)
    admin.ask("POST", "/api/images", form={"name": "image"})
    ours = f"{daemon.url}/api/images/raw/{admin.name}/image"
    theirs = {"download": [peer.file], "upload": ["-T", source, peer.upload]}
    words = {"download": [ours], "upload": ["-T", source, ours]}
    turns = {
        peer.name: (peer.pid, partial(curl, daemon, certificate, key, *theirs[what])),
        "repoman": (
            daemon.process.pid,
            partial(curl, daemon, admin.proxy, admin.proxy, *words[what]),
        ),
    }
    curl(daemon, admin.proxy, admin.proxy, *words["upload"])
    if peer.is_ours:
        curl(daemon, certificate, key, *theirs["upload"])
    length = source.stat().st_size
    figures: dict[str, list[Figures]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, (pid, turn) in turns.items():
            wait_until_idle(daemon.process.pid)
            wait_until_idle(peer.pid)
            found = measured(pid, turn, length)
            if number:  # the first round warms up
                figures[name].append(found)
    hashing = hash_cost(source) if what == "upload" and not peer.is_ours else 0.0
    report(what, figures, hashing)


def report(what: str, figures: dict[str, list[Figures]], hashing: float) -> None:
    """Print the table, and the ratio last."""
    count = len(figures["repoman"])
    print(f"{what}: CPU-s per GiB (from, to), MB/s and peak MiB; medians of {count}")
    median = {}
    for name, found in figures.items():
        median[name] = statistics.median(one.cpu for one in found)
        spread = f"{min(one.cpu for one in found):.2f} to {max(one.cpu for one in found):.2f}"
        speed = statistics.median(one.speed for one in found) / 1e6
        peak = max(one.peak for one in found)
        print(f"  {name:8} {median[name]:6.2f} ({spread}) {speed:7.0f} {peak:5}")
    if hashing:
        print(f"  sha256   {hashing:6.2f} of the same bytes, which the other does not compute")
    ours = median.pop("repoman")
    print(f"ratio {ours / (sum(median.values()) + hashing):.2f}")


if __name__ == "__main__":
    main()
