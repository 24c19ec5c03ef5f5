"""PostgreSQL, or its backends, killed again and again while clients upload and fetch."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kills import Load
from tests.ledger import (
    PROMISED_LAG,
    Board,
    LateDaemon,
    Ledger,
    children,
    postmaster_of,
    wait_for,
)

SECONDS = float(os.environ.get("SECONDS_OF_KILLS", "10"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon whose database these tests kill."""
    with LateDaemon(tmp_path_factory.mktemp("load")).running() as daemon:
        yield daemon


def kill_a_backend(daemon: LateDaemon) -> float:
    """End one of the daemon's connections, whatever it is at; answer how long to wait then."""
    backends = [
        pid
        for pid in children(postmaster_of(daemon))
        if b"repoman repoman" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    if backends:
        os.kill(random.choice(backends), signal.SIGTERM)
    return random.uniform(0, 0.1)


def kill_everything(daemon: LateDaemon) -> float:
    """Kill PostgreSQL as a whole; answer how long to wait then."""
    os.kill(postmaster_of(daemon), signal.SIGKILL)
    return random.uniform(1, 3)


@pytest.mark.parametrize("harm", [kill_a_backend, kill_everything])
def test_killed_again_and_again_under_load_it_loses_nothing(
    own: LateDaemon, board: Board, harm: Callable[[LateDaemon], float]
) -> None:
    people, ledger = [own.newcomer() for _ in range(4)], Ledger(own)
    for person in people:
        for number in range(3):
            person.ask("POST", "/api/images", form={"name": f"image{number}"})
    load, end = Load(ledger, people), time.monotonic() + SECONDS
    with ledger.fault() as figures:
        load.start()
        while time.monotonic() < end:
            with suppress(OSError, ValueError):  # it is on its way down, or up
                time.sleep(harm(own))
        begun = time.monotonic()
        # Not one of those whose connections the load is using.
        wait_for(lambda: own.admin.ask("GET", "/api/whoami").status == 200, 20)
        figures.heal = time.monotonic() - begun
        load.stop()
    ledger.wrong += load.wrong
    acknowledged = [fate for fate in ledger.fates.values() if fate.acknowledged]
    assert acknowledged, "something got through all the same"
    ledger.check()
    assert figures.stall < PROMISED_LAG
    board(ledger, figures)
