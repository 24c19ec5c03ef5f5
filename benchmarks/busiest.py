"""Where a transfer's time goes: the lines of code that a sampling profiler finds busy.

    python benchmarks/busiest.py [--peer stock] [--rounds 4] [download|upload]

``--peer stock`` profiles the same daemon with Twisted's own TLS, which is what
was before.  Needs py-spy (pip install py-spy) and the right to trace.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from peers import GIB, Daemon, curl, wait_until_idle

LINES = 12
"""How many lines of the table are printed."""


def recorded(pid: int, samples: Path, work: list[list[object]], daemon: Daemon) -> None:
    """Let py-spy watch a process while curl does the work."""
    program = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        sys.exit("py-spy is not installed: pip install py-spy")
    watching = subprocess.Popen(
        [program, "record", "--pid", str(pid), "--rate", "400", "--nonblocking",
         "--format", "raw", "--output", str(samples), "--duration", "3600"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert daemon.admin.proxy is not None
    for arguments in work:
        curl(daemon, daemon.admin.proxy, daemon.admin.proxy, *arguments)
    watching.send_signal(2)  # as Ctrl-C does: it writes what it has
    watching.wait()


def report(samples: Path) -> None:
    """Print the busiest lines, with their share of the time in which the daemon ran."""
    busy: Counter[str] = Counter()
    for line in samples.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if "doPoll" not in stack.rpartition(";")[2]:  # there it waits
            busy[stack.rpartition(";")[2]] += int(count)
    for line, count in busy.most_common(LINES):
        print(f"  {100 * count / busy.total():5.1f} %  {line}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="download", choices=("download", "upload"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--peer", default="repoman", choices=("repoman", "stock"))
    options = parser.parse_args()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "ours").mkdir()
        daemon = Daemon(place / "ours")
        if options.peer == "stock":
            daemon.twistd = [sys.executable, Path(__file__).with_name("stock_twistd.py")]
        stack.enter_context(daemon.running())
        assert daemon.process is not None
        pid, source = daemon.process.pid, place / "image"
        with source.open("wb") as file:
            for _ in range(GIB >> 20):
                file.write(os.urandom(1 << 20))
        daemon.admin.ask("POST", "/api/images", form={"name": "image"})
        url = f"{daemon.url}/api/images/raw/{daemon.admin.name}/image"
        put: list[object] = ["-T", source, url]
        recorded(pid, place / "first", [put], daemon)
        wait_until_idle(pid)
        work = [put] if options.what == "upload" else [[url]]
        recorded(pid, place / "samples", work * options.rounds, daemon)
        print(f"{options.what}, {options.peer}: share of the time in which the daemon ran")
        report(place / "samples")


if __name__ == "__main__":
    main()
