"""What the records do about more files than anybody has."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.task import LoopingCall

from repoman.interfaces import new_key
from tests.records import Records

reactor: Any = global_reactor
MANY = 50_000


@pytest_twisted.ensureDeferred
async def test_taking_stock_of_many_files_holds_nobody_up(records: Records) -> None:
    await records.run(
        "INSERT INTO blob (blob, state, size, sha256)"
        " SELECT md5(n::text), 'present', 1, '' FROM generate_series(1, %s) AS n",
        MANY,
    )
    latest, last = 0.0, reactor.seconds()

    def tick() -> None:
        nonlocal latest, last
        latest, last = max(latest, reactor.seconds() - last), reactor.seconds()

    ticking = LoopingCall(tick)
    ticking.start(0.005)
    present = await records.blobs.present()
    strangers = [new_key() for _ in range(3)]
    unknown = await records.blobs.unknown([*present, *strangers])
    marked = await records.blobs.mark_damaged(list(present))
    ticking.stop()
    assert len(present) == marked == MANY
    assert sorted(unknown) == sorted(strangers)
    assert latest < 0.1
