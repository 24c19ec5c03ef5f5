"""A day in the life of a daemon, in minutes: ``python -m tests.faults.soak --seconds 1800``.

Uploads in one piece and in parts, some cut; downloads, listings; a user suspended and let in again;
new CRLs; restarts of PostgreSQL; SIGHUPs.  Prints samples while it runs and a table at the end; the
status is 1 if anything has leaked, a request was answered 500, or bytes were wrong.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from attrs import asdict, define, field

from tests.credentials import crl, name_hash
from tests.ledger import children, pid_of, postmaster_of
from tests.server import ROOT, Daemon, Person

UPLOADERS, READERS = 3, 3
SIZES = (0, 10, 40_000, 700_000, 5_000_000)
WARM_UP = 0.2
"""The part of the time after which memory must be flat."""


@define
class Sample:
    """What the daemon holds at a moment.

    :ivar memory: resident, in MiB, of the daemon alone.
    """

    second: int
    memory: float
    descriptors: int
    processes: int
    threads: int
    deferreds: int = 0
    timers: int = 0
    readers: int = 0
    objects: int = 0


@define
class Tally:
    """What became of the requests."""

    statuses: Counter[str] = field(factory=Counter)
    wrong: list[str] = field(factory=list)
    lock: threading.Lock = field(factory=threading.Lock)

    def note(self, status: int | str, wrong: str = "") -> None:
        """One more request."""
        with self.lock:
            self.statuses[str(status)] += 1
            if wrong:
                self.wrong.append(wrong)


class Soak:
    """Everything that happens to one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.tally = Tally()
        self._over = threading.Event()
        self._census = daemon.directory / "census"
        self._people = [daemon.newcomer() for _ in range(UPLOADERS)]
        self._victim = daemon.newcomer()
        self._shared: dict[str, bytes] = {}

    def run(self, seconds: float) -> list[Sample]:
        """Let it happen for so long; answer the samples, the first and the last one at rest."""
        samples = [self.sample(0)]
        works = [
            *(lambda p=p: self._upload(p) for p in self._people),  # type: ignore[misc]
            *([self._read] * READERS), self._list, self._cut, self._suspend, self._revoke,
            self._hang_up, lambda: self._restart_postgres(seconds),
        ]  # fmt: skip
        threads = [threading.Thread(target=self._repeat, args=[work]) for work in works]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        while (passed := time.monotonic() - begun) < seconds:
            time.sleep(min(10, seconds / 10))
            samples.append(self.sample(int(passed)))
            print(samples[-1], file=sys.stderr, flush=True)
        self._over.set()
        for thread in threads:
            thread.join()
        for person in self.daemon._people:
            person.hang_up()
        time.sleep(15)  # the sweeper, the scrubber and the last connections come to rest
        samples.append(self.sample(int(time.monotonic() - begun)))
        return samples

    def sample(self, second: int) -> Sample:
        """Count what the daemon holds."""
        pid = pid_of(self.daemon)
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        self._census.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR2)
        end = time.monotonic() + 10
        while not self._census.exists() and time.monotonic() < end:
            time.sleep(0.05)
        held = json.loads(self._census.read_text())
        return Sample(
            second,
            round(int(status["VmRSS"].split()[0]) / 1024, 1),
            len(os.listdir(f"/proc/{pid}/fd")),
            len(children(pid)),
            int(status["Threads"]),
            **held,
        )

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                work()
            except (OSError, http.client.HTTPException, ssl.SSLError) as error:
                self.tally.note(type(error).__name__)

    def _pause(self, seconds: float) -> None:
        self._over.wait(seconds)

    def _ask(self, person: Person, method: str, path: str, *expected: int, **more: object) -> int:
        answer = person.ask(method, path, **more)  # type: ignore[arg-type]
        usual = answer.status in (*expected, 503)
        said = "" if usual else f"{method} {path}: {answer.status} {answer.text[:100]}"
        self.tally.note(answer.status, said)
        return answer.status

    def _upload(self, person: Person) -> None:
        name, content = f"{person.name}-{random.randrange(3)}", os.urandom(random.choice(SIZES))
        self._ask(person, "POST", "/api/images", 201, 409, form={"name": name})
        if random.random() < 0.3 and len(content) > 1:
            done = self._in_parts(person, name, content)
        else:
            # 409: only after an outage, in which the image was not made; 404 the same.
            path = f"/api/images/raw/{name}"
            done = self._ask(person, "PUT", path, 200, 404, 429, body=content) == 200
        if done:
            answer = person.ask("GET", f"/api/images/raw/{name}")
            right = answer.status == 503 or (answer.status == 200 and answer.body == content)
            self.tally.note(answer.status, "" if right else f"other bytes of {name}")
        if random.random() < 0.1:
            self._ask(person, "DELETE", f"/api/images/{name}", 200, 404)
        self._pause(0.05)

    def _in_parts(self, person: Person, name: str, content: bytes) -> bool:
        begun = person.ask(
            "POST", f"/api/images/raw/{name}",
            headers={"Upload-Complete": "?0", "Upload-Length": str(len(content))},
        )  # fmt: skip
        self.tally.note(begun.status, "" if begun.status in (201, 404, 429, 503) else begun.text)
        if begun.status != 201:
            return False
        half = len(content) // 2
        for offset, part, last in ((0, content[:half], "?0"), (half, content[half:], "?1")):
            headers = {
                "Content-Type": "application/partial-upload",
                "Upload-Offset": str(offset), "Upload-Complete": last,
            }  # fmt: skip
            place = begun.headers["Location"]
            # 404, 409: an outage of the database came between.
            if self._ask(
                person, "PATCH", place, 200, 204, 404, 409, 429, body=part, headers=headers
            ) not in (200, 204):
                self._ask(person, "DELETE", place, 204, 404)
                return False
        return True

    def _read(self) -> None:
        owner = random.choice(self._people)
        headers = {"Range": "bytes=5-500"} if random.random() < 0.5 else {}
        with_proxy = self.daemon.admin.connection()
        path = f"/api/images/raw/{owner.name}/{owner.name}-{random.randrange(3)}"
        with_proxy.request("GET", path, headers=headers)
        answer = with_proxy.getresponse()
        answer.read()
        with_proxy.close()
        odd = "" if answer.status in (200, 206, 404, 416, 503) else f"GET {path}: {answer.status}"
        self.tally.note(answer.status, odd)
        self._pause(0.05)

    def _list(self) -> None:
        for path in ("images?view=full&limit=5&sort=-modified", "users?view=full", "groups",
                     "transfers", "audit?limit=5", "uploads"):  # fmt: skip
            self._ask(self.daemon.admin, "GET", f"/api/{path}", 200)
        self._pause(0.2)

    def _cut(self) -> None:
        connection = self._people[0].connection()
        connection.putrequest("PUT", f"/api/images/raw/{self._people[0].name}-0")
        connection.putheader("Content-Length", "10000000")
        connection.endheaders(b"x" * random.choice((1, 100_000, 3_000_000)))
        self._pause(0.3)
        connection.close()
        self.tally.note("cut")
        self._pause(1)

    def _suspend(self) -> None:
        path = f"/api/users/{self._victim.name}"
        for suspended in ("true", "false"):
            connection = self.daemon.person(f"Person {self._victim.name}")
            del self.daemon._people[-1]
            self._ask(self._again, "POST", path, 200, form={"suspended": suspended})
            self._ask(connection, "GET", "/api/whoami", 200, 403)
            connection.hang_up()
            self._pause(0.5)

    @property
    def _again(self) -> Person:
        """The administrator, on a connection of this thread's own."""
        admin = self.daemon.admin
        if not hasattr(self, "_second"):
            self._second = Person(self.daemon, admin.name, admin.dn, admin.proxy)
        return self._second

    def _revoke(self) -> None:
        grid = self.daemon.grid
        path = self.daemon.ca_directory / f"{name_hash(grid.ca)}.r0"
        path.with_suffix(".new").write_bytes(crl(grid.ca, ()))
        path.with_suffix(".new").rename(path)
        self._pause(3)

    def _hang_up(self) -> None:
        os.kill(pid_of(self.daemon), signal.SIGHUP)
        self._pause(5)

    def _restart_postgres(self, seconds: float) -> None:
        self._pause(max(seconds / 4, 20) if seconds < 600 else 90)
        if not self._over.is_set():
            os.kill(postmaster_of(self.daemon), signal.SIGINT)
            self.tally.note("PostgreSQL restarted")


def faults(samples: list[Sample], tally: Tally) -> list[str]:
    """What must not be, a line each."""
    first, last = samples[0], samples[-1]
    warm = samples[1 + int(len(samples) * WARM_UP)]
    found = list(tally.wrong[:20])
    if tally.statuses["500"]:
        found.append(f"{tally.statuses['500']} requests were answered 500")
    for name, more in (("descriptors", 4), ("processes", 0), ("deferreds", 30), ("timers", 6)):
        before, after = getattr(first, name), getattr(last, name)
        if after > before + more:
            found.append(f"{name}: {before} before, {after} after")
    if last.memory > warm.memory * 1.15 + 8:
        found.append(f"memory: {warm.memory} MiB when warm, {last.memory} MiB after")
    return found


def main() -> int:
    """Run it; answer the exit status."""
    parser = argparse.ArgumentParser(description="Soak a daemon.")
    parser.add_argument("--seconds", type=float, default=1800)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        daemon = Daemon(Path(place), limits={"uploads": "8"})
        daemon.environment = {"CENSUS_FILE": str(Path(place) / "census")}
        daemon.twistd = [sys.executable, ROOT / "tests" / "census_twistd.py"]
        with daemon.running():
            soak = Soak(daemon)
            samples = soak.run(seconds)
            log = daemon.log.read_text()
    tracebacks = log.count("Traceback (most recent call last)")
    rows = [samples[0], samples[1 + int(len(samples) * WARM_UP)], samples[-2], samples[-1]]
    for when, row in zip(("at rest", "warm", "at the end", "at rest again"), rows, strict=True):
        print(f"{when:>14}  " + "  ".join(f"{k} {v}" for k, v in asdict(row).items()))
    print(dict(sorted(soak.tally.statuses.items())), f"tracebacks {tracebacks}")
    wrong = faults(samples, soak.tally)
    if tracebacks:
        wrong.append(log[log.index("Traceback") - 300 :][:1500])
    print("\n".join(wrong) or "Nothing has leaked.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
