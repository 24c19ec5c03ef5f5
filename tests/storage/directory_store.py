"""Flows, shortcuts and strace for the tests of the directory store."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from repoman.interfaces import IBlobStore
from repoman.storage.directory import DirectoryStore

reactor: Any = global_reactor
MIB = 1 << 20


class Sink:
    """A consumer that remembers."""

    def __init__(self) -> None:
        self.data = b""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.data += data


class Pushing:
    """A push producer of ``count`` equal pieces that does as it is told."""

    def __init__(self, consumer: Any, piece: bytes, count: int) -> None:
        self._consumer = consumer
        self._piece = piece
        self.left = count
        self.paused = False
        self.pauses = 0
        self.error: Exception | None = None
        consumer.registerProducer(self, True)
        reactor.callLater(0, self._push)

    def _push(self) -> None:
        if self.paused or not self.left:
            return
        try:
            self._consumer.write(self._piece)
        except Exception as error:
            self.error, self.left = error, 0
            return
        self.left -= 1
        if not self.paused:
            reactor.callLater(0, self._push)

    def pauseProducing(self) -> None:
        assert not self.paused
        self.paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        assert self.paused
        self.paused = False
        reactor.callLater(0, self._push)

    def stopProducing(self) -> None:
        raise AssertionError("a writer does not stop its producer")


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for a condition, or fail."""
    deadline = reactor.seconds() + seconds
    while not condition():
        assert reactor.seconds() < deadline, "it did not come to that"
        await deferLater(reactor, 0.005)


def pid(store: DirectoryStore) -> int:
    """The helper process of a store."""
    life = store._flusher._life
    assert life is not None
    return int(life._process.pid)


@contextmanager
def frozen(process: int) -> Iterator[None]:
    """A process that does nothing for a while."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def put(store: DirectoryStore, key: str, data: bytes) -> None:
    """Store a blob."""
    writer = await store.create(key, len(data))
    writer.write(data)
    await writer.commit()


async def get(store: DirectoryStore, key: str, size: int) -> bytes:
    """Read a blob."""
    reader = await store.open(key, size)
    sink = Sink()
    try:
        await reader.write_to(sink, 0, size)
    finally:
        reader.close()
    return sink.data


async def keys(store: IBlobStore) -> list[tuple[str, bool]]:
    """All keys."""
    listing = store.keys()
    return [entry async for entry in listing]


Tracing = Callable[..., AbstractContextManager[Path]]
"""Attaches strace to a process and all its forks."""
