"""What the log says of the store's troubles: everything that the client is not told."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from directory_store import pid, put, until
from twisted.logger import formatEvent, globalLogPublisher

from repoman.errors import BlobDamaged, StoreUnavailable
from repoman.interfaces import new_key
from repoman.storage.directory import DirectoryStore


@contextmanager
def told() -> Iterator[list[str]]:
    """What is logged while the block runs."""
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)


@pytest_twisted.ensureDeferred
async def test_a_missing_file_is_damage(store: DirectoryStore, root: Path) -> None:
    await put(store, key := new_key(), b"abc")
    (root / "data" / key[:2] / key).unlink()
    with told() as lines, pytest.raises(BlobDamaged):
        await store.open(key, 3)
    assert lines == [f"blob {key} is damaged: No such file or directory"]


@pytest_twisted.ensureDeferred
async def test_what_the_system_refuses_is_told_of_reading_and_writing(
    store: DirectoryStore, root: Path
) -> None:
    await put(store, key := new_key(), b"abc")
    place = root / "data" / key[:2] / key
    place.rename(root / "saved")
    place.symlink_to(place.name)  # ELOOP, which says nothing of the blob
    with told() as lines, pytest.raises(StoreUnavailable):
        await store.open(key, 3)
    assert [line.partition("] ")[0] for line in lines] == ["blob store: [Errno 40"]
    incoming = root / "incoming"
    incoming.rename(root / "moved")
    with told() as lines, pytest.raises(StoreUnavailable):
        await store.create(new_key(), 3)
    assert [line.partition("] ")[0] for line in lines] == ["blob store: [Errno 2"]


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_discarded_is_left_to_the_sweeper(store: DirectoryStore) -> None:
    writer = await store.create(key := new_key(), 3)
    with told() as lines:
        os.kill(pid(store), signal.SIGKILL)
        await until(lambda: store._flusher._life is None)
        await writer.discard()
    assert lines[0].startswith("blob store: the helper process ended: ")
    assert lines[1].startswith(f"blob {key} left to the sweeper: ")


@pytest_twisted.ensureDeferred
async def test_a_fault_of_the_helper_process_is_told_in_its_own_words(
    store: DirectoryStore,
) -> None:
    with told() as lines:
        with pytest.raises(StoreUnavailable):
            await store._flusher.ask("no such operation")
        await until(lambda: any("KeyError" in line for line in lines))
    assert any(line.startswith("blob store's helper says: ") for line in lines)
