"""What the client costs beside curl: CPU-seconds for one GiB each way, and for ``list``.

    python benchmarks/client.py [--runs 5] [--mib 1024]

Both fetch from and send to one daemon of ours, in turns; each figure is the
median of the runs, user and system time of the process.  Ours digests what it
moves and compares, which curl does not: so curl stands there alone, and with
``openssl dgst -sha256`` of the same file behind it.  ``list`` is compared with
a Python that imports treq and makes one TLS handshake.  The ratios come last.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.server import ROOT, Daemon, Person

BARE = """
import http.client, ssl, sys
import treq
context = ssl.create_default_context(capath=sys.argv[2])
context.load_cert_chain(sys.argv[1])
connection = http.client.HTTPSConnection("localhost", int(sys.argv[3]), context=context)
connection.connect()
connection.close()
"""
TARGET = 1.5


def cost(command: list[str], environ: dict[str, str], place: Path) -> tuple[float, int]:
    """CPU-seconds and peak memory (KiB) of a command that must succeed."""
    child = subprocess.Popen(command, env=environ, cwd=place, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, command
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def commands(person: Person) -> dict[str, dict[str, list[str]]]:
    """What is measured: ours, what it is compared with, and the digest, if it has one."""
    daemon = person.daemon
    ours = [sys.executable, "-m", "repoman.cli", "-H", f"localhost:{daemon.https}"]
    curl = ["curl", "--fail", *person.curl]
    url = f"{daemon.url}/api/images/raw/{person.name}/vm"
    digest = ["openssl", "dgst", "-sha256", "disk"]
    bare = [sys.executable, "-c", BARE, str(person.proxy), str(daemon.ca_directory)]
    put, get = [*ours, "put", "-f", "disk", "vm"], [*ours, "get", "vm", "-d", "ours"]
    return {
        "put": {"ours": put, "theirs": [*curl, "-T", "disk", url], "digest": digest},
        "get": {"ours": get, "theirs": [*curl, "-o", "theirs", url], "digest": digest},
        "list": {"ours": [*ours, "list"], "theirs": [*bare, str(daemon.https)]},
    }


def measure(place: Path, runs: int, mib: int) -> dict[str, float]:
    """The ratios, with a line on the way for each figure."""
    with (place / "disk").open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(2**20))
    ratios = {}
    (place / "daemon").mkdir()
    with Daemon(place / "daemon").running() as daemon:
        person = daemon.newcomer()
        person.ask("POST", "/api/images", form={"name": "vm"})
        environ = {
            "PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": str(ROOT),
            "X509_USER_PROXY": str(person.proxy), "X509_CERT_DIR": str(daemon.ca_directory),
        }  # fmt: skip
        for what, each in commands(person).items():
            found: dict[str, list[tuple[float, int]]] = {name: [] for name in each}
            for _ in range(runs):
                for name, command in each.items():
                    found[name].append(cost(command, environ, place))
            cpu = {name: statistics.median(c for c, _ in costs) for name, costs in found.items()}
            peak = max(memory for _, memory in found["ours"]) // 1024
            figures = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in cpu.items())
            print(f"{what}: {figures}; ours takes at most {peak} MiB")
            ratios[what] = cpu["ours"] / cpu["theirs"]
            if "digest" in cpu:
                ratios[f"{what}, digest included"] = cpu["ours"] / (cpu["theirs"] + cpu["digest"])
    return ratios


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        ratios = measure(Path(place), options.runs, options.mib)
    for what, ratio in ratios.items():
        print(f"{what} ratio {ratio:.2f} (target {TARGET})")


if __name__ == "__main__":
    main()
