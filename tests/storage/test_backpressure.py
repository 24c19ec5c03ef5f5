"""A writer keeps little that is not durable, and never holds up the reactor."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic

import pytest
import pytest_twisted
from directory_store import MIB, Pushing, frozen, pid, reactor, until
from twisted.internet.task import LoopingCall, deferLater

from repoman.errors import StoreUnavailable
from repoman.interfaces import new_key
from repoman.storage.directory import UNFLUSHED, UNFLUSHED_EACH, DirectoryStore
from repoman.storage.writer import Unflushed


@pytest_twisted.ensureDeferred
async def test_a_producer_is_paused_while_too_much_is_not_durable(store: DirectoryStore) -> None:
    writer = await store.create(new_key(), 200 * MIB)
    with frozen(pid(store)):
        producer = Pushing(writer, b"x" * MIB, 200)
        await until(lambda: producer.paused)
        assert 200 - producer.left == UNFLUSHED_EACH // MIB
    await until(lambda: not producer.left)
    assert not producer.paused
    await writer.commit()


@pytest_twisted.ensureDeferred
async def test_a_paused_producer_learns_that_the_store_failed(store: DirectoryStore) -> None:
    writer = await store.create(new_key(), 200 * MIB)
    with frozen(helper := pid(store)):
        producer = Pushing(writer, b"x" * MIB, 200)
        await until(lambda: producer.paused)
        os.kill(helper, signal.SIGKILL)
    await until(lambda: producer.error)
    assert isinstance(producer.error, StoreUnavailable)
    await writer.discard()


def test_writers_share_what_may_be_unflushed() -> None:
    shared = Unflushed(UNFLUSHED, UNFLUSHED_EACH)
    assert shared.share == UNFLUSHED_EACH
    for shared.writers in (1, 2, 4, 5, 60, 1000):
        assert shared.share * shared.writers <= UNFLUSHED
        assert 0 < shared.share <= UNFLUSHED_EACH


@pytest.mark.parametrize("end", ["commit", "discard"])
@pytest_twisted.ensureDeferred
async def test_a_finished_writer_gives_its_share_back(store: DirectoryStore, end: str) -> None:
    for _ in range(3):
        writer = await store.create(new_key(), 3)
        assert store._unflushed.writers == 1
        await getattr(writer, end)()
        await writer.discard()
        assert store._unflushed.writers == 0


def resident() -> int:
    """The memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def kept_waiting() -> float:
    """For how long other processes kept this one off the processor so far, in seconds."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


class Lag:
    """The longest time for which we held up the reactor, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = monotonic() - kept_waiting()
        self._call = LoopingCall(self._look)
        self._call.start(0.002)

    def _look(self) -> None:
        now = monotonic() - kept_waiting()
        self.longest = max(self.longest, now - self._last)
        self._last = now

    def stop(self) -> float:
        self._call.stop()
        return self.longest


async def stream(store: DirectoryStore, size: int) -> tuple[float, int, int]:
    """Write and commit a blob; answer the lag, the growth of memory, the most unflushed."""
    lag, before, most = Lag(), resident(), 0
    writer = await store.create(key := new_key(), size)
    producer = Pushing(writer, os.urandom(MIB // 4), size // (MIB // 4))
    grown = 0
    while producer.left:
        await deferLater(reactor, 0.005)
        most = max(most, writer._written - writer._durable)
        grown = max(grown, resident() - before)
    assert producer.error is None
    await writer.commit()
    longest = lag.stop()
    await store.delete(key)
    return longest, grown, most


@pytest_twisted.ensureDeferred
async def test_a_gigabyte_flows_with_flat_memory_and_a_reactor_that_comes_round(
    store: DirectoryStore,
) -> None:
    longest, grown, most = await stream(store, 1 << 30)
    print(f"lag {longest * 1000:.1f} ms, grown {grown / MIB:.1f} MiB, unflushed {most / MIB} MiB")
    assert longest <= 0.1
    assert grown < 16 * MIB
    assert most <= UNFLUSHED_EACH
