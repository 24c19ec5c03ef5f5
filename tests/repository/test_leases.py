"""A sweep gives up the uploads of others that are dead, never our own that run."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater

from repoman.assembly import Assembly, assemble
from repoman.config import parse
from repoman.model import Caller, Image
from repoman.repository.images import FileRef
from repoman.repository.uploads import Part
from repoman.storage.memory import MemoryStore
from tests.records import Records
from tests.repository.test_digests_so_far import arriving

reactor: Any = global_reactor


def assembled(records: Records) -> Assembly:
    store: Any = MemoryStore(reactor)
    now = lambda: datetime.now(timezone.utc)  # noqa: E731
    return assemble(parse("", "none"), records.pool, store, now, lambda: None, list)


async def a_long_time_without_a_database(records: Records) -> None:
    """Nobody could renew a lease."""
    await records.run("UPDATE blob SET lease = now() - interval '1 s' WHERE lease IS NOT NULL")


@pytest_twisted.ensureDeferred
async def test_uploads_outlive_a_database_that_was_away_for_longer_than_their_lease(
    records: Records,
) -> None:
    caller, assembly = Caller(await records.user("alice")), assembled(records)
    assert caller.user is not None
    for name in ("whole", "parts"):
        await records.image("alice", name)
    dead = await records.begin(await records.image("alice", "dead"), caller.user, 5)
    files, uploads = assembly.repository.files, assembly.repository.uploads
    upload = await uploads.create(caller, FileRef("parts"), 5)
    first, second = arriving(5), arriving(5)
    whole = ensureDeferred(files.store(caller, FileRef("whole"), first, True, {}))
    part = Part(0, last=True, length=5, expected={})
    parts = ensureDeferred(uploads.append(caller, upload.id, part, second))
    while await records.run("SELECT 1 FROM blob WHERE lease > now()") != [(1,)] * 3:
        await deferLater(reactor, 0.02)
    await a_long_time_without_a_database(records)
    await assembly.sweeper.sweep()
    for body in (first, second):
        body.received(b"bytes")
        body.finished()
    assert isinstance(await whole, Image)
    assert isinstance(await parts, Image)
    assert await records.blobs.state(dead) is None
