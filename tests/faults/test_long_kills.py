"""What takes its time: two hundred kills, and a large upload killed at twenty offsets."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path

from tests.end_to_end.test_resumable_uploads import begin, begin_part, offset_of, send
from tests.kills import kill_under_load
from tests.ledger import PROMISED_LAG, Board, Figures, LateDaemon, Ledger, kill, restart
from tests.server import Person

MIB = 1 << 20
KILLS = int(os.environ.get("KILLS", "200"))
OFFSETS = 20
SIZE = 1024 * MIB


def test_killed_at_many_random_moments_under_load(tmp_path: Path, board: Board) -> None:
    with LateDaemon(tmp_path).running() as daemon:
        board(*kill_under_load(daemon, KILLS))


def test_1_gib_survives_kills_at_20_offsets_each_resumed_with_a_new_proxy(
    tmp_path: Path, board: Board
) -> None:
    block = os.urandom(64 * MIB)
    content = b"".join(block[n:] + block[:n] for n in range(SIZE // len(block)))
    with LateDaemon(tmp_path).running() as daemon:
        person, ledger, figures = daemon.newcomer(), Ledger(daemon), Figures()
        place, known = begin(person, "large", SIZE), 0
        for target in sorted(random.sample(range(MIB, SIZE), OFFSETS)):
            with ledger.fault() as seen:
                send_until_killed(daemon, person, place, known, content, target)
            figures.stall = max(figures.stall, seen.stall)
            figures.heal = max(figures.heal, restart(daemon))
            person = renewed(daemon, person)
            offset = offset_of(person, place)
            assert known <= offset <= max(target, known) + MIB
            known = offset
        answer = send(person, place, known, memoryview(content)[known:], last=True)  # type: ignore[arg-type]
        digest = hashlib.sha256(content).hexdigest()
        assert answer.json["checksum"]["value"] == digest
        ledger.answered(person, "large", digest, 200)
        ledger.check()
    board(ledger, figures)
    assert figures.stall < PROMISED_LAG


def send_until_killed(
    daemon: LateDaemon, person: Person, place: str, offset: int, content: bytes, target: int
) -> None:
    """Send a part from ``offset``, and kill the daemon when it comes to ``target``."""
    connection = begin_part(person, place, offset, len(content) - offset)
    for start in range(offset, target, MIB):
        connection.send(memoryview(content)[start : min(start + MIB, target)])
    time.sleep(random.uniform(0, 0.5))
    kill(daemon)
    connection.close()


def renewed(daemon: LateDaemon, person: Person) -> Person:
    """The same user with a new proxy."""
    person.hang_up()
    assert person.credential is not None
    again = person.credential.proxy().write(daemon.directory / f"renewed-{time.monotonic_ns()}")
    return daemon._remember(Person(daemon, person.name, person.dn, again, person.credential))
