"""twistd whose daemon keeps its bytes in memory, for ``make test-memory``.

Run as a program: ``memory_twistd.py PROGRAM ARGUMENT...``, where the program is twistd, or one of
ours that runs it.  ``KEYS_FILE`` names a file that lists the blobs that are there.
"""

from __future__ import annotations

import os
import runpy
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import repoman.assembly
from repoman.storage.memory import MemoryStore

PERIOD = 0.1
"""Seconds between two lists."""


class Listed(MemoryStore):
    """A store that says what is in it."""

    async def start(self) -> None:
        """Begin to say it."""
        self._say()

    async def hold(self) -> None:
        """It is ours alone in any case."""

    def _say(self) -> None:
        place = Path(os.environ["KEYS_FILE"])
        fresh = place.with_suffix(".new")
        with suppress(OSError):  # some tests leave us no descriptors
            fresh.write_text(" ".join([*self.arriving, *self.committed]))
            fresh.rename(place)
        self._reactor.callLater(PERIOD, self._say)


async def make_store(reactor: Any, *_: object, **__: object) -> MemoryStore:
    """The store, in place of the one that the configuration names."""
    return Listed(reactor)


if __name__ == "__main__":
    repoman.assembly.make_store = make_store  # type: ignore[assignment]
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
