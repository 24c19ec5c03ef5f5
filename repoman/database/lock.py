"""One process at a time per state directory."""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from repoman.errors import Misconfigured

_ATTEMPTS, _PAUSE = 40, 0.05
"""How often, and how many seconds apart, a lock of the dead is tried."""


async def hold(reactor: Any, state: Path) -> int:
    """Take ``<state>/lock`` for the life of this process.

    A process that dies while it starts a child leaves the lock to that, but
    only until the child becomes another program: so long it is waited for.

    :returns: its descriptor; to close it gives the lock back, as does any death.
    :raises Misconfigured: another process has it.
    """
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(_ATTEMPTS):
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            if Path("/proc", _holder(descriptor)).exists():
                break
            await deferLater(reactor, _PAUSE)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor
    process = _holder(descriptor)
    os.close(descriptor)
    raise Misconfigured([f"[server] state: {state} is in use by process {process}: stop it first"])


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
