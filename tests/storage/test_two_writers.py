"""On one machine the kernel keeps two processes from writing into one unfinished blob."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from directory_store import reactor

from repoman.errors import StoreUnavailable
from repoman.interfaces import new_key
from repoman.storage.directory import DirectoryStore


@pytest_twisted.ensureDeferred
async def test_a_blob_that_another_process_still_writes_is_not_reopened(
    store: DirectoryStore, root: Path
) -> None:
    other = DirectoryStore(reactor, root, repository_id="this")
    await other.start()
    first = await store.create(key := new_key(), None)
    first.write(b"abc")
    with pytest.raises(StoreUnavailable, match="another process"):
        await other.reopen(key, 0, None)
    await first.keep()
    second = await other.reopen(key, 3, None)
    with pytest.raises(StoreUnavailable, match="another process"):
        await store.reopen(key, 3, None)
    second.write(b"d")
    await second.commit()
    assert (await store.open(key, 4)).size == 4
    await other.stop()
