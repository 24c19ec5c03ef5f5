"""Whose turn it is to accept: the worker's that has the fewest connections.

All workers hear of a new connection, and whoever is first would take it: among two and a dozen of
long transfers, one has often twice as many as the other.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

YIELD_SECONDS = 0.002
"""How long a worker leaves a connection to others."""

YIELDS = 20
"""How often in turn, before it takes it nevertheless: the others may be dead, or stand still."""

NOT_THERE = 2**31 - 1
"""The load of a worker that accepts nothing."""

_ENTRY = struct.Struct("=i")


class Loads:
    """How many connections each worker has, in memory that all of them share.

    :param place: a descriptor of that memory.
    """

    def __init__(self, place: int) -> None:
        self._memory = mmap.mmap(place, 0)

    @staticmethod
    def make(count: int) -> int:
        """Make the memory for so many workers; answer its descriptor."""
        place = os.memfd_create("loads")
        os.ftruncate(place, count * _ENTRY.size)
        return place

    def leave(self, number: int) -> None:
        """Let nobody wait for worker ``number``."""
        self.note(number, NOT_THERE)

    def note(self, number: int, load: int) -> None:
        """Say how many worker ``number`` has."""
        _ENTRY.pack_into(self._memory, number * _ENTRY.size, load)

    def is_turn_of(self, number: int) -> bool:
        """No other worker has fewer."""
        loads = [load for (load,) in _ENTRY.iter_unpack(self._memory[:])]
        return bool(loads[number] <= min(loads))


def take_turns(reactor: Any, port: Any, is_ours: Callable[[], bool]) -> None:
    """Let a port accept one connection at a time, and in turn with those of other processes.

    :param is_ours: notes how many connections we have, and answers whether it is our turn.
    """
    accept, yielded = port.doRead, 0

    def resume() -> None:
        if port.connected and not port.disconnecting:
            port.startReading()

    def accept_in_turn() -> Any:
        nonlocal yielded
        if yielded < YIELDS and not is_ours():
            yielded += 1
            port.stopReading()
            reactor.callLater(YIELD_SECONDS, resume)
            return None
        yielded = 0
        port.numberAccepts = 1
        why = accept()
        is_ours()  # notes the new one
        return why

    port.doRead = accept_in_turn
