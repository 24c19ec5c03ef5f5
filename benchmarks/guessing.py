"""How often a guess is right, by the time that a refusal takes, whether a private image exists.

An attacker knows some names of which there is an image and some of which there is none, times the
refusals of both, learns a threshold from their medians, and guesses at 100 other names; half of
these exist.  By chance 50 guesses are right, and in one of forty runs 60 or more.

    python benchmarks/guessing.py [--rounds 30] [--settings database.dsn=...]

"again" asks for each name several times within a second, "anew" only when what the daemon may
have remembered of it is too old.  Every name is asked for in each round, in an order drawn by lot.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

from attrs import define, frozen
from peers import Daemon

LEARNED, GUESSED = 60, 100
"""Names whose truth the attacker knows, and others; of both, half exist."""

FRESH = 1.05
"""Seconds after which nothing is remembered of an answer."""

AGAIN = 3
"""Requests for a name in a row; the first is not counted."""


@frozen
class Attack:
    """What is asked of each name.

    :ivar path: with ``{owner}`` and ``{name}``.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None


def attack(method: str, path: str, body: bytes | None = None, **headers: str) -> Attack:
    """An attack, with header fields by name."""
    return Attack(method, path, {k.replace("_", "-"): v for k, v in headers.items()}, body)


RECORD, RAW = "/api/images/{owner}/{name}", "/api/images/raw/{owner}/{name}"
READING = [
    attack("GET", RECORD),
    attack("GET", RAW),
    attack("HEAD", RAW),
    attack("GET", "/api/images/raw/{owner}/xen/{name}"),
    attack("GET", "/image/{owner}/{name}"),
    attack("GET", "/image/{owner}/{name}/upload"),
]
WRITING = [
    attack("POST", RECORD, b"description=x", Content_Type="application/x-www-form-urlencoded"),
    attack("DELETE", RECORD),
    attack("POST", f"{RECORD}/share/user/impeyr"),
    attack("DELETE", f"{RECORD}/share/group/users"),
    attack("PUT", RAW, b"x"),
    attack("POST", RAW, Upload_Complete="?0"),
]


@define
class Watch:
    """A kept connection of an attacker's, and a clock."""

    connection: HTTPConnection
    owner: str

    def time(self, one: Attack, name: str) -> tuple[float, int]:
        """Seconds from the request to the end of the answer, and its status."""
        target = one.path.format(owner=self.owner, name=name)
        begun = time.perf_counter()
        self.connection.request(one.method, target, one.body, dict(one.headers))
        answer = self.connection.getresponse()
        answer.read()
        return time.perf_counter() - begun, answer.status


def sample(
    watch: Watch, one: Attack, names: Sequence[str], rounds: int, anew: bool
) -> dict[str, float]:
    """The median time for each name."""
    times: dict[str, list[float]] = {name: [] for name in names}
    statuses = set()
    for _ in range(rounds):
        begun = time.monotonic()
        for name in random.sample(names, len(names)):
            for turn in range(1 if anew else AGAIN):
                seconds, status = watch.time(one, name)
                statuses.add(status)
                if anew or turn:
                    times[name].append(seconds)
        if anew:
            time.sleep(max(begun + FRESH - time.monotonic(), 0))
    assert len(statuses) == 1, f"{one.method} {one.path} tells by its status: {statuses}"
    return {name: statistics.median(found) for name, found in times.items()}


def guess(times: Mapping[str, float], there: Sequence[str], missing: Sequence[str]) -> int:
    """How many of GUESSED guesses are right, by a threshold learned from the other names."""
    known = LEARNED // 2
    yes, no = (
        statistics.median(times[name] for name in names[:known]) for names in (there, missing)
    )
    slower = yes > no
    right = 0
    for names, truth in ((there, True), (missing, False)):
        right += sum(((times[name] > (yes + no) / 2) == slower) == truth for name in names[known:])
    return right


def names(count: int, made: Callable[[str], object] = lambda name: None) -> list[str]:
    """Names drawn by lot, all of one length."""
    found = [secrets.token_hex(8) for _ in range(count)]
    for name in found:
        made(name)
    return found


def main() -> None:
    """Measure and print; the most right guesses last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default="", help="part of the lines to measure")
    options = parser.parse_args()
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        with Daemon(Path(place)).running() as daemon:
            owner, user = daemon.newcomer(), daemon.newcomer()

            def made(name: str) -> None:
                owner.ask("POST", "/api/images", form={"name": name})
                owner.ask("PUT", f"/api/images/raw/{name}", body=b"bytes")

            half = (LEARNED + GUESSED) // 2
            there, missing = names(half, made), names(half)
            plain = HTTPConnection("localhost", daemon.http)
            most = 0
            for who, connection, attacks in (
                ("a user", user.connection(), READING + WRITING),
                ("nobody", daemon.nobody.connection(), READING + WRITING),
                ("nobody, in the clear", plain, [READING[1]]),
            ):
                watch = Watch(connection, owner.name)
                for one in attacks:
                    for anew in (False, True):
                        how = "anew" if anew else "again"
                        said = f"{who:22} {one.method:6} {one.path:42} {how:5}"
                        if options.only not in said:
                            continue
                        times = sample(watch, one, there + missing, options.rounds, anew)
                        right = guess(times, there, missing)
                        most = max(most, right)
                        yes, no = (
                            statistics.median(times[n] for n in group) * 1e6
                            for group in (there, missing)
                        )
                        print(
                            f"{said} {yes:7.0f} us there {no:7.0f} us not:"
                            f" {right:3} of {GUESSED} right",
                            flush=True,
                        )
            print(f"most: {most} of {GUESSED}")


if __name__ == "__main__":
    main()
