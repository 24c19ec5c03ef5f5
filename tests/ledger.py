"""What holds after every fault: nothing acknowledged lost, nothing left behind, quotas exact.

::

    ledger = Ledger(daemon)
    with ledger.fault() as figures:       # measures the reactor while the block runs
        ...                               # do harm
    ledger.put(person, "image", content)  # an upload whose fate is followed
    ledger.check()                        # every promise, after one sweep
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
from attrs import asdict, define, field

from tests.postgres import on_server
from tests.server import ROOT, Answer, Daemon, Person

PROMISED_LAG = 100.0
"""The longest that the daemon may hold up its reactor, in milliseconds."""

ANSWER_WITHIN = 1.0
"""Seconds in which it answers whatever needs no database."""

WRONG_QUOTAS = """
SELECT user_name, used, stored, reserved, promised FROM (
    SELECT user_name, used, reserved,
           coalesce(sum(size) FILTER (WHERE state IN ('present', 'damaged')), 0) AS stored,
           coalesce(sum(b.reserved_bytes) FILTER (WHERE state = 'receiving'), 0) AS promised
      FROM account LEFT JOIN (
           SELECT payer_id, size, state, reserved AS reserved_bytes FROM blob) b
        ON b.payer_id = account.account_id
     GROUP BY user_name, used, reserved) AS counted
 WHERE used <> stored OR reserved <> promised
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class LateDaemon(Daemon):
    """A daemon whose reactor's lateness is noted by :mod:`tests.late_twistd`."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self.lateness = directory / "late"
        storage = settings.get("storage", {})
        self.blobs = Path(storage.get("directory", directory / "state" / "blobs"))
        launcher = ROOT / "tests" / "late_twistd.py"
        python = self.twistd[:-1] or [sys.executable]
        self.twistd = ["/usr/bin/env", f"LATE_FILE={self.lateness}", *python, launcher]

    def latest(self, since: float) -> tuple[float, float]:
        """The longest lateness since then, in milliseconds: in all, and of its own making."""
        noted = [(0.0, 0.0, 0.0)]
        if self.lateness.exists():
            lines = self.lateness.read_text().splitlines()
            noted += [tuple(map(float, line.split())) for line in lines]  # type: ignore[misc]
        found = [line for line in noted if line[0] >= since or line[0] == 0]
        return max(line[1] for line in found), max(line[2] for line in found)


@define
class Figures:
    """What was measured while something went wrong.

    :ivar stall: the reactor's longest stall of its own making, in milliseconds.
    :ivar late: the longest lateness, whoever's fault it was, in milliseconds.
    :ivar answer: the longest that a request that needs no database took, in seconds.
    :ivar heal: seconds until everything worked again.
    """

    stall: float = 0.0
    late: float = 0.0
    answer: float = 0.0
    heal: float = 0.0


class Board(Protocol):
    """Takes what a scenario has shown to the scoreboard."""

    def __call__(self, ledger: Ledger, figures: Figures | None = None) -> None:
        """Note the ledger's counts, and the figures."""


@pytest.fixture
def board(record_property: Callable[[str, object], None]) -> Board:
    """For ``make scoreboard``: see :mod:`tests.scoreboard`."""

    def note(ledger: Ledger, figures: Figures | None = None) -> None:
        counts = {"lost": ledger.lost, "wrong": ledger.wrong, "orphans": ledger.orphans}
        record_property("scoreboard", counts | asdict(figures or Figures()))

    return note


class Probe:
    """Asks, again and again from outside, what a daemon can answer by itself."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._over = threading.Event()
        self.worst = 0.0

    def __enter__(self) -> Probe:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.http, timeout=30)
        while not self._over.wait(0.02):
            begun = time.monotonic()
            try:
                connection.request("GET", "/nothing")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()  # it was killed, or stopped; others look at that
            else:
                self.worst = max(self.worst, time.monotonic() - begun)


@define
class Fate:
    """What may be under an image's name.

    :ivar acknowledged: the digest of the last upload that got its 200; ``None`` for none yet.
    :ivar possible: digests of later ones whose answer never came.
    """

    acknowledged: str | None = None
    possible: set[str] = field(factory=set)


class Ledger:
    """Follows uploads, and holds the daemon to them.

    :ivar fates: by person's name and image.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.fates: dict[tuple[str, str], Fate] = {}
        self.people: dict[str, Person] = {}
        self.lost = self.wrong = self.orphans = 0

    def put(self, person: Person, image: str, content: bytes) -> int:
        """Upload, and remember what was answered; answer the status, 0 for none."""
        fate = self._fate(person, image)
        fate.possible.add(digest := sha256(content))
        try:
            status = person.ask("PUT", f"/api/images/raw/{image}", body=content).status
        except (OSError, http.client.HTTPException):
            return 0
        self.answered(person, image, digest, status)
        return status

    def answered(self, person: Person, image: str, digest: str, status: int) -> None:
        """An upload of these bytes got this answer."""
        fate = self._fate(person, image)
        if status == 200:
            fate.acknowledged, fate.possible = digest, set()
        elif status not in (500, 503):
            fate.possible.discard(digest)  # it was refused for good

    def could_be(self, person: Person, image: str, answer: Answer) -> bool:
        """What was fetched is what was acknowledged last, or may have come after it."""
        fate = self._fate(person, image)
        if answer.status != 200:
            return answer.status == 503 or fate.acknowledged is None
        return sha256(answer.body) in {fate.acknowledged, *fate.possible}

    def _fate(self, person: Person, image: str) -> Fate:
        self.people[person.name] = person
        return self.fates.setdefault((person.name, image), Fate())

    @contextmanager
    def fault(self) -> Iterator[Figures]:
        """Measure the daemon while the block runs."""
        figures, begun = Figures(), time.monotonic()
        with Probe(self.daemon) as probe:
            yield figures
        figures.answer = probe.worst
        if isinstance(self.daemon, LateDaemon):
            figures.late, figures.stall = self.daemon.latest(begun)

    # -- the promises --

    def check(self) -> None:
        """Every promise, after one sweep."""
        self.check_bytes()
        self.check_store()
        assert not self.wrong_quotas()
        assert "Traceback" not in self.daemon.log.read_text()

    def check_bytes(self) -> None:
        """Every acknowledged upload is served byte for byte, or one that came after it."""
        for (name, image), fate in self.fates.items():
            answer = self.people[name].ask("GET", f"/api/images/raw/{image}")
            found = sha256(answer.body) if answer.status == 200 else None
            if fate.acknowledged is not None and found is None:
                self.lost += 1
            elif found is not None and found not in {fate.acknowledged, *fate.possible}:
                self.wrong += 1
            fate.acknowledged, fate.possible = found, set()  # now we know
        assert (self.lost, self.wrong) == (0, 0)

    def check_store(self, seconds: float = 20.0) -> None:
        """After one sweep there is a file for each record, and none besides."""
        end = time.monotonic() + seconds
        while (files := self.files()) != (rows := self.rows()) and time.monotonic() < end:
            time.sleep(0.1)
        self.orphans += len(files - rows)
        assert files == rows

    def wait_for_sweep(self, seconds: float = 60.0) -> None:
        """Until the room of all that was deleted or given up is free again."""
        left = "SELECT blob FROM blob WHERE state = 'deleting'"
        assert wait_for(lambda: not (self.query(left) or self.held()), seconds) < seconds

    def held(self) -> set[str]:
        """The files of the store that are removed and open: their room is free only when closed.

        Those of an image that was deleted while it was read, as by who computes its digests.
        """
        held, store = set(), str(self.store)
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended, and so did what it held
                for entry in (process / "fd").iterdir():
                    with suppress(OSError):
                        held.add(os.readlink(entry))
        return {path for path in held if path.startswith(store) and path.endswith(" (deleted)")}

    @property
    def store(self) -> Path:
        """Where the blobs are."""
        return Path(getattr(self.daemon, "blobs", self.daemon.directory / "state" / "blobs"))

    def files(self) -> set[str]:
        """The keys of all blobs in the store."""
        return {
            path.name
            for place in (self.store / "incoming", self.store / "data")
            for path in place.rglob("*")
            if len(path.name) == 32 and not path.is_dir()
        }

    def rows(self) -> set[str]:
        """The keys of all blobs in the database."""
        return {row[0] for row in self.query("SELECT blob FROM blob")}

    def wrong_quotas(self) -> list[tuple[Any, ...]]:
        """Accounts whose count is not that of their files and reservations."""
        return self.query(WRONG_QUOTAS)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the daemon's database."""
        return on_server(self.daemon.dsn, statement)


def wait_for(condition: Callable[[], Any], seconds: float) -> float:
    """Seconds until the condition holds; it may also never do."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if condition():
            break
        time.sleep(0.1)
    return time.monotonic() - begun


def pid_of(daemon: Daemon) -> int:
    """The daemon's process."""
    assert daemon.process is not None
    return daemon.process.pid


def children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def helper_of(daemon: Daemon) -> int:
    """The daemon's helper process, which makes files durable."""
    [helper] = [
        pid
        for pid in children(pid_of(daemon))
        if b"flush_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return helper


def postmaster_of(daemon: Daemon) -> int:
    """The PostgreSQL of a daemon's own."""
    lines = (daemon.directory / "state/database/data/postmaster.pid").read_text().splitlines()
    return int(lines[0])


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Processes do not move while the block runs."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def tampered(pid: int, *injections: str) -> Iterator[None]:
    """System calls of a process, and of all its forks, go wrong: strace's ``inject=``."""
    if (strace := shutil.which("strace")) is None:
        pytest.skip("needs strace")
    options = [word for injection in injections for word in ("-e", f"inject={injection}")]
    command = [strace, "-f", "-q", "-o", "/dev/null", *options, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracing:
        wait_for(lambda: f"TracerPid:\t{tracing.pid}" in status(pid), 10)
        if tracing.poll() is not None:
            pytest.skip("strace may not attach")
        try:
            yield
        finally:
            tracing.terminate()


def status(pid: int) -> str:
    """What the kernel says of a process; nothing, if it is no more."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return ""


def kill(daemon: Daemon) -> None:
    """Kill the daemon the hard way."""
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()


def restart(daemon: Daemon) -> float:
    """Kill the daemon, if it still runs, and start it again; seconds until it served."""
    kill(daemon)
    for person in daemon._people:
        person.hang_up()
    begun = time.monotonic()
    daemon.start()
    return time.monotonic() - begun
